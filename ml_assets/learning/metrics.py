"""How good probabilities are: ranking, calibration, and what a team of limited capacity gains.

A metric that is not defined on the rows (no positive, no negative, no row) is NaN, never 0.
"""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ml_assets.errors import InputError
from ml_assets.learning.bootstrap import calibration_interval
from ml_assets.learning.calibration import brier
from ml_assets.learning.statistics import decision_statistics, ranking_statistics
from ml_assets.learning.window import Window
from ml_assets.predictions.work_list import listed
from ml_assets.spec import FREE_ACTION, ActionSpec

Floats = NDArray[np.float64]


def evaluate(
    window: Window, probabilities: ArrayLike, *, capacity: int, action: ActionSpec = FREE_ACTION
) -> dict[str, float]:
    """Return the metrics of probabilities (n,) on a window.

    - `n`, `positives`, `base_rate`
    - `pr_auc`: average precision; `lift`: pr_auc minus base_rate; `roc_auc`
    - `per_day_pr_auc`: mean pr_auc of the days with a positive
    - `brier`; `brier_skill`: 1 minus brier over that of the base rate; `log_loss` in nats
    - `brier_reliability`, `brier_resolution`, `brier_uncertainty`: see `brier_decomposition`
    - `calibration_error`: expected calibration error over ten groups of equal size; `calibration_error_low` and
      `calibration_error_high` are its 95 % interval, days resampled
    - what the work-lists do, the `capacity` decisions of the highest expected cost (probability times cost) of each
      date and slot that are worth acting on (see `worklist`): see `decision_statistics`

    Raises:
        ValueError: the lengths differ, or a probability is not in [0, 1].
    """
    p, y = checked(window, probabilities), window.labels.astype(np.float64)
    positives = float(y.sum())
    chosen = worklist(window, p, capacity=capacity, action=action)
    ranking = {name: statistic.value() for name, statistic in ranking_statistics(window, p).items()}
    decisions = {name: statistic.value() for name, statistic in decision_statistics(window, chosen, action).items()}
    calibration = calibration_interval(window, p)
    return {
        "n": float(len(y)),
        "positives": positives,
        **ranking,
        **brier_decomposition(y, p),
        "calibration_error": calibration.value,
        "calibration_error_low": calibration.low,
        "calibration_error_high": calibration.high,
        **decisions,
    }


def by_group(
    window: Window,
    probabilities: ArrayLike,
    *,
    capacity: int,
    by: Literal["month", "slot", "date"],
    action: ActionSpec = FREE_ACTION,
) -> pd.DataFrame:
    """Return `evaluate` of each month (such as 2021-01), slot or date: one row per group, in order, indexed by it."""
    p = checked(window, probabilities)
    keys = window.slots if by == "slot" else window.dates.astype(f"datetime64[{by[0].upper()}]")
    groups = {str(key): keys == key for key in np.unique(keys)}
    rows = [evaluate(window.take(mask), p[mask], capacity=capacity, action=action) for mask in groups.values()]
    return pd.DataFrame(rows, index=pd.Index(groups, name=by, dtype=object))


def brier_decomposition(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10) -> dict[str, float]:
    """Return the parts of the Brier score: reliability minus resolution plus uncertainty (Murphy 1973).

    Over groups of equal size. Resolution is the generalised one (Stephenson, Coelho and Jolliffe 2008): it has the
    spread within the groups, so that the three add up to the Brier score exactly.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    names = ("brier_reliability", "brier_resolution", "brier_uncertainty")
    if not len(p):
        return dict.fromkeys(names, math.nan)
    table = reliability(y, p, bins=bins)
    weight = table["n"].to_numpy() / len(p)
    base_rate = float(y.mean())
    unreliable = float(np.sum(weight * (table["mean_probability"] - table["observed_rate"]) ** 2))
    uncertainty = base_rate * (1 - base_rate)
    return dict(zip(names, (unreliable, unreliable + uncertainty - brier(p, y), uncertainty), strict=True))


def reliability(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10) -> pd.DataFrame:
    """Return mean probability and observed rate of groups of equal size, in order of probability.

    Columns: `n`, `mean_probability`, `observed_rate`, and the 95 % Wilson interval of the rate, `low` and
    `high`. Equal probabilities may fall into two groups.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    groups = np.array_split(np.argsort(p, kind="stable"), min(bins, len(p))) if len(p) else []
    n = np.array([len(g) for g in groups], dtype=np.float64)
    rate = np.array([y[g].mean() for g in groups])
    z = 1.959963984540054
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return pd.DataFrame(
        {
            "n": n.astype(np.int64),
            "mean_probability": np.array([p[g].mean() for g in groups]),
            "observed_rate": rate,
            "low": centre - half,
            "high": centre + half,
        }
    )


def worklist(
    window: Window, probabilities: ArrayLike, *, capacity: int, action: ActionSpec = FREE_ACTION
) -> NDArray[np.bool_]:
    """Return which decisions the team acts on, by `predictions.work_list.listed`, with one list per date and slot.

    If a slot decides everything open of one outcome date, the list is the work-list after the slot's scoring. A slot
    that decides some of several outcome dates has one list here, since capacity is per slot.
    """
    expected = np.asarray(probabilities, dtype=np.float64) * window.costs
    return listed(window.groups, window.entity_ids, expected, capacity=capacity, action=action)


def confusion_at_capacity(
    window: Window, probabilities: ArrayLike, *, capacity: int, action: ActionSpec = FREE_ACTION
) -> dict[str, int]:
    """Return tp, fp, fn, tn where the decisions on the work-lists are the predicted positives."""
    chosen = worklist(window, probabilities, capacity=capacity, action=action)
    fails = window.labels.astype(np.bool_)
    return {
        "tp": int((chosen & fails).sum()),
        "fp": int((chosen & ~fails).sum()),
        "fn": int((~chosen & fails).sum()),
        "tn": int((~chosen & ~fails).sum()),
    }


def share_of_best(model: Mapping[str, float], best: Mapping[str, float], metric: str = "lift") -> float:
    """Return the model's metric as a share of the best reachable one; NaN if that is not positive.

    `best` is `evaluate` of the true probabilities on the same rows.

    Raises:
        ValueError: the two were not evaluated on as many rows and positives.
    """
    if (model["n"], model["positives"]) != (best["n"], best["positives"]):
        raise InputError(
            f"the model was evaluated on {model['n']:.0f} rows and {model['positives']:.0f} positives, the "
            f"truth on {best['n']:.0f} and {best['positives']:.0f}; evaluate both on the same rows"
        )
    return _ratio(model[metric], best[metric])


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def checked(window: Window, probabilities: ArrayLike) -> Floats:
    """Return probabilities (n,) as floats.

    Raises:
        ValueError: there are not as many as rows of the window, or one is not in [0, 1].
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != (len(window),):
        raise InputError(f"probabilities have the shape {p.shape}; the window has {len(window)} rows")
    if not ((p >= 0.0) & (p <= 1.0)).all():  # also false for NaN
        raise InputError("probabilities must lie between 0 and 1 and none may be missing")
    return p
