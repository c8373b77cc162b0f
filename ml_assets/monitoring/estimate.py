"""How good predictions will have been, before any outcome is known, from their calibrated probabilities alone.

Confidence-based performance estimation (Kivimaki, Bialek, Kuberski, Nurminen 2025, "Confidence-based Estimators for
Predictive Performance in Model Monitoring", Journal of Artificial Intelligence Research 82): if p is the probability of
a fail, each decision is one with probability p, and any metric has the distribution that follows.

It sees that decisions have become harder or easier. It cannot see that the probabilities have become wrong: a change of
P(fail | features) leaves it as it was. So each estimate is held against what came out, and while they disagree by more
than chance and more than the use case allows, estimates are withdrawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.learning.statistics import average_precision
from ml_assets.monitoring.effect import untouched
from ml_assets.spec import MonitoringSpec, UseCase

Floats = NDArray[np.float64]
ESTIMATED = ("pr_auc", "base_rate", "precision_at_capacity")
_DRAWS = 200
_LOW, _HIGH = 0.025, 0.975
# Fewer outcome dates than these say nothing of the estimate.
_LEAST_DAYS = 3
ESTIMATES_SCHEMA = pa.schema(
    [
        pa.field("use_case", pa.string(), nullable=False),
        pa.field("outcome_date", pa.date32(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("estimated", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("realised", pa.float64()),
        pa.field("n", pa.int32(), nullable=False),
        pa.field("published", pa.bool_(), nullable=False),
        pa.field("why", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Estimated:
    """A metric that is expected, and the ends of the 95 % band of what chance leaves open; NaN if undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How the estimates of some outcome dates did: their mean, that of what came out, and whether they are believed."""

    days: int
    estimated: float
    realised: float
    holds: bool
    why: str

    @property
    def error(self) -> float:
        """The error as a share of what came out; NaN where nothing did."""
        return self.estimated / self.realised - 1 if self.realised > 0 else math.nan


def expected(probabilities: Floats, on_list: NDArray[np.bool_], *, seed: int = 0) -> dict[str, Estimated]:
    """Return the metrics `ESTIMATED` as outcomes drawn with these probabilities (n,) would give them.

    `on_list` (n,) are the decisions that are acted on.
    """
    order = np.argsort(-probabilities, kind="stable")
    p, listed = probabilities[order], on_list[order]
    if not len(p):
        return {name: _band(np.array([])) for name in ESTIMATED}
    drawn = (np.random.default_rng(seed).random((_DRAWS, len(p))) < p).astype(np.float64)
    fails = drawn.sum(axis=1)
    with np.errstate(invalid="ignore"):  # a draw without a fail has no PR-AUC
        pr_auc = (drawn * _precisions(drawn, p)).sum(axis=1) / fails
        at_capacity = drawn[:, listed].sum(axis=1) / listed.sum()
    return {
        "pr_auc": _band(pr_auc),
        "base_rate": _band(drawn.mean(axis=1)),
        "precision_at_capacity": _band(at_capacity),
    }


def _precisions(drawn: Floats, probabilities: Floats) -> Floats:
    """Return of outcomes (draws, n) the precision of what scores as high as each decision or higher, (draws, n).

    `probabilities` (n,) fall. With that the mean over the fails is `statistics.average_precision`, also with ties.
    """
    n = len(probabilities)
    last = n - 1 - np.searchsorted(probabilities[::-1], probabilities, side="left")
    return np.asarray(np.cumsum(drawn, axis=1)[:, last] / (last + 1))


def realised(labels: Floats, probabilities: Floats, on_list: NDArray[np.bool_]) -> dict[str, float]:
    """Return the metrics `ESTIMATED` of outcomes (n,)."""
    return {
        "pr_auc": average_precision(labels, probabilities) if len(labels) else math.nan,
        "base_rate": float(labels.mean()) if len(labels) else math.nan,
        "precision_at_capacity": float(labels[on_list].mean()) if on_list.any() else math.nan,
    }


def estimates(usecase: UseCase, outcomes: pa.Table) -> pa.Table:
    """Return estimate and realised value of each metric and outcome date, in `ESTIMATES_SCHEMA`.

    `outcomes` is in `outcomes_schema`; what came out is only told of complete dates. What the team has acted on is left
    out (`effect.untouched`). An estimate of a date that has no
    outcome yet is published unless the newest `window_days` complete dates contradict it: see `reconcile`.
    """
    batch = untouched(usecase, outcomes)
    rows: list[dict[str, object]] = []
    for day in sorted(pc.unique(batch["outcome_date"]).to_pylist()):
        part = batch.filter(pc.equal(batch["outcome_date"], pa.scalar(day)))
        p, listed = part["probability"].to_numpy(), part["on_list"].to_numpy().astype(np.bool_)
        known = expected(p, listed, seed=usecase.seed)
        came = dict.fromkeys(ESTIMATED, math.nan)
        if part["is_complete"][0].as_py():
            there = part["label"].is_valid().to_numpy().astype(np.bool_)
            labels = part["label"].drop_null().to_numpy().astype(np.float64)
            came = realised(labels, p[there], listed[there])
        rows += [
            {
                "use_case": usecase.name,
                "outcome_date": day,
                "metric": name,
                "estimated": known[name].value,
                "low": known[name].low,
                "high": known[name].high,
                "realised": came[name],
                "n": part.num_rows,
            }
            for name in ESTIMATED
        ]
    says = {name: reconcile(usecase.monitoring, [row for row in rows if row["metric"] == name]) for name in ESTIMATED}
    for row in rows:
        judged = says[str(row["metric"])]
        row |= {"published": judged.holds, "why": judged.why}
        for name in ("estimated", "low", "high", "realised"):
            value = row[name]
            row[name] = value if isinstance(value, float) and math.isfinite(value) else None
    return pa.Table.from_pylist(rows, schema=ESTIMATES_SCHEMA)


def reconcile(spec: MonitoringSpec, rows: Sequence[dict[str, object]]) -> Reconciled:
    """Return whether the estimates of the newest complete dates agree with what came out.

    `rows` has estimated, low, high and realised of each outcome date, the earliest first. They disagree if their mean
    is off by more than `max_estimate_error` of what came out, and by more than the bands, taken as independent, allow.
    """
    names = ("estimated", "low", "high", "realised")
    found = np.array([[_number(row[name]) for name in names] for row in rows], dtype=np.float64).reshape(-1, 4)
    found = found[np.isfinite(found).all(axis=1)][-spec.window_days :]
    days = len(found)
    if days < _LEAST_DAYS:
        return Reconciled(days, math.nan, math.nan, True, f"{days} complete dates so far say little of it")
    estimated, came = found[:, 0].mean(), found[:, 3].mean()
    chance = math.sqrt(float(np.sum(((found[:, 2] - found[:, 1]) / 2) ** 2))) / days
    off = abs(estimated - came)
    holds = off <= spec.max_estimate_error * came or off <= chance
    why = (
        f"over {days} complete dates {estimated:.3f} was estimated and {came:.3f} came out; chance explains "
        f"{chance:.3f}, the limit is {spec.max_estimate_error:.0%}"
    )
    return Reconciled(days, float(estimated), float(came), bool(holds), why if holds else f"withdrawn: {why}")


def differs(spec: MonitoringSpec, estimated: float, low: float, high: float, realised: float) -> bool:
    """Return whether what came out lies outside the band, and further from the estimate than `max_estimate_error`."""
    return not low <= realised <= high and abs(estimated - realised) > spec.max_estimate_error * realised


def _band(values: Floats) -> Estimated:
    values = values[np.isfinite(values)]
    if not len(values):
        return Estimated(math.nan, math.nan, math.nan)
    low, high = np.quantile(values, [_LOW, _HIGH])
    return Estimated(float(values.mean()), float(low), float(high))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
