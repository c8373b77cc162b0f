"""How good probabilities are: ranking, calibration, and what a team of limited capacity gains.

A metric that is not defined on the rows (no positive, no negative, no row) is NaN, never 0.
"""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ml_assets.learning.bootstrap import calibration_interval
from ml_assets.learning.window import Window
from ml_assets.spec import FREE_ACTION, ActionSpec

Floats = NDArray[np.float64]
_EDGE = 1e-15


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
      date and slot: `precision_at_capacity`, `recall_at_capacity`, `cost_captured_at_capacity`, and those of
      `decision_metrics`

    Raises:
        ValueError: the lengths differ, or a probability is not in [0, 1].
    """
    p, y = _checked(window, probabilities), window.labels.astype(np.float64)
    n, positives = len(y), float(y.sum())
    base_rate = positives / n if n else math.nan
    pr_auc = average_precision(y, p)
    brier = float(np.mean((p - y) ** 2)) if n else math.nan
    spread = base_rate * (1 - base_rate)
    at_capacity = confusion_at_capacity(window, p, capacity=capacity)
    chosen = worklist(window, p, capacity=capacity)
    cost = window.costs * y
    calibration = calibration_interval(window, p)
    return {
        "n": float(n),
        "positives": positives,
        "base_rate": base_rate,
        "pr_auc": pr_auc,
        "lift": pr_auc - base_rate,
        "roc_auc": roc_auc(y, p),
        "per_day_pr_auc": _per_day_pr_auc(window, p),
        "brier": brier,
        "brier_skill": 1 - brier / spread if spread > 0 else math.nan,
        **brier_decomposition(y, p),
        "log_loss": _log_loss(y, p),
        "calibration_error": calibration.value,
        "calibration_error_low": calibration.low,
        "calibration_error_high": calibration.high,
        "precision_at_capacity": _ratio(at_capacity["tp"], at_capacity["tp"] + at_capacity["fp"]),
        "recall_at_capacity": _ratio(at_capacity["tp"], positives),
        "cost_captured_at_capacity": _ratio(float(cost[chosen].sum()), float(cost.sum())),
        **decision_metrics(window, chosen, action),
    }


def by_group(
    window: Window,
    probabilities: ArrayLike,
    *,
    capacity: int,
    by: Literal["month", "slot", "date"],
    action: ActionSpec = FREE_ACTION,
) -> pd.DataFrame:
    """Return `evaluate` of each month (as 2021-01), slot or date: a row each, in order, indexed by it."""
    p = _checked(window, probabilities)
    keys = {
        "month": window.dates.astype("datetime64[M]").astype(str),
        "slot": window.slots.astype(str),
        "date": window.dates.astype("datetime64[D]").astype(str),
    }[by]
    groups = {str(key): keys == key for key in np.unique(keys)}
    rows = [evaluate(window.take(mask), p[mask], capacity=capacity, action=action) for mask in groups.values()]
    return pd.DataFrame(rows, index=pd.Index(groups, name=by, dtype=object))


def decision_metrics(window: Window, chosen: NDArray[np.bool_], action: ActionSpec) -> dict[str, float]:
    """Return what acting on the chosen decisions (a mask, (n,)) would have brought.

    - `value_precision_at_capacity`: of the value acted on, the share that failed; `value_recall_at_capacity`: of the
      value that failed, the share acted on
    - `saved_per_day`: what the avoided fails would have cost minus what acting costs, in the use case's currency, a
      decision date; against no model, which means that nobody acts, so 0. The difference of two models is what one
      saves against the other
    - `lead_hours_at_capacity`: mean hours from the first listing of a fail to `action.until` on its outcome date

    An entity that is on several lists before its outcome is acted on once, at its first listing.
    """
    acted = first_listings(window, chosen)
    every = np.unique(_subjects(window), return_index=True)[1]
    failed = acted[window.labels[acted] == 1]
    value, lost = window.values, every[window.labels[every] == 1]
    caught_value = float(value[failed].sum())
    days = len(np.unique(window.dates))
    saved = action.effectiveness * float(window.costs[failed].sum()) - action.cost * len(acted)
    until = action.until.hour + action.until.minute / 60
    lead = (window.outcome_dates[failed].astype("datetime64[m]") - window.decision_times[failed]).astype(
        "timedelta64[m]"
    ).astype(np.float64) / 60 + until
    return {
        "value_precision_at_capacity": _ratio(caught_value, float(value[acted].sum())),
        "value_recall_at_capacity": _ratio(caught_value, float(value[lost].sum())),
        "saved_per_day": saved / days if days else math.nan,
        "lead_hours_at_capacity": float(lead.mean()) if len(lead) else math.nan,
    }


def first_listings(window: Window, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rows in which an entity is chosen for the first time before its outcome."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(window.decision_times[rows], kind="stable")]
    return np.asarray(rows[np.unique(_subjects(window)[rows], return_index=True)[1]])


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
    return dict(
        zip(names, (unreliable, unreliable + uncertainty - float(np.mean((p - y) ** 2)), uncertainty), strict=True)
    )


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


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10) -> float:
    """Return the expected calibration error: the mean distance of rate and probability, weighted by rows."""
    table = reliability(labels, probabilities, bins=bins)
    if not len(table):
        return math.nan
    gap = (table["mean_probability"] - table["observed_rate"]).abs()
    return float(np.average(gap, weights=table["n"]))


def worklist(window: Window, probabilities: ArrayLike, *, capacity: int) -> NDArray[np.bool_]:
    """Return which decisions are on the work-list of their date and slot: the `capacity` of highest expected
    cost.

    Ties go to the entity that comes first by name, so that a work-list is the same whenever it is made.
    """
    expected = np.asarray(probabilities, dtype=np.float64) * window.costs
    groups = window.groups
    _, name = np.unique(window.entity_ids.astype(str), return_inverse=True)
    order = np.lexsort((name, -expected, groups))
    first = np.searchsorted(groups[order], groups[order], side="left")
    chosen = np.zeros(len(window), dtype=np.bool_)
    chosen[order] = np.arange(len(window)) - first < capacity
    return chosen


def confusion_at_capacity(window: Window, probabilities: ArrayLike, *, capacity: int) -> dict[str, int]:
    """Return tp, fp, fn, tn where the decisions on the work-lists are the predicted positives."""
    chosen, fails = worklist(window, probabilities, capacity=capacity), window.labels.astype(np.bool_)
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
        raise ValueError(
            f"the model was evaluated on {model['n']:.0f} rows and {model['positives']:.0f} positives, the "
            f"truth on {best['n']:.0f} and {best['positives']:.0f}; evaluate both on the same rows"
        )
    return _ratio(model[metric], best[metric])


def average_precision(labels: Floats, probabilities: Floats) -> float:
    """Return the area under the precision-recall curve as a sum of steps; NaN without a positive."""
    if not labels.any():
        return math.nan
    order = np.argsort(-probabilities, kind="stable")
    p, y = probabilities[order], labels[order]
    last = np.append(np.flatnonzero(np.diff(p)), len(p) - 1)  # the last row of each run of equal probabilities
    found = np.cumsum(y)[last]
    return float(np.sum(np.diff(found, prepend=0.0) / found[-1] * found / (last + 1)))


def roc_auc(labels: Floats, probabilities: Floats) -> float:
    """Return the probability that a positive ranks above a negative; NaN unless there are both."""
    from scipy.stats import rankdata

    positives = float(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return math.nan
    ranks = float(rankdata(probabilities)[labels > 0].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def _subjects(window: Window) -> NDArray[np.int64]:
    """Return a number for each row that is the same for decisions about the same outcome of the same entity."""
    _, entity = np.unique(window.entity_ids.astype(str), return_inverse=True)
    _, outcome = np.unique(window.outcome_dates, return_inverse=True)
    return np.asarray(entity * (int(outcome.max(initial=0)) + 1) + outcome, dtype=np.int64)


def population_stability(expected: ArrayLike, actual: ArrayLike, *, bins: int = 10) -> float:
    """Return the population stability index of scores: sum of (a - e) ln(a / e) over groups; NaN without rows.

    The groups hold equal shares of `expected`; e and a are the shares of the two in a group, each with half a row
    added so that an empty group counts as rare and not as infinite.
    """
    before, after = np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if not len(before) or not len(after):
        return math.nan
    edges = np.unique(np.quantile(before, np.linspace(0, 1, bins + 1)[1:-1]))
    shares = []
    for scores in (before, after):
        rows = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1) + 0.5
        shares.append(rows / rows.sum())
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def _per_day_pr_auc(window: Window, p: Floats) -> float:
    order = np.argsort(window.dates, kind="stable")
    _, starts = np.unique(window.dates[order], return_index=True)
    days = [average_precision(window.labels[rows].astype(np.float64), p[rows]) for rows in np.split(order, starts[1:])]
    known = [day for day in days if not math.isnan(day)]
    return float(np.mean(known)) if known else math.nan


def _log_loss(y: Floats, p: Floats) -> float:
    if not len(y):
        return math.nan
    clipped = np.clip(p, _EDGE, 1 - _EDGE)
    return float(-np.mean(y * np.log(clipped) + (1 - y) * np.log1p(-clipped)))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def _checked(window: Window, probabilities: ArrayLike) -> Floats:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != (len(window),):
        raise ValueError(f"probabilities have the shape {p.shape}; the window has {len(window)} rows")
    if not ((p >= 0.0) & (p <= 1.0)).all():  # also false for NaN
        raise ValueError("probabilities must lie between 0 and 1 and none may be missing")
    return p
