"""The check on landing tables: every message that was consumed is there, once."""

import dagster as dg

from ml_assets.assets.common import table
from ml_assets.assets.ingestion import landing_key
from ml_assets.landing.accounting import account
from ml_assets.resources import Platform
from ml_assets.spec import EventSpec

ACCOUNTING = "accounting"


def accounting_check(event: EventSpec) -> dg.AssetChecksDefinition:
    """Return the check that balances a topic's account; a job runs it, since no run of Dagster's fills the table."""

    @dg.asset_check(
        asset=landing_key(event),
        name=ACCOUNTING,
        description=(
            "Of each partition, every offset below the landed position is an event, a dead letter or a gap, once."
        ),
    )
    def accounting(platform: Platform) -> dg.AssetCheckResult:
        parts = account(platform.lake, event, threads=platform.settings.threads)
        wrong = [part for part in parts if not part.is_right]
        return dg.AssetCheckResult(
            passed=not wrong,
            metadata={
                "consumed": sum(part.position for part in parts),
                "landed": sum(part.landed for part in parts),
                "dead letters": sum(part.dead_lettered for part in parts),
                "replayed": sum(part.replayed for part in parts),
                "lost and accepted": sum(part.lost for part in parts),
                "partitions": table(
                    [
                        {
                            "partition": part.partition, "consumed to": part.position, "landed": part.landed,
                            "dead letters": part.dead_lettered, "gaps": part.gaps, "missing": part.missing,
                            "doubled": part.doubled, "right": part.is_right,
                        }
                        for part in parts
                    ]
                ),
            },
        )  # fmt: skip

    return accounting
