"""Checks of features."""

from collections.abc import Sequence
from datetime import date

import dagster as dg

from ml_assets.lifecycle.features import DecisionReport
from ml_assets.spec import UseCase

ROW_COUNT = "row_count"
FRESHNESS = "freshness"
COMPLETE = "complete"


def feature_checks(asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Return the checks that every business day has decisions, and that these saw fresh data."""
    return [
        dg.AssetCheckSpec(
            ROW_COUNT,
            asset=asset,
            description="Every business day of the use case has decisions. A day without any has probably not landed.",
        ),
        dg.AssetCheckSpec(
            FRESHNESS,
            asset=asset,
            description="Data known on the business day before the newest decision, or later, has landed.",
        ),
        dg.AssetCheckSpec(
            COMPLETE,
            asset=asset,
            description="Every decision can be scored, and has what it needs of the references.",
        ),
    ]


def judge_features(usecase: UseCase, report: DecisionReport, dates: Sequence[date]) -> list[dg.AssetCheckResult]:
    """Return the results; warnings, since a market can be quiet."""
    empty = [day for day in dates if usecase.calendar.is_business_day(day) and not report.rows_by_date.get(day)]
    return [
        dg.AssetCheckResult(
            check_name=ROW_COUNT,
            passed=not empty,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"rows": report.rows, "dates without rows": ", ".join(map(str, empty)) or "none"},
        ),
        dg.AssetCheckResult(
            check_name=FRESHNESS,
            passed=_is_fresh(usecase, report),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "newest decision": str(report.newest_decision or "none"),
                "landed until": str(report.landed_until or "never"),
                "behind": report.slowest or "nothing",
            },
        ),
        dg.AssetCheckResult(
            check_name=COMPLETE,
            passed=not (report.refused or report.lacking),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"decisions left out": len(report.refused), "decisions lacking": sum(report.lacking.values())},
        ),
    ]


def _is_fresh(usecase: UseCase, report: DecisionReport) -> bool:
    if report.newest_decision is None:
        return True
    oldest = usecase.calendar.previous(report.newest_decision.date()) - usecase.publication_pause
    return report.landed_until is not None and report.landed_until.date() >= oldest
