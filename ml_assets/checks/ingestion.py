"""Checks of curated events."""

import dagster as dg

from ml_assets.lifecycle.ingestion import IngestionReport
from ml_assets.spec import EventSpec

QUARANTINE_RATE = "quarantine_rate"


def quarantine_check(asset: dg.AssetKey, event: EventSpec) -> dg.AssetCheckSpec:
    """Return the check that not too much was quarantined."""
    return dg.AssetCheckSpec(
        QUARANTINE_RATE,
        asset=asset,
        blocking=True,
        description=f"At most {event.max_quarantine_rate:.1%} of the rows are quarantined; more stops the run.",
    )


def judge_quarantine(event: EventSpec, report: IngestionReport) -> dg.AssetCheckResult:
    """Return whether the quarantine rate keeps the contract's limit."""
    return dg.AssetCheckResult(
        check_name=QUARANTINE_RATE,
        passed=report.quarantine_rate <= event.max_quarantine_rate,
        metadata={"quarantine_rate": report.quarantine_rate, "limit": event.max_quarantine_rate},
    )
