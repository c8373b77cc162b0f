"""Checks of curated events."""

import dagster as dg

from ml_assets.lifecycle.ingestion import IngestionReport
from ml_assets.spec import EventSpec

QUARANTINE_RATE = "quarantine_rate"
DEAD_LETTER_RATE = "dead_letter_rate"
# So few dead letters of a date stop nothing, whatever their share: a quiet date has few messages at all.
_FEW = 5


def curation_checks(asset: dg.AssetKey, event: EventSpec) -> list[dg.AssetCheckSpec]:
    """Return the checks that not too much broke the contract, nor a rule; both stop the run."""
    return [
        dg.AssetCheckSpec(
            QUARANTINE_RATE,
            asset=asset,
            blocking=True,
            description=f"At most {event.max_quarantine_rate:.1%} of the rows are quarantined; more stops the run.",
        ),
        dg.AssetCheckSpec(
            DEAD_LETTER_RATE,
            asset=asset,
            blocking=True,
            description=(
                f"At most {event.max_dead_letter_rate:.1%} of the messages of each date break their contract; more "
                "stops the run. Mend contract or feed, then `ml-assets dead-letters replay`."
            ),
        ),
    ]


def judge_curation(event: EventSpec, report: IngestionReport) -> list[dg.AssetCheckResult]:
    """Return whether both rates keep the contract's limits, the second on each date."""
    excess = {
        day: rate
        for day, rate in report.dead_letter_rates.items()
        if rate > event.max_dead_letter_rate and report.dead_letters[day] > _FEW
    }
    return [
        dg.AssetCheckResult(
            check_name=QUARANTINE_RATE,
            passed=report.quarantine_rate <= event.max_quarantine_rate,
            metadata={"quarantine_rate": report.quarantine_rate, "limit": event.max_quarantine_rate},
        ),
        dg.AssetCheckResult(
            check_name=DEAD_LETTER_RATE,
            passed=not excess,
            metadata={
                "highest rate": max(report.dead_letter_rates.values(), default=0.0),
                "limit": event.max_dead_letter_rate,
                "dates beyond it": ", ".join(f"{day} ({rate:.1%})" for day, rate in excess.items()) or "none",
            },
        ),
    ]
