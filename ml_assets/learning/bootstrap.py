"""Intervals by resampling whole days: decisions of one day share a market, so rows alone would look too certain.

Days are drawn with replacement, each model keeps its rows, and both models of a pair get the same days. A resample of
n rows is never built: a day that is drawn twice counts twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.learning.window import Window

Floats = NDArray[np.float64]
# A statistic for each row of weights: (resamples, days) to (resamples,).
Statistic = Callable[[Floats], Floats]


class Interval(NamedTuple):
    """A value with the ends of its interval; NaN where there are fewer than two days or the metric is undefined."""

    value: float
    low: float
    high: float


def paired_interval(
    window: Window,
    first: ArrayLike,
    second: ArrayLike,
    *,
    metric: str,
    confidence: float = 0.95,
    resamples: int = 400,
    seed: int = 0,
    relative: bool = False,
) -> Interval:
    """Return by how much `first` is better than `second` in a metric, with the percentile interval (Efron 1979).

    With `relative`, the difference is a share of the metric of `second`; undefined where that is not above 0.

    Raises:
        ValueError: the metric is not one of `METRICS`.
    """
    statistics = [metric_statistic(window, np.asarray(p, dtype=np.float64), metric) for p in (first, second)]

    def gain(weights: Floats) -> Floats:
        ours, other = (statistic(weights) for statistic in statistics)
        if not relative:
            return ours - other
        return np.asarray((ours - other) / np.where(other > 0, other, np.nan))

    value = float(gain(np.ones((1, _days(window))))[0]) if len(window) else math.nan
    weights = draw_days(window, resamples, seed)
    if weights is None:
        return Interval(value, math.nan, math.nan)
    gains = gain(weights)
    low, high = np.quantile(gains, _tails(confidence))  # NaN if any resample is undefined
    return Interval(value, float(low), float(high))


def calibration_interval(
    window: Window,
    probabilities: ArrayLike,
    *,
    bins: int = 10,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the expected calibration error with its basic bootstrap interval (Davison and Hinkley 1997).

    Noise never makes the error smaller, so that resamples lie above the estimate by about as much as it lies above
    the truth; the basic interval takes that back. The groups are those of the whole window.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not len(p):
        return Interval(math.nan, math.nan, math.nan)
    bins = min(bins, len(p))
    group = np.empty(len(p), dtype=np.int64)
    for number, rows in enumerate(np.array_split(np.argsort(p, kind="stable"), bins)):
        group[rows] = number
    cell = window.days * bins + group
    shape = (_days(window), bins)
    gaps = np.bincount(cell, weights=p - window.labels, minlength=shape[0] * bins).reshape(shape)
    rows_of_day = np.bincount(window.days, minlength=shape[0]).astype(np.float64)

    def error(weights: Floats) -> Floats:
        return np.asarray(np.abs(weights @ gaps).sum(axis=1) / (weights @ rows_of_day))

    value = float(error(np.ones((1, shape[0])))[0])
    weights = draw_days(window, resamples, seed)
    if weights is None:
        return Interval(value, math.nan, math.nan)
    below, above = np.quantile(error(weights), _tails(confidence))
    return Interval(value, max(0.0, 2 * value - float(above)), max(0.0, 2 * value - float(below)))


def metric_statistic(window: Window, probabilities: Floats, metric: str) -> Statistic:
    """Return the function that gives the metric of a model for weights of days.

    Raises:
        ValueError: the metric is not one of `METRICS`.
    """
    if metric not in METRICS:
        raise ValueError(f"there is no bootstrap of {metric!r}; there is one of {', '.join(METRICS)}")
    return METRICS[metric](window, probabilities)


def metric_value(window: Window, probabilities: Floats, metric: str) -> float:
    """Return the metric of a model on a window, each day once; NaN where it is not defined.

    Raises:
        ValueError: the metric is not one of `METRICS`.
    """
    once = np.ones((1, int(window.days.max()) + 1 if len(window) else 0))
    return float(metric_statistic(window, probabilities, metric)(once)[0])


def _pr_auc(window: Window, p: Floats) -> Statistic:
    """Average precision with weighted rows; the order of the rows never changes, so they are sorted once."""
    order = np.argsort(-p, kind="stable")
    y, day = window.labels[order].astype(np.float64), window.days[order]
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1) if len(p) else np.empty(0, dtype=np.int64)

    def statistic(weights: Floats) -> Floats:
        return np.array([weighted(row) for row in weights])

    def weighted(row: Floats) -> float:
        each = row[day]
        seen, found = np.cumsum(each)[last], np.cumsum(each * y)[last]
        if not len(found) or not found[-1]:
            return math.nan
        precision = found / np.maximum(seen, 1.0)
        return float(np.sum(np.diff(found, prepend=0.0) * precision) / found[-1])

    return statistic


def _per_day_pr_auc(window: Window, p: Floats) -> Statistic:
    from ml_assets.learning.metrics import average_precision

    order = np.argsort(window.days, kind="stable")
    starts = np.flatnonzero(np.diff(window.days[order])) + 1
    days = [average_precision(window.labels[rows].astype(np.float64), p[rows]) for rows in np.split(order, starts)]
    values = np.nan_to_num(np.array(days), nan=0.0)
    defined = (~np.isnan(days)).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ values) / (weights @ defined))

    return statistic


def _brier_skill(window: Window, p: Floats) -> Statistic:
    y = window.labels.astype(np.float64)
    sums = [np.bincount(window.days, weights=w, minlength=_days(window)) for w in ((p - y) ** 2, y, np.ones(len(y)))]

    def statistic(weights: Floats) -> Floats:
        squares, positives, rows = (weights @ each for each in sums)
        spread = positives * (1 - positives / rows)
        return 1 - squares / np.where(spread > 0, spread, np.nan)

    return statistic


METRICS: dict[str, Callable[[Window, Floats], Statistic]] = {
    "pr_auc": _pr_auc,
    "per_day_pr_auc": _per_day_pr_auc,
    "brier_skill": _brier_skill,
}


def _days(window: Window) -> int:
    return int(window.days.max()) + 1 if len(window) else 0


def draw_days(window: Window, resamples: int, seed: int) -> Floats | None:
    """Return how often each day is drawn: (resamples, days); None if there are fewer than two days."""
    days = _days(window)
    if days < 2:
        return None
    rng = np.random.default_rng(seed)
    return rng.multinomial(days, np.full(days, 1 / days), size=resamples).astype(np.float64)


def _tails(confidence: float) -> list[float]:
    return [(1 - confidence) / 2, (1 + confidence) / 2]
