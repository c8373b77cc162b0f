"""Performance of predictions whose outcomes have come."""

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.learning.gate import ModelEvidence, ServingEvidence
from ml_assets.learning.metrics import evaluate
from ml_assets.learning.window import Window
from ml_assets.monitoring.performance import LiveVerdict, judge_live, matured_window, performance
from ml_assets.spec import GateSpec, MonitoringSpec
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.monitoring.made import CALENDAR, FIRST, outcomes

USECASE = dataclasses.replace(
    USE_CASE,
    capacity=40,
    monitoring=MonitoringSpec(window_days=6, min_positives=100),
    gate=GateSpec(min_test_positives=100, max_calibration_error=0.05, resamples=100, slices=USE_CASE.gate.slices),
)
TRAINED = datetime(2026, 1, 1, tzinfo=UTC)
SERVING = ServingEvidence(model_hash="0", rows=9, max_abs_difference=0.0, latency_ms=1.0, load_ms=1.0)


def of(rows: pa.Table, dimension: str, value: str = "all") -> dict[str, dict[str, object]]:
    found = [row for row in rows.to_pylist() if (row["dimension"], row["value"]) == (dimension, value)]
    return {row["metric"]: row for row in found}


def test_the_window_is_the_newest_complete_dates_as_they_were_known() -> None:
    made = outcomes(USECASE, days=10, per_day=20, waiting=2)
    days = sorted(set(matured_window(USECASE, made)["decision_date"].to_pylist()))
    assert days == [CALENDAR.add(FIRST, n) for n in range(2, 8)]
    earlier = matured_window(USECASE, made, until=CALENDAR.add(FIRST, 3))  # the day on which day 2's outcome is known
    assert sorted(set(earlier["decision_date"].to_pylist())) == [CALENDAR.add(FIRST, n) for n in range(3)]
    assert matured_window(USECASE, made, until=FIRST).num_rows == 0


def test_the_whole_is_what_the_gate_measures_on_the_same_window() -> None:
    """Guards a second definition of a metric: live and at the gate it must be one number."""
    rows = matured_window(USECASE, outcomes(USECASE, days=6))
    found = of(performance(USECASE, rows), "all")
    measured = evaluate(Window.of(rows), rows["probability"].to_numpy(), capacity=40, action=USECASE.action)
    shared = set(found) & set(measured)
    assert {"pr_auc", "brier", "calibration_error", "precision_at_capacity", "saved_per_day"} <= shared
    assert {"value_recall_at_capacity", "lead_hours_at_capacity"} <= shared
    for name in shared:
        assert found[name]["measured"] == pytest.approx(measured[name]), name
    assert found["pr_auc"]["low"] < found["pr_auc"]["measured"] < found["pr_auc"]["high"]
    assert found["pr_auc"]["days"] == 6


def test_every_group_is_shown_and_small_ones_are_not_judged() -> None:
    table = performance(USECASE, matured_window(USECASE, outcomes(USECASE, days=6)))
    dimensions = set(table["dimension"].to_pylist())
    slices = {"market", "asset_class", "counterparty_tier", "feedback"}
    assert dimensions == {"all", "stage", "handling", "day", "slot", "model_version", *slices}
    assert of(table, "market", "a")["pr_auc"]["judged"]
    day = of(table, "day", str(FIRST))["pr_auc"]
    assert not day["judged"]  # some 40 fails
    assert day["measured"] is not None
    assert day["low"] is None  # one day has no interval over days
    halves = [of(table, "market", value)["pr_auc"]["n"] for value in "ab"]
    assert sum(halves) == of(table, "all")["pr_auc"]["n"]


def test_a_part_counts_what_was_on_the_lists_and_makes_none_of_its_own() -> None:
    """Guards precision of a slice at a capacity that the slice never had."""
    rows = matured_window(USECASE, outcomes(USECASE, days=6))
    part = [row for row in rows.to_pylist() if row["slice__market"] == "a" and row["on_list"]]
    found = of(performance(USECASE, rows), "market", "a")["precision_at_capacity"]["measured"]
    assert found == pytest.approx(np.mean([row["label"] for row in part]))


def live(made: pa.Table, *, trained: datetime = TRAINED, rule: object = None) -> LiveVerdict:
    rows = matured_window(USECASE, made)
    model = ModelEvidence(name="m", trained_until=trained, parity_max_abs_difference=0.0)
    said = np.full(rows.num_rows, 0.1) if rule is None else rule
    return judge_live(USECASE, rows, said, {1: model}, ModelEvidence(name="rule"), serving=SERVING, score_psi=0.01)


def test_the_gate_says_yes_to_a_model_that_holds_and_no_to_one_that_does_not() -> None:
    good = live(outcomes(USECASE, days=6))
    assert good.verdict is not None
    assert good.verdict.passed, good.verdict.failures
    bad = live(outcomes(USECASE, days=6, distort=lambda p: np.minimum(1.0, 2.5 * p)))
    assert bad.verdict is not None
    assert [c.name for c in bad.verdict.failures] == ["calibration_error"]


def test_decisions_that_the_model_learned_from_are_not_judged() -> None:
    """Guards a backfill: a model that scores days of its own training would look better than it is."""
    made = outcomes(USECASE, days=6)
    until = datetime.combine(CALENDAR.add(FIRST, 2), datetime.min.time(), tzinfo=UTC)
    verdict = live(made, trained=until).verdict
    assert verdict is not None
    rows = next(c for c in verdict.conditions if c.name == "test_rows")
    assert rows.value == 4 * 400
    assert next(c for c in verdict.conditions if c.name == "challenger_unseen").passed
    late = live(made, trained=until + timedelta(days=30))
    assert late.verdict is None
    assert late.why == "0 fails in 0 matured decisions; the gate asks for 100"
