"""Checks of the training set."""

from collections.abc import Mapping

import dagster as dg

from ml_assets.lifecycle.audit import LeakReport

NO_LEAK = "no_leak"


def leak_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that stops a training on what was not known."""
    return dg.AssetCheckSpec(
        NO_LEAK,
        asset=asset,
        blocking=True,
        description=(
            "Features of some decision times, made again only from rows with an earlier known_at, are those stored; no "
            "event was known before it happened; and no feature ranks the outcomes too well on its own."
        ),
    )


def judge_leaks(report: LeakReport) -> dg.AssetCheckResult:
    """Return whether nothing speaks for a leak."""
    return dg.AssetCheckResult(
        check_name=NO_LEAK,
        passed=report.passed,
        metadata={
            "audited decision times": ", ".join(f"{time:%Y-%m-%d %H:%M}" for time in report.audited) or "none",
            "audited decisions": report.decisions,
            "differ from what was known": _listed(report.differing),
            "decided, but not from what was known": report.missing,
            "known before they happened": _listed(report.known_too_early),
            "features that are too good": _listed(report.suspects),
            "best single feature": _listed(dict(list(report.auc.items())[:3])),
            "limit of a feature's AUC": report.limit,
        },
    )


def _listed(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name}: {value:.3g}" for name, value in found.items()) or "none"
