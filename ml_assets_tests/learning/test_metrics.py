import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from ml_assets.learning.metrics import (
    by_group,
    calibration_error,
    confusion_at_capacity,
    evaluate,
    reliability,
    share_of_best_lift,
    worklist,
)
from ml_assets.learning.window import Window


def _window(n: int = 3000, seed: int = 0, first: str = "2020-12-28") -> tuple[Window, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 9, n)
    dates = np.datetime64(first, "D") + rng.integers(0, 10, n)
    return (
        Window(
            entity_ids=np.array([f"E{i:05d}" for i in range(n)], dtype=object),
            decision_times=dates.astype("datetime64[us]"),
            dates=dates,
            slots=rng.choice(np.array(["a", "b"], dtype=object), n),
            labels=(rng.random(n) < p).astype(np.int8),
            costs=rng.lognormal(8, 2, n),
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
    )
    p = np.array([0.9, 0.1, 0.2, 0.5, 0.1, 0.9])
    assert worklist(window, p, capacity=1).tolist() == [False, True, False, False, True, False]
    assert confusion_at_capacity(window, p, capacity=1) == {"tp": 1, "fp": 1, "fn": 2, "tn": 2}
    metrics = evaluate(window, p, capacity=1)
    assert metrics["precision_at_capacity"] == 0.5
    assert metrics["recall_at_capacity"] == pytest.approx(1 / 3)
    assert metrics["cost_captured_at_capacity"] == pytest.approx(100 / 160)


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
    assert table["n"].sum() == 20_000
    assert ((table["low"] <= table["observed_rate"]) & (table["observed_rate"] <= table["high"])).all()
    assert calibration_error(outcome, truth) < 0.01
    assert calibration_error(outcome, np.full(20_000, 0.5)) == pytest.approx(0.4, abs=0.01)


def test_share_of_best_lift_refuses_other_rows() -> None:
    window, p = _window()
    best = evaluate(window, p, capacity=10)
    assert share_of_best_lift(best, best) == 1.0
    half = np.arange(len(window)) < 1500
    with pytest.raises(ValueError, match="same rows"):
        share_of_best_lift(evaluate(window.take(half), p[half], capacity=10), best)


def test_window_hash_knows_rows_and_labels_but_not_their_order() -> None:
    window, _ = _window()
    assert window.take(np.arange(len(window))[::-1]).hash == window.hash
    assert window.take(np.arange(len(window) - 1)).hash != window.hash
    other, _ = _window()
    other.labels[0] = 1 - other.labels[0]
    assert other.hash != window.hash
