"""Estimated performance of predictions before any outcome is known, from their calibrated probabilities alone.

Confidence-based performance estimation (Kivimaki, Bialek, Kuberski, Nurminen 2025, "Confidence-based Estimators for
Predictive Performance in Model Monitoring", Journal of Artificial Intelligence Research 82): each decision fails with
its probability p, and the distribution of any metric follows from that.

The estimate shows when decisions become harder or easier. It cannot show that the probabilities have become wrong: it
does not depend on P(fail | features). So each estimate is later compared with the realised value. While they disagree
by more than chance and by more than the use case allows, estimates are withdrawn.
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
# With fewer complete outcome dates, the estimate is not judged.
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
    """The expected value of a metric, and the ends of the 95 % band of its distribution; NaN if undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Estimates compared with realised values: the mean of each over `days` outcome dates, and whether they agree."""

    days: int
    estimated: float
    realised: float
    holds: bool
    why: str

    @property
    def error(self) -> float:
        """The error as a share of the realised value; NaN if that is 0."""
        return self.estimated / self.realised - 1 if self.realised > 0 else math.nan


def expected(probabilities: Floats, on_list: NDArray[np.bool_], *, seed: int = 0) -> dict[str, Estimated]:
    """Return the metrics `ESTIMATED`, estimated from outcomes that are drawn with `probabilities` (n,).

    `on_list` (n,) marks the decisions that are acted on.
    """
    order = np.argsort(-probabilities, kind="stable")
    p, listed = probabilities[order], on_list[order]
    if not len(p):
        return {name: _band(np.array([])) for name in ESTIMATED}
    drawn = np.random.default_rng(seed).random((_DRAWS, len(p))) < p
    with np.errstate(invalid="ignore"):  # nothing is listed
        at_capacity = drawn[:, listed].sum(axis=1) / listed.sum()
    return {
        "pr_auc": _band(_pr_auc(drawn, p)),
        "base_rate": _band(drawn.mean(axis=1)),
        "precision_at_capacity": _band(at_capacity),
    }


def _pr_auc(drawn: NDArray[np.bool_], probabilities: Floats) -> Floats:
    """Return the PR-AUC of outcomes (draws, n) that are scored by `probabilities` (n,); NaN without a fail.

    `probabilities` are in descending order. PR-AUC is the mean over the fails of the precision of what scores as high
    or higher: `statistics.average_precision`, also with ties. A precision is computed only where there is a fail.
    """
    n = len(probabilities)
    last = n - 1 - np.searchsorted(probabilities[::-1], probabilities, side="left")
    draw, fail = np.nonzero(drawn)
    precisions = np.cumsum(drawn, axis=1, dtype=np.int32)[draw, last[fail]] / (last[fail] + 1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(draw, precisions, len(drawn)) / np.bincount(draw, minlength=len(drawn)))


def realised(labels: Floats, probabilities: Floats, on_list: NDArray[np.bool_]) -> dict[str, float]:
    """Return the realised metrics `ESTIMATED` for labels, probabilities and list marks of shape (n,)."""
    return {
        "pr_auc": average_precision(labels, probabilities) if len(labels) else math.nan,
        "base_rate": float(labels.mean()) if len(labels) else math.nan,
        "precision_at_capacity": float(labels[on_list].mean()) if on_list.any() else math.nan,
    }


def estimates(usecase: UseCase, outcomes: pa.Table) -> pa.Table:
    """Return estimate and realised value of each metric and outcome date, in `ESTIMATES_SCHEMA`.

    `outcomes` is in `outcomes_schema`. Only complete dates have a realised value. Decisions on which the team acted are
    left out (`effect.untouched`). Estimates are published unless the newest `window_days` complete dates contradict
    them: see `reconcile`.
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
    """Return whether the estimates of the newest complete dates agree with the realised values.

    `rows` has estimated, low, high and realised of each outcome date, the earliest first. They disagree if the mean
    estimate is off by more than `max_estimate_error` of the realised mean, and by more than the bands of the dates,
    taken as independent, allow.
    """
    names = ("estimated", "low", "high", "realised")
    found = np.array([[_number(row[name]) for name in names] for row in rows], dtype=np.float64).reshape(-1, 4)
    found = found[np.isfinite(found).all(axis=1)][-spec.window_days :]
    days = len(found)
    if days < _LEAST_DAYS:
        return Reconciled(days, math.nan, math.nan, True, f"{days} complete dates are too few to judge the estimate")
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
    """Return whether `realised` is outside the band, and off by more than `max_estimate_error` of itself."""
    return not low <= realised <= high and abs(estimated - realised) > spec.max_estimate_error * realised


def _band(values: Floats) -> Estimated:
    values = values[np.isfinite(values)]
    if not len(values):
        return Estimated(math.nan, math.nan, math.nan)
    low, high = np.quantile(values, [_LOW, _HIGH])
    return Estimated(float(values.mean()), float(low), float(high))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
