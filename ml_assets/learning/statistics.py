"""Each metric of probabilities, once: its value on a window, and its value when days count as often as they are drawn.

A weight of a day multiplies the rows of that day, so a resample of days is never built. A metric that is not defined
on the rows (no positive, no negative, no row) is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import InputError
from ml_assets.learning.frames import numbered
from ml_assets.learning.window import Window
from ml_assets.spec import ActionSpec

Floats = NDArray[np.float64]
_EDGE = 1e-15
# Cells of resamples by steps that are in memory at a time.
_CELLS = 2**21


class Statistic(Protocol):
    """A metric of one model on one window."""

    def value(self) -> float:
        """Return the metric, each day once; NaN where it is not defined."""

    def of_days(self, weights: Floats) -> Floats:
        """Return the metric for each set of weights: (resamples, days) to (resamples,)."""


@dataclass(frozen=True)
class Total:
    """Something that is added up: `values` (m,) and the number of the day of each (m,)."""

    values: Floats
    days: NDArray[np.int64]


@dataclass(frozen=True)
class OfTotals:
    """A formula of totals, each given as one number, or as (resamples,)."""

    formula: Callable[..., Floats]
    totals: tuple[Total, ...]
    days: int

    def value(self) -> float:
        """Return the formula of the totals over all rows."""
        return float(self.formula(*(total.values.sum() for total in self.totals)))

    def of_days(self, weights: Floats) -> Floats:
        """Return the formula of the weighted totals: (resamples,)."""
        by_day = (np.bincount(t.days, weights=t.values, minlength=self.days) for t in self.totals)
        return self.formula(*(weights @ each for each in by_day))


@dataclass(frozen=True)
class OfSteps:
    """A formula of totals at the steps of a ranking: of arrays (resamples, steps), to (resamples,).

    `totals` are by day and step: (days, steps). The steps are the probabilities at which there is a positive, since
    nothing changes between them: so a resample takes work for its positives, and none for all its rows.
    """

    formula: Callable[..., Floats]
    totals: tuple[Floats, ...]

    def value(self) -> float:
        """Return the formula of the totals over all days."""
        return float(self.of_days(np.ones((1, len(self.totals[0]))))[0])

    def of_days(self, weights: Floats) -> Floats:
        """Return the formula of the weighted totals: (resamples,)."""
        at_once = max(1, _CELLS // max(1, self.totals[0].shape[1]))
        parts = (weights[first : first + at_once] for first in range(0, len(weights), at_once))
        return np.concatenate([self.formula(*(part @ total for total in self.totals)) for part in parts])


@dataclass(frozen=True)
class Difference:
    """One statistic minus another."""

    first: Statistic
    second: Statistic

    def value(self) -> float:
        """Return the difference of the values."""
        return self.first.value() - self.second.value()

    def of_days(self, weights: Floats) -> Floats:
        """Return the difference for each set of weights: (resamples,)."""
        return self.first.of_days(weights) - self.second.of_days(weights)


def average_precision(labels: Floats, probabilities: Floats) -> float:
    """Return the area under the precision-recall curve as a sum of steps; NaN without a positive."""
    return _average_precision(labels, probabilities, np.zeros(len(labels), dtype=np.int64)).value()


def roc_auc(labels: Floats, probabilities: Floats) -> float:
    """Return the probability that a positive ranks above a negative; NaN unless there are both."""
    return _roc_auc(labels, probabilities, np.zeros(len(labels), dtype=np.int64)).value()


def pr_auc(window: Window, probabilities: Floats) -> Statistic:
    """Return the average precision."""
    return _average_precision(window.labels.astype(np.float64), probabilities, window.days)


def per_day_pr_auc(window: Window, probabilities: Floats) -> Statistic:
    """Return the mean average precision of the days with a positive."""
    order = np.argsort(window.days, kind="stable")
    starts = np.flatnonzero(np.diff(window.days[order])) + 1
    labels = window.labels.astype(np.float64)
    each = np.array([average_precision(labels[rows], probabilities[rows]) for rows in np.split(order, starts)])
    known = np.flatnonzero(~np.isnan(each))
    return OfTotals(_ratio, (Total(each[known], known), Total(np.ones(len(known)), known)), _days(window))


def brier_skill(window: Window, probabilities: Floats) -> Statistic:
    """Return 1 minus the Brier score over that of the base rate."""

    def skill(squares: Floats, positives: Floats, rows: Floats) -> Floats:
        base_rate = _ratio(positives, rows)
        return np.asarray(1 - _ratio(_ratio(squares, rows), base_rate * (1 - base_rate)))

    labels = window.labels.astype(np.float64)
    columns = ((probabilities - labels) ** 2, labels, np.ones(len(labels)))
    return OfTotals(skill, tuple(Total(column, window.days) for column in columns), _days(window))


# The metrics that a gate can use: by name, for a window and probabilities (n,).
METRICS: dict[str, Callable[[Window, Floats], Statistic]] = {
    "pr_auc": pr_auc,
    "per_day_pr_auc": per_day_pr_auc,
    "brier_skill": brier_skill,
}


def gate_statistic(window: Window, probabilities: Floats, metric: str) -> Statistic:
    """Return the statistic of a metric that a gate can use.

    Raises:
        ValueError: the metric is not one of `METRICS`.
    """
    if metric not in METRICS:
        raise InputError(f"there is no bootstrap of {metric!r}; there is one of {', '.join(METRICS)}")
    return METRICS[metric](window, probabilities)


def ranking_statistics(window: Window, probabilities: Floats) -> dict[str, Statistic]:
    """Return how well probabilities (n,) rank and how near they are to the outcomes, by name of the metric."""
    y, rows = window.labels.astype(np.float64), np.ones(len(window))
    clipped = np.clip(probabilities, _EDGE, 1 - _EDGE)
    loss = -(y * np.log(clipped) + (1 - y) * np.log1p(-clipped))
    base_rate, precision = _mean(window, y, rows), pr_auc(window, probabilities)
    return {
        "base_rate": base_rate,
        "pr_auc": precision,
        "lift": Difference(precision, base_rate),
        "per_day_pr_auc": per_day_pr_auc(window, probabilities),
        "roc_auc": _roc_auc(y, probabilities, window.days),
        "brier": _mean(window, (probabilities - y) ** 2, rows),
        "brier_skill": brier_skill(window, probabilities),
        "log_loss": _mean(window, loss, rows),
    }


def decision_statistics(window: Window, chosen: NDArray[np.bool_], action: ActionSpec) -> dict[str, Statistic]:
    """Return what acting on the chosen decisions (a mask, (n,)) would have brought, by name of the metric.

    - `precision_at_capacity`: of the chosen decisions, the share that failed; `recall_at_capacity`: of the decisions
      that failed, the share chosen; `cost_captured_at_capacity`: of the cost of those that failed, the share chosen
    - `value_precision_at_capacity`: of the value acted on, the share that failed; `value_recall_at_capacity`: of the
      value that failed, the share acted on
    - `saved_per_day`: what the avoided fails would have cost minus what acting costs, in the use case's currency, per
      decision date; against no model, which means that nobody acts, so 0. The difference of two models is what one
      saves against the other
    - `lead_hours_at_capacity`: mean hours from the first listing of a fail to `action.until` on its outcome date

    The last four count an entity once, at its first listing, even if it is on several lists before its outcome.
    """
    days = _days(window)
    failed = window.labels == 1
    subjects = _subjects(window)
    acted = _first_listings(window, chosen, subjects)
    every = np.unique(subjects, return_index=True)[1]
    caught, lost = acted[failed[acted]], every[failed[every]]
    until = action.until.hour + action.until.minute / 60
    lead = (window.outcome_dates[caught].astype("datetime64[m]") - window.decision_times[caught]).astype(
        "timedelta64[m]"
    ).astype(np.float64) / 60 + until

    def of(column: NDArray[np.float64] | None, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Total:
        """Return the total of a column, or the number, over rows (a mask or positions)."""
        at = window.days[rows]
        return Total(np.ones(len(at)) if column is None else column[rows], at)

    def ratio(part: Total, whole: Total) -> OfTotals:
        return OfTotals(_ratio, (part, whole), days)

    def saved(cost: Floats, actions: Floats, drawn: Floats) -> Floats:
        return _ratio(action.effectiveness * cost - action.cost * actions, drawn)

    cost, value, fails = window.costs, window.values, window.costs * failed
    listed = chosen & failed
    each_day = Total(np.ones(days), np.arange(days))
    return {
        "precision_at_capacity": ratio(of(None, listed), of(None, chosen)),
        "recall_at_capacity": ratio(of(None, listed), of(None, failed)),
        "cost_captured_at_capacity": ratio(of(fails, chosen), Total(fails, window.days)),
        "value_precision_at_capacity": ratio(of(value, caught), of(value, acted)),
        "value_recall_at_capacity": ratio(of(value, caught), of(value, lost)),
        "saved_per_day": OfTotals(saved, (of(cost, caught), of(None, acted), each_day), days),
        "lead_hours_at_capacity": ratio(Total(lead, window.days[caught]), of(None, caught)),
    }


def _average_precision(labels: Floats, probabilities: Floats, days: NDArray[np.int64]) -> OfSteps:
    """Return the average precision: of equal probabilities, all rows are seen at once."""
    positive = labels > 0
    _, step = _at_steps(-probabilities, positive)
    seen, found = (np.cumsum(_counts(step, days, of), axis=1) for of in (step >= 0, positive))

    def precision(seen: Floats, found: Floats) -> Floats:
        # What is found comes in these parts, each with the precision that there is then.
        parts = np.diff(found, prepend=0.0, axis=1) / np.maximum(found[:, -1:], 1.0)
        area = (parts * found / np.maximum(seen, 1.0)).sum(axis=1)
        return np.where(found[:, -1] > 0, area, np.nan) if found.shape[1] else np.full(len(found), np.nan)

    return OfSteps(precision, (seen, found))


def _roc_auc(labels: Floats, probabilities: Floats, days: NDArray[np.int64]) -> OfSteps:
    """Return the area under the ROC curve: the statistic of Mann and Whitney (1947) over pairs; a tie counts half."""
    positive = labels > 0
    tied, step = _at_steps(probabilities, positive)
    positives, ties = (_counts(step, days, of) for of in (positive, tied & ~positive))
    below = np.cumsum(_counts(step, days, (step >= 0) & ~positive), axis=1) - ties
    negatives = _counts(np.zeros_like(days), days, ~positive)

    def area(positives: Floats, ties: Floats, below: Floats, negatives: Floats) -> Floats:
        return _ratio((positives * (below + ties / 2)).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))

    return OfSteps(area, (positives, ties, below, negatives))


def _at_steps(values: Floats, positive: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which values are those of a positive, and the step of each: the first that is not below it; -1 for none.

    Steps are the different values of positives, in ascending order.
    """
    ranks = np.unique(values, return_inverse=True)[1]
    of_positives = np.unique(ranks[positive])
    step = np.searchsorted(of_positives, ranks)
    return np.isin(ranks, of_positives), np.where(step < len(of_positives), step, -1)


def _counts(step: NDArray[np.int64], days: NDArray[np.int64], rows: NDArray[np.bool_]) -> Floats:
    """Return the number of some rows (a mask) by day and step: (days, steps)."""
    shape = (int(days.max(initial=-1)) + 1, int(step.max(initial=-1)) + 1)
    cell = days[rows] * shape[1] + step[rows]
    return np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def _mean(window: Window, column: Floats, rows: Floats) -> OfTotals:
    return OfTotals(_ratio, (Total(column, window.days), Total(rows, window.days)), _days(window))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.asarray(part / np.where(whole > 0, whole, np.nan))


def _days(window: Window) -> int:
    return int(window.days.max(initial=-1)) + 1


def _first_listings(window: Window, chosen: NDArray[np.bool_], subjects: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows in which an entity is chosen for the first time before its outcome."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(window.decision_times[rows], kind="stable")]
    return np.asarray(rows[np.unique(subjects[rows], return_index=True)[1]])


def _subjects(window: Window) -> NDArray[np.int64]:
    """Return a number for each row that is the same for decisions about the same outcome of the same entity."""
    _, entity = numbered(window.entity_ids)
    _, outcome = np.unique(window.outcome_dates, return_inverse=True)
    return np.asarray(entity * (int(outcome.max(initial=0)) + 1) + outcome, dtype=np.int64)
