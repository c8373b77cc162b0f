"""Checks of the champion."""

import dagster as dg

from ml_assets.learning.gate import Verdict

GATE = "gate"


def gate_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that shows the gate's verdict; not blocking, since scoring goes on with the old champion."""
    return dg.AssetCheckSpec(GATE, asset=asset, description="The challenger keeps every condition of the gate.")


def judge_gate(verdict: Verdict) -> dg.AssetCheckResult:
    """Return the verdict as a warning, since a challenger that fails is an everyday event."""
    failures = "; ".join(f"{c.name}: {c.value} {c.comparison} {c.threshold} does not hold" for c in verdict.failures)
    return dg.AssetCheckResult(
        check_name=GATE,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"failed conditions": failures or "none"},
    )
