"""Intervals over days: right on average, aware of days that differ, undefined where there is nothing to resample."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from ml_assets.learning.bootstrap import calibration_interval, paired_interval
from ml_assets.learning.metrics import evaluate, reliability
from ml_assets.learning.statistics import METRICS, gate_statistic, ranking_statistics
from ml_assets.learning.window import Window


def draw(days: int = 20, per_day: int = 400, seed: int = 0, day_effect: float = 0.0) -> tuple[Window, np.ndarray]:
    """Return a window and the probabilities from which its labels were drawn, which differ by day."""
    rng = np.random.default_rng(seed)
    n = days * per_day
    date = np.datetime64("2026-01-05", "D") + np.repeat(np.arange(days), per_day).astype("timedelta64[D]")
    log_odds = rng.normal(-2, 1, n) + np.repeat(rng.normal(0, day_effect, days), per_day)
    truth = 1 / (1 + np.exp(-log_odds))
    window = Window(
        entity_ids=np.array([f"E{i}" for i in range(n)], dtype=object),
        decision_times=date.astype("datetime64[us]"),
        dates=date,
        slots=np.full(n, "x", dtype=object),
        labels=(rng.random(n) < truth).astype(np.int8),
        costs=np.ones(n),
        outcome_dates=date + np.timedelta64(1, "D"),
        values=np.ones(n),
    )
    return window, truth


@pytest.mark.parametrize("metric", METRICS)
def test_a_weighted_day_counts_as_its_rows_repeated(metric: str) -> None:
    window, truth = draw(days=4, per_day=100)
    p = np.round(truth, 2)  # with ties
    weights = np.array([2.0, 0.0, 1.0, 3.0])
    rows = np.concatenate([np.flatnonzero(window.days == day) for day in (0, 0, 2, 3, 3, 3)])
    (value,) = gate_statistic(window, p, metric).of_days(weights[None, :])
    y = window.labels[rows]
    expected = {
        "pr_auc": lambda: average_precision_score(y, p[rows]),
        "per_day_pr_auc": lambda: np.average(
            [average_precision_score(window.labels[window.days == d], p[window.days == d]) for d in (0, 2, 3)],
            weights=[2, 1, 3],
        ),
        "brier_skill": lambda: 1 - brier_score_loss(y, p[rows]) / (y.mean() * (1 - y.mean())),
    }[metric]()
    assert value == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_the_value_is_the_difference_of_the_metrics(metric: str) -> None:
    window, truth = draw()
    worse = np.clip(truth + np.random.default_rng(1).normal(0, 0.1, len(truth)), 0, 1)
    gain = paired_interval(window, truth, worse, metric=metric)
    both = [evaluate(window, p, capacity=10)[metric] for p in (truth, worse)]
    assert gain.value == pytest.approx(both[0] - both[1])
    assert 0 < gain.low < gain.value < gain.high
    share = paired_interval(window, truth, worse, metric=metric, relative=True)
    assert share.value == pytest.approx(both[0] / both[1] - 1)
    assert 0 < share.low < share.value < share.high


def test_a_share_of_nothing_is_undefined() -> None:
    """Guards a relative gain: over a model worth nothing it is not a large number, and not a small one."""
    window, truth = draw()
    backwards = 1 - truth
    assert gate_statistic(window, backwards, "brier_skill").value() < 0
    share = paired_interval(window, truth, backwards, metric="brier_skill", relative=True)
    assert all(math.isnan(value) for value in share)


def test_the_same_model_gains_exactly_nothing() -> None:
    window, truth = draw()
    assert paired_interval(window, truth, truth, metric="pr_auc") == (0.0, 0.0, 0.0)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    """Two equally noisy models: the true difference is 0, and 90 % intervals should miss it one time in ten."""
    missed = 0
    for seed in range(60):
        window, truth = draw(days=15, per_day=120, seed=seed, day_effect=0.5)
        rng = np.random.default_rng(seed)
        noisy = [np.clip(truth + rng.normal(0, 0.05, len(truth)), 0, 1) for _ in range(2)]
        gain = paired_interval(window, *noisy, metric="brier_skill", confidence=0.9, resamples=200, seed=seed)
        missed += not gain.low <= 0 <= gain.high
    assert 1 <= missed <= 15


def test_days_that_differ_widen_the_interval_of_the_calibration_error() -> None:
    """Guards: rows drawn alone would call a model well calibrated after a fortnight of good days."""
    widths = []
    for day_effect in (0.0, 0.8):
        window, _ = draw(seed=3, day_effect=day_effect)
        flat = np.full(len(window), window.labels.mean())
        interval = calibration_interval(window, flat)
        groups = reliability(window.labels, flat)
        gaps = np.abs(groups["mean_probability"] - groups["observed_rate"])
        assert interval.value == pytest.approx(np.average(gaps, weights=groups["n"]))
        widths.append(interval.high - interval.low)
    assert widths[1] > 1.3 * widths[0]


def test_the_calibration_interval_takes_back_what_noise_adds() -> None:
    window, truth = draw(days=30, per_day=300, seed=5)
    interval = calibration_interval(window, truth)
    assert interval.value > 0, "even the truth has an error on a sample"
    assert interval.low == 0.0
    biased = calibration_interval(window, np.clip(truth * 1.5, 0, 1))
    assert biased.low > interval.high


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_to_resample_is_unknown(metric: str) -> None:
    window, truth = draw(days=2, per_day=50)
    one_day = window.days == 0
    gain = paired_interval(window.take(one_day), truth[one_day], truth[one_day], metric=metric)
    assert math.isnan(gain.low)
    assert math.isnan(gain.high)
    quiet, p = draw(days=3, per_day=20)
    quiet.labels[:] = 0
    assert math.isnan(paired_interval(quiet, p, p, metric=metric).low)
    nothing = window.take(np.zeros(len(window), dtype=bool))
    assert math.isnan(paired_interval(nothing, [], [], metric=metric).value)
    assert math.isnan(calibration_interval(nothing, []).value)


def test_an_unknown_metric_is_named() -> None:
    window, truth = draw(days=2, per_day=10)
    with pytest.raises(ValueError, match="there is no bootstrap of 'accuracy'; there is one of pr_auc"):
        paired_interval(window, truth, truth, metric="accuracy")


def test_the_area_under_the_roc_curve_of_weighted_days_is_that_of_their_rows_repeated() -> None:
    """Guards ties between a fail and others, of which those below and those beside it are counted apart."""
    window, truth = draw(days=4, per_day=100)
    p = np.round(truth, 2)
    weights = np.array([[2.0, 0.0, 1.0, 3.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    of_days = ranking_statistics(window, p)["roc_auc"].of_days(weights)
    rows = np.concatenate([np.flatnonzero(window.days == day) for day in (0, 0, 2, 3, 3, 3)])
    assert of_days[:2] == pytest.approx([roc_auc_score(window.labels[at], p[at]) for at in (rows, slice(None))])
    assert math.isnan(of_days[2])
