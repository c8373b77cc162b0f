"""Every metric of one model with its interval, by the same resampling of days that the gate uses for gains."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ml_assets.learning.bootstrap import calibration_interval, draw_days
from ml_assets.learning.metrics import checked, worklist
from ml_assets.learning.statistics import decision_statistics, ranking_statistics
from ml_assets.learning.window import Window
from ml_assets.spec import FREE_ACTION, ActionSpec

# The metrics that get an interval here; that of the calibration error is made another way.
_RESAMPLED = (
    "base_rate",
    "pr_auc",
    "lift",
    "per_day_pr_auc",
    "roc_auc",
    "brier",
    "brier_skill",
    "log_loss",
    "precision_at_capacity",
    "recall_at_capacity",
    "cost_captured_at_capacity",
    "saved_per_day",
)


def metric_intervals(
    window: Window,
    probabilities: ArrayLike,
    *,
    capacity: int,
    action: ActionSpec = FREE_ACTION,
    confidence: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
    chosen: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Return metrics of `evaluate` with the ends of their percentile intervals, days resampled.

    Columns `value`, `low`, `high`, one row per metric; the ends are NaN with fewer than two days. `chosen` (n,) are the
    decisions that were acted on, where the window is a part of the decisions that the work-lists were cut from.

    Raises:
        ValueError: see `evaluate`.
    """
    p = checked(window, probabilities)
    if chosen is None:
        chosen = worklist(window, p, capacity=capacity, action=action)
    statistics = ranking_statistics(window, p) | decision_statistics(window, chosen, action)
    weights = draw_days(window, resamples, seed)
    rows = {}
    for name in _RESAMPLED:
        ends = [math.nan, math.nan]
        if weights is not None:
            drawn = statistics[name].of_days(weights)
            if np.isfinite(drawn).any():
                ends = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
        rows[name] = {"value": statistics[name].value(), "low": ends[0], "high": ends[1]}
    calibration = calibration_interval(window, p, confidence=confidence, seed=seed)
    rows["calibration_error"] = {"value": calibration.value, "low": calibration.low, "high": calibration.high}
    return pd.DataFrame.from_dict(rows, orient="index", dtype=np.float64).rename_axis("metric")
