"""Checks of the training set."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg

from ml_assets.lifecycle.audit import LeakReport

NO_LEAK = "no_leak"


def leak_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that stops a training on data that were not known in time."""
    return dg.AssetCheckSpec(
        NO_LEAK,
        asset=asset,
        blocking=True,
        description=(
            "Features of all decision times, made again after all that became known later was deleted, are those "
            "stored; no event was known before it happened; no feature ranks the outcomes too well on its own; and "
            "outcomes follow their decisions."
        ),
    )


def judge_leaks(report: LeakReport) -> dg.AssetCheckResult:
    """Return whether nothing suggests a leak."""
    return dg.AssetCheckResult(
        check_name=NO_LEAK,
        passed=report.passed,
        description=(
            "Too many outcomes had happened when they were decided on: a model learns to tell what is known. Let "
            "decisions.sql leave out what has happened, or raise max_settled in the use case's GateSpec"
            if report.came_before
            else None
        ),
        metadata={
            "audited decision times": _span(report.audited),
            "audited decisions": report.decisions,
            "differ from what was known": _listed(report.differing),
            "decided, but not from what was known": report.missing,
            "known before they happened": _listed(report.known_too_early),
            "features that are too good": _listed(report.suspects),
            "best single feature": _listed(dict(list(report.auc.items())[:3])),
            "limit of a feature's AUC": report.limit,
            "had happened when decided": (
                f"{report.settled.settled:,} of {report.settled.positives:,} decisions with the outcome, "
                f"{report.settled.share:.1%}; at most {report.max_settled:.0%}"
            ),
            "values that alone tell the outcome": "; ".join(
                f"{one.feature} = {one.value}: {one.rate:.3f} of {one.n:,}" for one in report.telling
            )
            or "none",
        },
    )


def _span(times: Sequence[datetime]) -> str:
    return f"{len(times)}, {times[0]:%Y-%m-%d %H:%M} to {times[-1]:%Y-%m-%d %H:%M}" if times else "none"


def _listed(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name}: {value:.3g}" for name, value in found.items()) or "none"
