import math
from datetime import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from ml_assets.learning.metrics import (
    brier_decomposition,
    by_group,
    confusion_at_capacity,
    evaluate,
    reliability,
    share_of_best,
    worklist,
)
from ml_assets.learning.window import Window
from ml_assets.spec import ActionSpec


def _window(n: int = 3000, seed: int = 0, first: str = "2020-12-28") -> tuple[Window, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 9, n)
    dates = np.datetime64(first, "D") + rng.integers(0, 10, n).astype("timedelta64[D]")
    return (
        Window(
            entity_ids=np.array([f"E{i:05d}" for i in range(n)], dtype=object),
            decision_times=dates.astype("datetime64[us]"),
            dates=dates,
            slots=rng.choice(np.array(["a", "b"], dtype=object), n),
            labels=(rng.random(n) < p).astype(np.int8),
            costs=rng.lognormal(8, 2, n),
            outcome_dates=dates + np.timedelta64(1, "D"),
            values=rng.lognormal(12, 1, n),
        ),
        np.round(p, 2),  # with ties
    )


def test_agrees_with_scikit_learn() -> None:
    window, p = _window()
    metrics = evaluate(window, p, capacity=10)
    assert metrics["pr_auc"] == pytest.approx(average_precision_score(window.labels, p))
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(window.labels, p))
    assert metrics["brier"] == pytest.approx(brier_score_loss(window.labels, p))
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    assert metrics["log_loss"] == pytest.approx(log_loss(window.labels, clipped))
    days = [
        average_precision_score(window.labels[window.dates == day], p[window.dates == day])
        for day in np.unique(window.dates)
    ]
    assert metrics["per_day_pr_auc"] == pytest.approx(np.mean(days))
    assert metrics["lift"] == pytest.approx(metrics["pr_auc"] - window.labels.mean())


def test_at_capacity_by_hand() -> None:
    """Guards the work-list: cut by date and slot and expected cost, not by window and probability."""
    window = Window(
        entity_ids=np.array(list("abcdef"), dtype=object),
        decision_times=np.full(6, np.datetime64("2021-01-04", "us")),
        dates=np.array(["2021-01-04"] * 3 + ["2021-01-05"] * 3, dtype="datetime64[D]"),
        slots=np.array(["x"] * 6, dtype=object),
        labels=np.array([0, 1, 0, 1, 0, 1], dtype=np.int8),
        costs=np.array([1.0, 100.0, 1.0, 50.0, 500.0, 10.0]),
        outcome_dates=np.array(["2021-01-05"] * 3 + ["2021-01-06"] * 3, dtype="datetime64[D]"),
        values=np.full(6, np.nan),
    )
    p = np.array([0.9, 0.1, 0.2, 0.5, 0.1, 0.9])
    assert worklist(window, p, capacity=1).tolist() == [False, True, False, False, True, False]
    assert confusion_at_capacity(window, p, capacity=1) == {"tp": 1, "fp": 1, "fn": 2, "tn": 2}
    metrics = evaluate(window, p, capacity=1)
    assert metrics["precision_at_capacity"] == 0.5
    assert metrics["recall_at_capacity"] == pytest.approx(1 / 3)
    assert metrics["cost_captured_at_capacity"] == pytest.approx(100 / 160)


def test_what_a_work_list_saves_by_hand() -> None:
    """One entity is listed at two times before the same outcome: it is acted on, and saved, once."""
    first, second = np.datetime64("2021-01-04T20:00", "us"), np.datetime64("2021-01-05T15:00", "us")
    window = Window(
        entity_ids=np.array(["a", "b", "c", "a", "b", "c"], dtype=object),
        decision_times=np.array([first] * 3 + [second] * 3),
        dates=np.array(["2021-01-04"] * 3 + ["2021-01-05"] * 3, dtype="datetime64[D]"),
        slots=np.array(["evening"] * 3 + ["afternoon"] * 3, dtype=object),
        labels=np.array([1, 0, 1, 1, 0, 1], dtype=np.int8),
        costs=np.array([100.0, 60.0, 40.0] * 2),
        outcome_dates=np.full(6, np.datetime64("2021-01-06", "D")),
        values=np.array([1000.0, 600.0, 400.0] * 2),
    )
    p = np.array([0.9, 0.5, 0.1, 0.9, 0.1, 0.8])  # first list: a, b; second: a, c
    metrics = evaluate(window, p, capacity=2, action=ActionSpec(cost=10, effectiveness=0.5, until=time(16)))
    assert metrics["saved_per_day"] == pytest.approx((0.5 * (100 + 40) - 10 * 3) / 2)
    assert metrics["value_precision_at_capacity"] == pytest.approx(1400 / 2000)
    assert metrics["value_recall_at_capacity"] == 1.0
    assert metrics["lead_hours_at_capacity"] == pytest.approx((44 + 25) / 2)


def test_the_decomposition_adds_up_to_the_brier_score() -> None:
    window, p = _window()
    parts = brier_decomposition(window.labels, p)
    total = parts["brier_reliability"] - parts["brier_resolution"] + parts["brier_uncertainty"]
    assert total == pytest.approx(brier_score_loss(window.labels, p))
    assert parts["brier_uncertainty"] == pytest.approx(window.labels.mean() * (1 - window.labels.mean()))
    flat = brier_decomposition(window.labels, np.full(len(window), 0.5))
    assert flat["brier_resolution"] == pytest.approx(0, abs=1e-3), "a constant tells nothing apart"
    assert flat["brier_reliability"] == pytest.approx((window.labels.mean() - 0.5) ** 2, abs=1e-3)


@pytest.mark.parametrize("label", [0, 1])
def test_undefined_is_nan_never_zero(label: int) -> None:
    """Guards the single-class day: a metric of 0.0 would read as a bad model, or as a pass."""
    window, p = _window(200)
    window.labels[:] = label
    metrics = evaluate(window, p, capacity=5)
    assert math.isnan(metrics["roc_auc"])
    assert math.isnan(metrics["brier_skill"])
    assert math.isnan(metrics["pr_auc"]) is (label == 0)
    assert math.isnan(metrics["recall_at_capacity"]) is (label == 0)


def test_no_rows() -> None:
    window, p = _window(10)
    none = np.zeros(10, dtype=bool)
    metrics = evaluate(window.take(none), p[none], capacity=5)
    assert metrics.pop("n") == 0
    assert metrics.pop("positives") == 0
    assert all(math.isnan(value) for value in metrics.values())


def test_months_do_not_forget_the_year() -> None:
    window, p = _window()
    months = by_group(window, p, capacity=10, by="month")
    assert list(months.index) == ["2020-12", "2021-01"]
    assert months["n"].sum() == len(window)
    assert list(by_group(window, p, capacity=10, by="slot").index) == ["a", "b"]


@pytest.mark.parametrize("bad", [np.nan, 1.5, -0.1])
def test_refuses_what_is_no_probability(bad: float) -> None:
    window, p = _window(50)
    p[3] = bad
    with pytest.raises(ValueError, match="between 0 and 1"):
        evaluate(window, p, capacity=5)


def test_reliability_of_the_truth_is_good() -> None:
    rng = np.random.default_rng(5)
    truth = rng.beta(1, 9, 20_000)
    outcome = rng.random(20_000) < truth
    table = reliability(outcome, truth)
    half = reliability(outcome, np.full(20_000, 0.5))
    assert table["n"].sum() == 20_000
    assert ((table["low"] <= table["observed_rate"]) & (table["observed_rate"] <= table["high"])).all()
    assert (table["mean_probability"] - table["observed_rate"]).abs().mean() < 0.01
    assert (half["mean_probability"] - half["observed_rate"]).mean() == pytest.approx(0.4, abs=0.01)


def test_share_of_best_refuses_other_rows() -> None:
    window, p = _window()
    best = evaluate(window, p, capacity=10)
    assert share_of_best(best, best) == 1.0
    half = np.arange(len(window)) < 1500
    with pytest.raises(ValueError, match="same rows"):
        share_of_best(evaluate(window.take(half), p[half], capacity=10), best)


def test_window_hash_knows_rows_and_labels_but_not_their_order() -> None:
    window, _ = _window()
    assert window.take(np.arange(len(window))[::-1]).hash == window.hash
    assert window.take(np.arange(len(window) - 1)).hash != window.hash
    other, _ = _window()
    other.labels[0] = 1 - other.labels[0]
    assert other.hash != window.hash


def _one_list(labels: ArrayLike, costs: ArrayLike) -> Window:
    n = len(np.asarray(labels))
    return Window(
        entity_ids=np.array([f"E{i:05d}" for i in range(n)], dtype=object),
        decision_times=np.full(n, np.datetime64("2021-01-04T07:00", "us")),
        dates=np.full(n, np.datetime64("2021-01-04", "D")),
        slots=np.full(n, "a", dtype=object),
        labels=np.asarray(labels, dtype=np.int8),
        costs=np.asarray(costs, dtype=np.float64),
        outcome_dates=np.full(n, np.datetime64("2021-01-05", "D")),
        values=np.full(n, np.nan),
    )


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e6), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 10),
    st.floats(0, 1e5),
    st.floats(0, 1),
)
def test_a_list_holds_what_is_worth_acting_on_and_no_more(
    rows: list[tuple[float, float, bool]], capacity: int, cost: float, effectiveness: float
) -> None:
    """Guards: a list was filled up to capacity with rows that cost more to act on than they save."""
    p, costs, labels = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    window, action = _one_list(labels, costs), ActionSpec(cost=cost, effectiveness=effectiveness)
    chosen = worklist(window, p, capacity=capacity, action=action)
    filled = worklist(window, p, capacity=capacity)
    worth = effectiveness * (p * costs) >= cost
    assert (chosen == (filled & worth)).all()
    # What is above the line comes first: capacity is never spent on what is below it.
    assert chosen.sum() == min(capacity, worth.sum())
    free = ActionSpec(cost=0, effectiveness=effectiveness)
    assert (worklist(window, p, capacity=capacity, action=free) == filled).all()


def test_an_empty_list_saves_nothing_and_costs_nothing() -> None:
    window = _one_list([1, 0], [10.0, 10.0])
    metrics = evaluate(window, [0.9, 0.1], capacity=2, action=ActionSpec(cost=50, effectiveness=0.5))
    assert metrics["saved_per_day"] == 0
    assert metrics["recall_at_capacity"] == 0
    assert math.isnan(metrics["precision_at_capacity"])
