"""Every metric of one model with its interval, by the same resampling of days that the gate uses for gains."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ml_assets.learning.bootstrap import METRICS, Statistic, calibration_interval, draw_days
from ml_assets.learning.metrics import evaluate, first_listings, worklist
from ml_assets.learning.window import Window
from ml_assets.spec import FREE_ACTION, ActionSpec

Floats = NDArray[np.float64]
_EDGE = 1e-15


def metric_intervals(
    window: Window,
    probabilities: ArrayLike,
    *,
    capacity: int,
    action: ActionSpec = FREE_ACTION,
    confidence: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Return metrics of `evaluate` with the ends of their percentile intervals, days resampled.

    Columns `value`, `low`, `high`, a row a metric; the ends are NaN with fewer than two days.

    Raises:
        ValueError: see `evaluate`.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    measured = evaluate(window, p, capacity=capacity, action=action)
    chosen = worklist(window, p, capacity=capacity)
    weights = draw_days(window, resamples, seed)
    rows = {}
    for name, statistic in _statistics(window, p, chosen, action).items():
        ends = [math.nan, math.nan]
        if weights is not None:
            drawn = statistic(weights)
            if np.isfinite(drawn).any():
                ends = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
        rows[name] = {"value": measured[name], "low": ends[0], "high": ends[1]}
    calibration = calibration_interval(window, p, confidence=confidence, seed=seed)
    rows["calibration_error"] = {"value": calibration.value, "low": calibration.low, "high": calibration.high}
    return pd.DataFrame.from_dict(rows, orient="index", dtype=np.float64).rename_axis("metric")


def _statistics(window: Window, p: Floats, chosen: NDArray[np.bool_], action: ActionSpec) -> dict[str, Statistic]:
    """Return the function of each metric that gives it for weights of days, (resamples, days) to (resamples,)."""
    y = window.labels.astype(np.float64)
    clipped = np.clip(p, _EDGE, 1 - _EDGE)
    rows, fails, cost = np.ones(len(y)), y, window.costs * y
    loss = -(y * np.log(clipped) + (1 - y) * np.log1p(-clipped))
    base_rate = _ratio_of_sums(window, fails, rows)
    pr_auc = METRICS["pr_auc"](window, p)
    return {
        "base_rate": base_rate,
        "pr_auc": pr_auc,
        "lift": lambda weights: pr_auc(weights) - base_rate(weights),
        "per_day_pr_auc": METRICS["per_day_pr_auc"](window, p),
        "roc_auc": _roc_auc(window, p),
        "brier": _ratio_of_sums(window, (p - y) ** 2, rows),
        "brier_skill": METRICS["brier_skill"](window, p),
        "log_loss": _ratio_of_sums(window, loss, rows),
        "precision_at_capacity": _ratio_of_sums(window, fails * chosen, rows * chosen),
        "recall_at_capacity": _ratio_of_sums(window, fails * chosen, fails),
        "cost_captured_at_capacity": _ratio_of_sums(window, cost * chosen, cost),
        "saved_per_day": _saved_per_day(window, chosen, action),
    }


def _ratio_of_sums(window: Window, part: Floats, whole: Floats) -> Statistic:
    days = int(window.days.max(initial=-1)) + 1
    parts, wholes = (np.bincount(window.days, weights=w, minlength=days) for w in (part, whole))

    def statistic(weights: Floats) -> Floats:
        sums = weights @ wholes
        return np.asarray((weights @ parts) / np.where(sums > 0, sums, np.nan))

    return statistic


def _saved_per_day(window: Window, chosen: NDArray[np.bool_], action: ActionSpec) -> Statistic:
    """What is saved on each day; an entity that is on several lists counts on the day of the first."""
    days = int(window.days.max(initial=-1)) + 1
    acted = first_listings(window, chosen)
    saved = action.effectiveness * window.costs[acted] * window.labels[acted] - action.cost
    by_day = np.bincount(window.days[acted], weights=saved, minlength=days)

    def statistic(weights: Floats) -> Floats:
        return np.asarray((weights @ by_day) / weights.sum(axis=1))

    return statistic


def _roc_auc(window: Window, p: Floats) -> Statistic:
    """Mann-Whitney with weighted rows, ties counting half; the order of the rows never changes."""
    order = np.argsort(p, kind="stable")
    y, day = window.labels[order].astype(np.float64), window.days[order]
    _, tied = np.unique(p[order], return_inverse=True)
    groups = int(tied.max(initial=-1)) + 1

    def weighted(row: Floats) -> float:
        positive = np.bincount(tied, weights=row[day] * y, minlength=groups)
        negative = np.bincount(tied, weights=row[day] * (1 - y), minlength=groups)
        below = np.cumsum(negative) - negative
        pairs = positive.sum() * negative.sum()
        return float((positive * (below + negative / 2)).sum() / pairs) if pairs else math.nan

    def statistic(weights: Floats) -> Floats:
        return np.array([weighted(row) for row in weights])

    return statistic
