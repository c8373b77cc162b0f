"""The work-list rule: which decisions are on a list, in which order, and on which the team acts. Pure: arrays in, out.

A work-list has one outcome date of a use case. After a scoring it holds the latest decision of each entity, unless a
later scoring decided everything open of that outcome date. An entity that this scoring did not decide again has
settled, was cancelled or moved to another date, and is off the list. The list is ordered by expected cost. It is as
long as the team's capacity, without the rows that cost more to act on than they save.

The view `work_list` (`database/sql/work_list.sql`) is this rule in SQL, and a test compares the two. Metrics, reasons
and all other code that cuts a list call this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.spec import ActionSpec, OutcomeDates


def standing(
    entities: npt.NDArray[Any] | pa.ChunkedArray,
    outcome_dates: npt.NDArray[np.datetime64],
    decision_times: npt.NDArray[np.datetime64],
    scorings: Mapping[datetime, OutcomeDates | None],
    as_of: datetime | None = None,
) -> npt.NDArray[np.bool_]:
    """Return which decisions of a use case stand on the work-lists of their outcome dates: a mask (n,).

    Each decision has an entity, an outcome date and a decision time (UTC): three arrays (n,). `scorings` maps the
    decision times at which the use case was scored to the outcome dates of which everything open was decided then, or
    to None; scorings that decided nothing count too. With `as_of` the lists are those after the scoring of that time.
    """
    times = np.asarray(decision_times, dtype="datetime64[us]")
    outcomes = np.asarray(outcome_dates, dtype="datetime64[D]")
    end = np.datetime64("9999-12-31", "us") if as_of is None else _moment(as_of)
    since = np.full(len(times), np.datetime64("0001-01-01", "us"))
    for at, decided in scorings.items():
        if decided is not None and _moment(at) <= end:
            within = outcomes >= np.datetime64(decided.first)
            if decided.last is not None:
                within &= outcomes <= np.datetime64(decided.last)
            since[within] = np.maximum(since[within], _moment(at))
    known = np.flatnonzero((times <= end) & (times >= since))
    # The last of each entity and outcome date, in order of time.
    order = known[np.lexsort((times[known], outcomes[known], _in_order(entities)[known]))]
    same = (np.diff(_in_order(entities)[order]) == 0) & (np.diff(outcomes[order]) == np.timedelta64(0, "D"))
    mask = np.zeros(len(times), dtype=np.bool_)
    mask[order[np.append(~same, True)] if len(order) else order] = True
    return mask


def priorities(
    lists: npt.NDArray[Any], entities: npt.NDArray[Any] | pa.ChunkedArray, expected_costs: npt.NDArray[np.float64]
) -> npt.NDArray[np.int32]:
    """Return the place of each row on its list, from 1 by falling expected cost: (n,).

    `lists` (n,) names the list of each row. Rows of equal cost are ordered by entity, by the bytes of its name in
    UTF-8, so that a list is the same whenever it is made.
    """
    order = np.lexsort((_in_order(entities), -expected_costs, lists))
    starts = np.flatnonzero(np.append(True, lists[order][1:] != lists[order][:-1])) if len(order) else order
    sizes = np.diff(starts, append=len(order))
    places = np.empty(len(order), dtype=np.int32)
    places[order] = np.arange(len(order)) - np.repeat(starts, sizes) + 1
    return places


def listed(
    lists: npt.NDArray[Any],
    entities: npt.NDArray[Any] | pa.ChunkedArray,
    expected_costs: npt.NDArray[np.float64],
    *,
    capacity: int,
    action: ActionSpec,
) -> npt.NDArray[np.bool_]:
    """Return which rows the team is to act on: the first `capacity` of each list that are worth it, a mask (n,).

    A row that costs more to act on than it saves (`ActionSpec.pays`) is below the line, so a list may be shorter, or
    empty.
    """
    chosen = priorities(lists, entities, expected_costs) <= capacity
    return np.asarray(chosen & action.pays(expected_costs), dtype=np.bool_)


def listed_row(priority: int, expected_cost: float, capacity: int, action: ActionSpec) -> bool:
    """Return whether the team is to act on one row, by its place on its list: as `listed` says of many."""
    return priority <= capacity and action.pays(expected_cost)


def _in_order(entities: npt.NDArray[Any] | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return numbers that compare as the entities do: numpy compares no Arrow texts."""
    texts = entities if isinstance(entities, pa.ChunkedArray) else pa.array(entities.astype(str), pa.string())
    return np.asarray(pc.rank(texts, tiebreaker="dense").to_numpy(), dtype=np.int64)


def _moment(time: datetime) -> np.datetime64:
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "us")
