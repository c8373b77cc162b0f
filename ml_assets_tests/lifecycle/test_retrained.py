"""What `retrain` says of a challenger, from its verdict in MLflow and the ledger in PostgreSQL."""

import dataclasses

import msgspec

from ml_assets.database.connect import connect
from ml_assets.learning.compare import Compared
from ml_assets.learning.gate import Condition, Verdict
from ml_assets.lifecycle.evaluation import COMPARED, VERDICT
from ml_assets.lifecycle.outcome import came_out
from ml_assets.usecases import discover
from ml_assets_tests.registry.test_registry import TRAINED, log, model_folder, registry  # noqa: F401 - fixtures


def _condition(name, value, threshold, *, passed):
    return Condition(name=name, value=value, comparison=">=", threshold=threshold, passed=passed, why="it is asked")


def test_a_no_of_the_gate_is_said_condition_by_condition(application_url, lake, registry, model_folder):  # noqa: F811
    """Guards 'retrain is done' of a model that was refused: what was not met, by how much, and what a person may do."""
    usecase = next(one for one in discover() if one.name == "cns_fails")
    usecase = dataclasses.replace(usecase, name="refused_by_the_gate")
    run_id = log(registry, usecase.name, model_folder, "lightgbm")
    registry.register(usecase.name, run_id, tags={})
    conditions = (
        _condition("pr_auc_against_rule", 0.31, 0.37, passed=False),
        _condition("positives", 900.0, 500.0, passed=True),
    )
    registry.write_evidence(run_id, VERDICT, Verdict(passed=False, conditions=conditions).to_json())
    models = {
        "lightgbm": {"validation": 0.4, "per_day_pr_auc": 0.31, "calibration_error": 0.0234, "saved_per_day": 12_345.6},
        "rule": {"validation": None, "per_day_pr_auc": 0.37, "calibration_error": float("nan"), "saved_per_day": -3.0},
    }
    compared = Compared(first=TRAINED, last=TRAINED, decisions=2000, positives=300, models=models)
    registry.write_evidence(run_id, COMPARED, msgspec.json.encode(compared).decode())
    engine = connect(application_url)
    said = "\n".join(came_out(lake, registry, engine, usecase, "retrain", [TRAINED], told=[]))
    engine.dispose()
    assert "version 1 (lightgbm) is the best candidate; it was compared with the rule" in said
    assert f"On 2,000 unseen decisions of {TRAINED} to {TRAINED}, of which 15.0% came out as fail:" in said
    table = [line.split() for line in said.splitlines() if line.startswith("    ")]
    assert table == [
        ["model", "per_day_pr_auc,", "days", "before", "per_day_pr_auc", "calibration_error", "saved_per_day"],
        ["lightgbm", "0.400", "0.310", "0.023", "12,346"],
        ["rule", "-", "0.370", "-", "-3.000"],
    ]
    assert "not met:" in said
    assert "0.31" in said
    assert "0.37" in said
    assert "The gate says no: there is no champion, so nothing is scored" in said
    assert '`ml-assets promote refused_by_the_gate --override "<why>"`' in said
