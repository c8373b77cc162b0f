"""What acting on the work-lists has avoided: decisions that were acted on, compared with the control group.

The lot assigns a decision to one or the other, so the difference between them is the effect of acting and of nothing
else. Both hold only decisions on a list whose fail costs at most `ControlSpec.max_cost`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.learning.bootstrap import Interval, draw_days
from ml_assets.learning.window import Window
from ml_assets.monitoring.outcomes import BATCH
from ml_assets.predictions.control import said
from ml_assets.spec import USUAL_WAY, UseCase

ACTED_ON, UNTOUCHED = "acted on", "untouched"
# With fewer decisions in either group, the effect is not estimated.
_LEAST = 20
_ENTITY = ["entity_id", "outcome_date"]
_NOTHING = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class Effect:
    """What acting avoided. Without a control group, or with a small one, `why` says why it is unknown.

    `fails` counts both groups. `avoided` is the share of decisions that would have failed and did not. `cost_avoided`
    is their cost, over all decisions that were acted on. `control_cost` is what it cost not to act on the control
    group. Costs are in the use case's currency, before the cost of acting. Intervals are over days.
    """

    acted_on: int
    usual_way: int
    fails: int = 0
    avoided: Interval = _NOTHING
    cost_avoided: Interval = _NOTHING
    control_cost: Interval = _NOTHING
    why: str = ""

    def sentence(self, currency: str) -> str:
        """Return the effect as a sentence for people."""
        if self.why:
            return f"What acting avoids is unknown: {self.why}"
        return (
            f"Acting avoided {self.avoided.value:.1%} ({self.avoided.low:.1%} to {self.avoided.high:.1%}) of decisions "
            f"from failing: {self.cost_avoided.value:,.0f} {currency} ({self.cost_avoided.low:,.0f} to "
            f"{self.cost_avoided.high:,.0f}) on {self.acted_on:,} that were acted on. The {self.usual_way:,} of the "
            f"control group cost {self.control_cost.value:,.0f} {currency}"
        )


def effect_of_acting(usecase: UseCase, rows: pa.Table) -> Effect:
    """Return the effect of acting on the judged predictions of a window (`outcomes.judged_rows`).

    An entity counts once, at its first listing for an outcome date. The probability of each decision is subtracted from
    its outcome, which narrows the interval and does not bias the effect.
    """
    batch = pc.and_(pc.equal(rows["stage"], BATCH), rows["on_list"])
    cheap = pc.less_equal(rows["cost_if_fail"], usecase.control.max_cost)
    listed = _first(rows.filter(pc.and_(batch, cheap)))
    usual = _usual_way(listed)
    n_usual, n_acted = int(usual.sum()), int((~usual).sum())
    if n_usual < _LEAST or n_acted < _LEAST:
        few = f"{n_acted:,} were acted on and {n_usual:,} went the usual way; at least {_LEAST} of each are needed"
        return Effect(n_acted, n_usual, why=f"{said(usecase.control, usecase.currency)}; {few}")
    window = Window.of(listed)
    off = window.labels - listed["probability"].to_numpy()
    weights = draw_days(window, usecase.gate.resamples, usecase.seed)

    def interval(column: NDArray[np.float64], times: int) -> Interval:
        value = times * float(_difference(window, column, usual, None)[0])
        if weights is None:
            return Interval(value, float("nan"), float("nan"))
        drawn = times * _difference(window, column, usual, weights)
        tails = [(1 - usecase.gate.confidence) / 2, (1 + usecase.gate.confidence) / 2]
        low, high = np.nanquantile(drawn, tails)
        return Interval(value, float(low), float(high))

    cost = off * window.costs
    fails = int(window.labels.sum())
    return Effect(n_acted, n_usual, fails, interval(off, 1), interval(cost, n_acted), interval(cost, n_usual))


def acted_on(usecase: UseCase, rows: pa.Table) -> pa.Table:
    """Return one row per entity and outcome date on which the team acted; no rows if it does not act.

    `rows` is in `outcomes_schema`. A decision was acted on if the batch listed it at any decision time and it is not in
    the control group.
    """
    keys = rows.select(_ENTITY)
    if not usecase.action.taken:
        return keys.slice(0, 0)
    listed = np.asarray(rows["on_list"].to_numpy(), dtype=np.bool_) & ~_usual_way(rows)
    batch = pc.equal(rows["stage"], BATCH).to_numpy().astype(np.bool_)
    return keys.filter(pa.array(listed & batch)).group_by(_ENTITY).aggregate([])


def untouched(usecase: UseCase, rows: pa.Table) -> pa.Table:
    """Return the predictions of the batch whose outcomes nobody influenced; `rows` is in `outcomes_schema`.

    If the team acts, these are the last predictions of the entities on which nobody acted. Earlier predictions of them
    would be a biased sample: an entity that was never listed later is one that had no bad news after the prediction.
    """
    rows = rows.filter(pc.equal(rows["stage"], BATCH))
    if not usecase.action.taken:
        return rows
    acted = acted_on(usecase, rows)
    rest = rows.filter(rows["is_last"]).join(acted, keys=_ENTITY, join_type="left anti")
    return rest.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])


def handling(rows: pa.Table) -> NDArray[np.object_]:
    """Return how each prediction was handled, (n,): acted on, usual way (the control group), or untouched."""
    usual = _usual_way(rows)
    listed = rows["on_list"].to_numpy().astype(np.bool_)
    return np.where(listed, np.where(usual, USUAL_WAY, ACTED_ON), UNTOUCHED).astype(object)


def _usual_way(rows: pa.Table) -> NDArray[np.bool_]:
    """Return which rows, (n,), are in the control group; none in a table from before control groups existed."""
    if "control" not in rows.column_names:
        return np.zeros(rows.num_rows, dtype=np.bool_)
    return np.asarray(rows["control"].fill_null(False).to_numpy(), dtype=np.bool_)


def _first(rows: pa.Table) -> pa.Table:
    """Return the first listing of each entity for an outcome date, sorted by decision time and entity."""
    rows = rows.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])
    rows = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
    first = rows.group_by(["entity_id", "outcome_date"]).aggregate([("row", "min")])["row_min"]
    return rows.take(pa.array(np.sort(first.to_numpy())))


def _difference(
    window: Window, column: NDArray[np.float64], usual: NDArray[np.bool_], weights: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the mean of `column` in the control group less its mean over what was acted on, per set of day weights."""
    days = int(window.days.max()) + 1
    drawn = np.ones((1, days)) if weights is None else weights

    def mean(part: NDArray[np.bool_]) -> NDArray[np.float64]:
        total = drawn @ np.bincount(window.days[part], weights=column[part], minlength=days)
        rows = drawn @ np.bincount(window.days[part], minlength=days).astype(np.float64)
        return np.asarray(total / np.where(rows > 0, rows, np.nan))

    return mean(usual) - mean(~usual)
