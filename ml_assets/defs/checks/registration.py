"""Checks of the champion."""

import dagster as dg

from ml_assets.governance.conditions import sentence
from ml_assets.learning.gate import Verdict
from ml_assets.lifecycle.champion import Agreement

GATE = "gate"
LEDGER = "champion_is_in_ledger"


def gate_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that shows the gate's verdict; not blocking, since scoring continues with the old champion."""
    return dg.AssetCheckSpec(GATE, asset=asset, description="The challenger keeps every condition of the gate.")


def judge_gate(verdict: Verdict, asset: dg.AssetKey) -> dg.AssetCheckResult:
    """Return the verdict as a warning, since a challenger that fails is an everyday event."""
    failures = "\n".join(map(sentence, verdict.failures))
    return dg.AssetCheckResult(
        check_name=GATE,
        asset_key=asset,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"failed conditions": failures or "none"},
    )


def ledger_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that the alias `champion` names the version of the promotion ledger."""
    return dg.AssetCheckSpec(
        LEDGER, asset=asset, description="The alias `champion` in MLflow names the version of the promotion ledger."
    )


def judge_ledger(agreement: Agreement, asset: dg.AssetKey) -> dg.AssetCheckResult:
    """Return whether alias and ledger agree."""
    return dg.AssetCheckResult(
        check_name=LEDGER,
        asset_key=asset,
        passed=agreement.agrees,
        metadata={"alias": agreement.by_alias or 0, "ledger": agreement.by_ledger or 0, "said": str(agreement)},
    )
