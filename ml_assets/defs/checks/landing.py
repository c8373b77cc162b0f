"""The checks on landing tables: every consumed message is there, once, and every event has been curated."""

from datetime import UTC, datetime

import dagster as dg

from ml_assets.defs.common import landing_key, table
from ml_assets.defs.resources import Platform
from ml_assets.landing.accounting import account
from ml_assets.landing.curation_account import account_of_curation, totals
from ml_assets.spec import EventSpec, UseCase

ACCOUNTING = "accounting"
# How many of the dates that do not balance are shown.
_SHOWN = 20


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


def curation_check(usecase: UseCase, event: EventSpec) -> dg.AssetChecksDefinition:
    """Return the check that each landed event is curated, quarantined or a copy, for a use case that reads it."""

    @dg.asset_check(
        asset=landing_key(event),
        name=f"curated_by_{usecase.name}",
        description=(
            f"Each event that landed a day ago or earlier is in the curated table of {usecase.name}, in its "
            "quarantine, or a copy of a curated one."
        ),
    )
    def curated(platform: Platform) -> dg.AssetCheckResult:
        now = datetime.now(UTC)
        dates = account_of_curation(platform.lake, usecase, event, threads=platform.settings.threads)
        wrong = [one for one in dates if not one.is_right(now)]
        added = totals(dates)
        return dg.AssetCheckResult(
            passed=not wrong,
            metadata={
                "landed": added.landed,
                "curated": added.curated,
                "quarantined": added.quarantined,
                "copies": added.copies,
                "not yet": added.not_yet,
                "before the first date": added.early,
                "dates that do not balance": table(
                    [
                        {"date": str(one.business_date), "landed": one.landed, "in no table": one.unaccounted}
                        for one in wrong[:_SHOWN]
                    ]
                ),
            },
        )

    return curated
