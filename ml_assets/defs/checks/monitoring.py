"""Checks of monitoring."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_assets.governance.conditions import sentence
from ml_assets.monitoring.outcomes import Completeness

if TYPE_CHECKING:
    from ml_assets.lifecycle.shadow import ShadowReport
    from ml_assets.monitoring.performance import LiveVerdict

LIVE_GATE = "live_gate"
ESTIMATE_HOLDS = "estimate_holds"
OUTCOMES_COMPLETE = "outcomes_complete"
NO_DRIFT = "no_drift"
CHAMPION_IS_BEST = "champion_is_best"
# Some decisions never get an outcome, as cancelled instructions; more than this is worth a look.
_LEAST_SHARE = 0.8


def completeness_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that complete outcome dates have an outcome for most of their predictions."""
    return dg.AssetCheckSpec(
        OUTCOMES_COMPLETE,
        asset=asset,
        description=(
            f"Of the predictions about a complete outcome date at least {_LEAST_SHARE:.0%} have an outcome. "
            "Dates that wait for labels are not judged."
        ),
    )


def judge_completeness(dates: Sequence[Completeness]) -> dg.AssetCheckResult:
    """Return the result; a warning, since what is missing is not judged."""
    short = [one for one in dates if one.is_complete and one.share < _LEAST_SHARE]
    waiting = [one for one in dates if not one.is_complete]
    return dg.AssetCheckResult(
        check_name=OUTCOMES_COMPLETE,
        passed=not short,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "dates with few outcomes": ", ".join(f"{one.outcome_date} ({one.share:.0%})" for one in short) or "none",
            "dates that wait for labels": ", ".join(str(one.outcome_date) for one in waiting) or "none",
        },
    )


def live_gate_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that the model in use would pass the gate on what came of its decisions."""
    return dg.AssetCheckSpec(
        LIVE_GATE,
        asset=asset,
        description="On the matured window the model in use meets the gate's conditions: same gate, same slices.",
    )


def judge_live_gate(live: "LiveVerdict") -> dg.AssetCheckResult:
    """Return the result; a window that is too small to judge is no failure and says so."""
    failures = live.verdict.failures if live.verdict is not None else ()
    return dg.AssetCheckResult(
        check_name=LIVE_GATE,
        passed=not failures,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "what does not hold": "\n".join(sentence(failed) for failed in failures) or "nothing",
            "not judged": live.why or "all was",
        },
    )


def estimate_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that what came out agrees with what was estimated."""
    return dg.AssetCheckSpec(
        ESTIMATE_HOLDS,
        asset=asset,
        description=(
            "What came out agrees with what the probabilities had said. While it does not, estimates are withdrawn: "
            "fails have another probability than the model says."
        ),
    )


def judge_estimate(rows: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    """Return the result of the rows of the table of estimates."""
    withdrawn = {row["metric"]: row["why"] for row in rows if not row["published"]}
    said = {row["metric"]: row["why"] for row in rows}
    return dg.AssetCheckResult(
        check_name=ESTIMATE_HOLDS,
        passed=not withdrawn,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={metric: why or "nothing estimated" for metric, why in said.items()},
    )


def drift_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that decisions, feeds and outcomes are like those that the model learned from."""
    return dg.AssetCheckSpec(
        NO_DRIFT,
        asset=asset,
        description="Decisions, feeds and outcomes are as far from the model's reference as its own days were.",
    )


def judge_drift(drifted: Sequence[Mapping[str, Any]], why: str) -> dg.AssetCheckResult:
    """Return the result of what has drifted, rows of the table of drift; `why` is what was not judged."""
    said = [f"{row['kind']} {row['name']}, {row['measure']}: {row['why']}" for row in drifted]
    return dg.AssetCheckResult(
        check_name=NO_DRIFT,
        passed=not drifted,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"what has drifted": "\n".join(said) or "nothing", "not judged": why or "all was"},
    )


def shadow_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that the model in the shadow is not better than the champion."""
    return dg.AssetCheckSpec(
        CHAMPION_IS_BEST,
        asset=asset,
        description="On the same live decisions the model in the shadow is not better than the champion.",
    )


def judge_shadow_verdict(report: "ShadowReport") -> dg.AssetCheckResult:
    """Return the result; what is too early to say is no failure."""
    return dg.AssetCheckResult(
        check_name=CHAMPION_IS_BEST,
        passed=report.verdict is None or report.verdict.says != "better",
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"verdict": report.sentence},
    )
