"""Intervals by resampling whole days. Decisions of one day share a market, so resampling rows would look too certain.

Days are drawn with replacement, each model keeps its rows, and both models of a pair get the same days. A resample of
n rows is never built: a day that is drawn twice counts twice.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.learning.statistics import gate_statistic
from ml_assets.learning.window import Window

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A value with the ends of its interval; NaN if there are fewer than two days or the metric is undefined."""

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
    """Return how much better `first` is than `second` in a metric, with the percentile interval (Efron 1979).

    With `relative`, the difference is a share of the metric of `second`; undefined where that is not above 0.

    Raises:
        ValueError: the metric is not one of `METRICS`.
    """
    ours, other = (gate_statistic(window, np.asarray(p, dtype=np.float64), metric) for p in (first, second))

    def gain(mine: ArrayLike, theirs: ArrayLike) -> Floats:
        mine, theirs = np.asarray(mine), np.asarray(theirs)
        return np.asarray((mine - theirs) / np.where(theirs > 0, theirs, np.nan) if relative else mine - theirs)

    value = float(gain(ours.value(), other.value()))
    weights = draw_days(window, resamples, seed)
    if weights is None:
        return Interval(value, math.nan, math.nan)
    gains = gain(ours.of_days(weights), other.of_days(weights))
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


def metric_value(window: Window, probabilities: Floats, metric: str) -> float:
    """Return the metric of a model on a window, each day once; NaN where it is not defined.

    Raises:
        ValueError: the metric is not one of `METRICS`.
    """
    return gate_statistic(window, probabilities, metric).value()


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
