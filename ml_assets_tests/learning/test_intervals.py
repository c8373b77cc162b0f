"""Intervals of every metric: the value is that of `evaluate`, and the interval is about it."""

import numpy as np
import pytest

from ml_assets.learning.intervals import metric_intervals
from ml_assets.learning.metrics import evaluate, worklist
from ml_assets.learning.statistics import decision_statistics, ranking_statistics
from ml_assets.learning.training_set import part_of
from ml_assets.learning.window import Window
from ml_assets.spec import ActionSpec


@pytest.fixture(scope="module")
def window(training_set):
    return Window.of(part_of(training_set, "train", "test"))


@pytest.fixture(scope="module")
def p(window):
    return np.clip(0.1 + 0.5 * window.labels + np.random.default_rng(2).normal(0, 0.2, len(window)), 0.01, 0.99).round(
        2
    )


def test_the_value_is_that_of_the_metric_and_lies_within(window, p):
    found = metric_intervals(window, p, capacity=20)
    measured = evaluate(window, p, capacity=20)
    for name, row in found.iterrows():
        assert row["value"] == measured[name]
        assert row["low"] < row["value"] < row["high"], name
    assert {"pr_auc", "roc_auc", "brier", "calibration_error", "recall_at_capacity"} <= set(found.index)


def test_days_that_are_drawn_once_each_give_the_metric_itself(window, p):
    """Guards each weighted formula against the plain one; ties are frequent here."""
    action = ActionSpec(cost=1.0, effectiveness=0.5)
    chosen = worklist(window, p, capacity=20, action=action)
    measured = evaluate(window, p, capacity=20, action=action)
    once = np.ones((1, int(window.days.max()) + 1))
    for name, statistic in {**ranking_statistics(window, p), **decision_statistics(window, chosen, action)}.items():
        assert statistic.of_days(once)[0] == pytest.approx(measured[name], nan_ok=True), name


def test_one_day_has_no_interval(window, p):
    day = window.days == 0
    found = metric_intervals(window.take(day), p[day], capacity=20)
    assert found["low"].isna().all()
    assert found.loc["roc_auc", "value"] > 0.5
