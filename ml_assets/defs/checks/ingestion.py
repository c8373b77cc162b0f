"""Checks of curated events and of reference tables."""

from collections.abc import Mapping
from datetime import date

import dagster as dg

from ml_assets.lifecycle.ingestion import FEW, IngestionReport, ReferenceReport, beyond
from ml_assets.spec import EventSpec

QUARANTINE_RATE = "quarantine_rate"
DEAD_LETTER_RATE = "dead_letter_rate"
REFERENCE_FILES = "reference_files"


def curation_checks(asset: dg.AssetKey, event: EventSpec) -> list[dg.AssetCheckSpec]:
    """Return the checks on how many messages broke the contract or a rule; both stop the run."""
    return [
        dg.AssetCheckSpec(
            QUARANTINE_RATE,
            asset=asset,
            blocking=True,
            description=(
                f"At most {event.max_quarantine_rate:.1%} of the messages of each date, or {FEW}, break a rule; more "
                "stops the run."
            ),
        ),
        dg.AssetCheckSpec(
            DEAD_LETTER_RATE,
            asset=asset,
            blocking=True,
            description=(
                f"At most {event.max_dead_letter_rate:.1%} of the messages of each date, or {FEW}, break their "
                "contract; more stops the run. Mend contract or feed, then `ml-assets dead-letters replay`."
            ),
        ),
    ]


def judge_curation(event: EventSpec, report: IngestionReport) -> list[dg.AssetCheckResult]:
    """Return whether both rates are within the event's limits on each date."""
    return [
        _judge(QUARANTINE_RATE, report.quarantine_rates, report.rejected, event.max_quarantine_rate),
        _judge(DEAD_LETTER_RATE, report.dead_letter_rates, report.dead_letters, event.max_dead_letter_rate),
    ]


def _judge(name: str, rates: Mapping[date, float], bad: Mapping[date, int], limit: float) -> dg.AssetCheckResult:
    excess = beyond(rates, bad, limit)
    return dg.AssetCheckResult(
        check_name=name,
        passed=not excess,
        metadata={
            "highest rate": max(rates.values(), default=0.0),
            "limit": limit,
            "dates beyond it": ", ".join(f"{day} ({rate:.1%})" for day, rate in excess.items()) or "none",
        },
    )


def reference_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that all dropped files and lines can be used; without any row it stops the run."""
    return dg.AssetCheckSpec(
        REFERENCE_FILES,
        asset=asset,
        blocking=True,
        description=(
            "Every dropped file and line can be used. What cannot is in the quarantine with file, line and reason, and "
            "the others go on; without any row the run stops."
        ),
    )


def judge_reference(report: ReferenceReport) -> dg.AssetCheckResult:
    """Return whether all files and lines can be used: a warning, unless there is nothing to go on with."""
    return dg.AssetCheckResult(
        check_name=REFERENCE_FILES,
        passed=not (report.bad_files or report.bad_lines) and report.rows > 0,
        severity=dg.AssetCheckSeverity.WARN if report.rows or report.kept else dg.AssetCheckSeverity.ERROR,
        metadata={
            "rows": report.rows,
            "rows kept from before": report.kept,
            "files left out": len(report.bad_files),
            "lines left out": sum(report.bad_lines.values()),
        },
    )
