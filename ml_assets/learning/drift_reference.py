"""What each column of a model's training set looked like, day by day: kept with the model, to hold later days against.

Each column is cut into groups once, here. Kept are its rows by group and slot, and how far each day was from all other
days: what a day may differ by without being drift. Pure, and without scikit-learn: whoever monitors reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.learning.calibration import log_odds
from ml_assets.learning.frames import FeatureNames, model_arrays, numbered
from ml_assets.learning.stability import expected_by_chance, group_edges, shares_of, stability_index
from ml_assets.learning.window import SLICE_PREFIX

Floats = NDArray[np.float64]
Column: TypeAlias = NDArray[np.float32] | pa.ChunkedArray
# Categories that have a group of their own, the most frequent ones; the others share one.
_CATEGORIES = 20
# Rows of a day that are looked at, and rows of a day and slot whose reasons are asked for.
DAY_ROWS, EXPLAINED_ROWS = 4_000, 48
_DIGITS = 6


class Spread(msgspec.Struct, frozen=True):
    """How the values of a column were spread.

    Numbers are cut at `edges` (values at which the groups after the first begin); categories have `values`, the most
    frequent first. `counts` are the rows by slot and group, `levels` the mean log-odds of the score by group. By day:
    `psi` to all other days less what chance gives, the shares that were `missing`, and that were seen on no other day.
    """

    days: tuple[date, ...]
    counts: dict[str, tuple[int, ...]]
    levels: tuple[float, ...]
    psi: tuple[float, ...]
    missing: tuple[float, ...]
    unseen: tuple[float, ...]
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] | None = None

    def group(self, column: Column) -> NDArray[np.int64]:
        """Return the group of each value: (n,). See `names` for their order."""
        return _group(column, self.edges, self.values)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return _groups(self.edges, self.values)

    @property
    def names(self) -> list[str]:
        """The groups in words: those of values in order, then for categories others and new ones, then missing."""
        if self.values is not None:
            return [*self.values[:_CATEGORIES], "another known one", "a new one", "missing"]
        ends = [f"{edge:.4g}" for edge in self.edges]
        if not ends:
            return ["any value", "missing"]
        between = [f"{low} to {high}" for low, high in pairwise(ends)]
        return [f"below {ends[0]}", *between, f"{ends[-1]} or more", "missing"]

    def expected(self, rows: Mapping[str, int]) -> Floats:
        """Return the reference's counts by group, its slots weighted as in `rows`: see `mixed`."""
        return mixed({slot: np.asarray(counts, dtype=np.float64) for slot, counts in self.counts.items()}, rows)


class Level(msgspec.Struct, frozen=True):
    """The mean of something by slot, and by how much the mean of each day was off."""

    days: tuple[date, ...]
    means: dict[str, float]
    deviations: tuple[float, ...]

    def expected(self, rows: Mapping[str, int]) -> float:
        """Return the mean for days with so many rows by slot; an unknown slot counts as the mean of all."""
        total = sum(rows.values())
        other = float(np.mean(list(self.means.values()))) if self.means else 0.0
        return sum(n * self.means.get(slot, other) for slot, n in rows.items()) / total if total else other


class DriftReference(msgspec.Struct, frozen=True):
    """The training set, day by day: columns, scores, slices, mean log-odds, what causes add to them, and rows by slot.

    `slices` are of the test part, which alone has them. `rows` has 0 for a slot that a day does not have.
    """

    days: tuple[date, ...]
    rows: dict[str, tuple[int, ...]]
    features: dict[str, Spread]
    scores: Spread
    slices: dict[str, Spread]
    log_odds: Level
    causes: dict[str, Level]


def drift_reference(
    names: FeatureNames,
    rows: pa.Table,
    score: Callable[[pa.Table], Floats],
    explain: Callable[[pa.Table], Mapping[str, float]] | None = None,
) -> DriftReference:
    """Return the reference of labelled decisions with their slices, as a training set has them.

    `score` gives the probabilities (n,) of rows, `explain` the mean contribution of each cause to their log-odds.
    Up to `DAY_ROWS` decisions of each day are looked at, evenly spread.
    """
    every, at_day = np.unique(rows["decision_date"].to_numpy(), return_inverse=True)
    slots, at_slot = numbered(rows["slot"])
    volume = np.bincount(at_slot * len(every) + at_day, minlength=len(slots) * len(every)).reshape(len(slots), -1)
    chosen = _some(at_day, DAY_ROWS)
    rows, cells = rows.take(pa.array(chosen)), _Cells(every, slots, at_day[chosen], at_slot[chosen])
    scores = score(rows)
    odds = log_odds(scores)
    has_slices = rows["part"].to_numpy() == "test"
    test, test_cells = rows.filter(pa.array(has_slices)), cells.take(has_slices)
    return DriftReference(
        days=cells.dates(),
        rows={str(slot): tuple(counts.tolist()) for slot, counts in zip(slots, volume, strict=True)},
        features={name: _spread(column_of(names, rows, name), cells, odds) for name in names.all},
        scores=_spread(scores.astype(np.float32), cells, odds),
        slices={
            name.removeprefix(SLICE_PREFIX): _spread(test[name].cast(pa.string()), test_cells, odds[has_slices])
            for name in rows.column_names
            if name.startswith(SLICE_PREFIX) and test.num_rows
        },
        log_odds=_level(_means(odds, cells), cells),
        causes=_causes(rows, cells, explain) if explain is not None else {},
    )


def column_of(names: FeatureNames, rows: pa.Table, name: str) -> Column:
    """Return a feature as the model reads it: float32 with NaN for missing, or texts with null."""
    if name not in rows.column_names:
        empty = np.full(rows.num_rows, np.nan, dtype=np.float32)
        return empty if name in names.numeric else pa.chunked_array([pa.nulls(rows.num_rows, pa.string())])
    if name in names.numeric:
        return model_arrays(FeatureNames((name,), ()), rows)[0][:, 0]
    return rows[name].cast(pa.string())


def mixed(counts: Mapping[str, Floats], rows: Mapping[str, int]) -> Floats:
    """Return counts by group (groups,) as if the slots had the shares that they have in `rows`.

    A slot of which nothing is known counts as all slots together. With the shares of `counts` this is their sum.
    """
    whole = np.sum(list(counts.values()), axis=0)
    parts = {slot: counts[slot] if slot in counts and counts[slot].any() else whole for slot, n in rows.items() if n}
    total = sum(rows.values())
    known = sum(part.sum() for part in parts.values())
    if not total or not known:
        return np.asarray(whole, dtype=np.float64)
    # A whole that has no row gives nothing to its slot.
    each = [rows[slot] / total * part / max(1.0, part.sum()) for slot, part in parts.items()]
    return np.asarray(min(known, whole.sum()) * np.sum(each, axis=0), dtype=np.float64)


class _Cells:
    """The day and slot of each row, as numbers."""

    def __init__(
        self, days: NDArray[np.datetime64], slots: Sequence[str], day: NDArray[np.int64], slot: NDArray[np.int64]
    ) -> None:
        self.days, self.slots, self.day, self.slot = days, slots, day, slot

    def take(self, chosen: NDArray[np.bool_]) -> _Cells:
        """Return the chosen rows (a mask), with their days alone."""
        days, day = np.unique(self.day[chosen], return_inverse=True)
        return _Cells(self.days[days], self.slots, day, self.slot[chosen])

    def dates(self) -> tuple[date, ...]:
        return tuple(day.astype("datetime64[D]").item() for day in self.days)

    def count(self, group: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
        """Return the rows by day, slot and group."""
        shape = (len(self.days), len(self.slots), groups)
        cell = (self.day * shape[1] + self.slot) * groups + group
        return np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)

    def of(self) -> Iterator[tuple[int, str, NDArray[np.int64]]]:
        """Yield number of the day, slot, and positions of the rows of each cell that has some."""
        cell = self.day * len(self.slots) + self.slot
        order = np.argsort(cell, kind="stable")
        starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
        for part in np.split(order, starts[1:]) if len(order) else ():
            yield int(self.day[part[0]]), str(self.slots[self.slot[part[0]]]), part


def _spread(column: Column, cells: _Cells, odds: Floats) -> Spread:
    values: tuple[str, ...] | None = None
    edges: tuple[float, ...] = ()
    if isinstance(column, pa.ChunkedArray):
        counted = sorted(column.value_counts().to_pylist(), key=lambda one: (-one["counts"], one["values"] or ""))
        values = tuple(one["values"] for one in counted if one["values"])
    else:
        edges = tuple(group_edges(column[np.isfinite(column)]).tolist())
    groups = _groups(edges, values)
    group = _group(column, edges, values)
    counts = cells.count(group, groups)
    by_slot = {str(slot): tuple(counts[:, i].sum(axis=0).tolist()) for i, slot in enumerate(cells.slots)}
    rows = np.maximum(1, np.bincount(group, minlength=groups))
    of_day = np.maximum(1, counts.sum(axis=(1, 2)))
    return Spread(
        days=cells.dates(),
        counts=by_slot,
        levels=_rounded(np.bincount(group, weights=odds, minlength=groups) / rows),
        psi=_rounded(_days_apart(counts, [str(slot) for slot in cells.slots])),
        missing=_rounded(counts[:, :, -1].sum(axis=1) / of_day),
        unseen=_rounded(_unseen(column, values, cells) / of_day),
        edges=edges,
        values=values,
    )


def _days_apart(counts: NDArray[np.int64], slots: Sequence[str]) -> Floats:
    """Return the stability index of each day to all other days, less what chance gives: (days,)."""
    whole = counts.sum(axis=0)
    apart = np.zeros(len(counts))
    for number, mine in enumerate(counts):
        rows = {slot: int(n) for slot, n in zip(slots, mine.sum(axis=1), strict=True)}
        others = mixed(dict(zip(slots, (whole - mine).astype(np.float64), strict=True)), rows)
        own = mine.sum(axis=0)
        by_chance = expected_by_chance(int(np.sum((own + others) > 0)), int(own.sum()), int(others.sum()))
        apart[number] = stability_index(shares_of(others), shares_of(own)) - by_chance
    return apart


def _unseen(column: Column, values: Sequence[str] | None, cells: _Cells) -> Floats:
    """Return by day how many values were seen on no other day: (days,)."""
    if values is None or not isinstance(column, pa.ChunkedArray) or not values:
        return np.zeros(len(cells.days))
    at = pc.index_in(column, pa.array(values, pa.string())).fill_null(-1).to_numpy()
    known = at >= 0
    table = np.bincount(cells.day[known] * len(values) + at[known], minlength=len(cells.days) * len(values))
    table = table.reshape(len(cells.days), -1)
    return np.asarray((table * ((table > 0).sum(axis=0) == 1)).sum(axis=1), dtype=np.float64)


def _means(values: Floats, cells: _Cells) -> dict[tuple[int, str], tuple[float, int]]:
    """Return mean and rows of each day and slot."""
    return {(day, slot): (float(values[at].mean()), len(at)) for day, slot, at in cells.of()}


def _causes(rows: pa.Table, cells: _Cells, explain: Callable[[pa.Table], Mapping[str, float]]) -> dict[str, Level]:
    found: dict[str, dict[tuple[int, str], tuple[float, int]]] = {}
    for day, slot, at in cells.of():
        some = at[evenly(len(at), EXPLAINED_ROWS)]
        for cause, mean in explain(rows.take(pa.array(some))).items():
            found.setdefault(cause, {})[day, slot] = (mean, len(at))
    return {cause: _level(means, cells) for cause, means in found.items()}


def _level(means: Mapping[tuple[int, str], tuple[float, int]], cells: _Cells) -> Level:
    by_slot: dict[str, list[tuple[float, int]]] = {}
    for (_, slot), one in means.items():
        by_slot.setdefault(slot, []).append(one)
    mean = {slot: _weighted(each) for slot, each in by_slot.items()}
    off = np.zeros(len(cells.days))
    for number in range(len(cells.days)):
        mine = {slot: one for (day, slot), one in means.items() if day == number}
        expected = _weighted([(mean[slot], n) for slot, (_, n) in mine.items()])
        off[number] = _weighted(list(mine.values())) - expected
    return Level(cells.dates(), {slot: round(each, _DIGITS) for slot, each in mean.items()}, _rounded(off))


def _weighted(each: Sequence[tuple[float, int]]) -> float:
    total = sum(n for _, n in each)
    return sum(mean * n for mean, n in each) / total if total else 0.0


def evenly(rows: int, wanted: int) -> NDArray[np.int64]:
    """Return the positions of at most `wanted` of so many rows, evenly spread."""
    if rows <= wanted:
        return np.arange(rows)
    return np.asarray((np.arange(wanted) + 0.5) * rows / wanted, dtype=np.int64)


def _some(day: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Return the positions of at most `wanted` rows of each day, evenly spread, in order."""
    order = np.argsort(day, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(day[order])) + 1) if len(order) else []
    return np.sort(np.concatenate([part[evenly(len(part), wanted)] for part in parts])) if parts else order


def _group(column: Column, edges: Sequence[float], values: Sequence[str] | None) -> NDArray[np.int64]:
    if isinstance(column, pa.ChunkedArray):
        at = pc.index_in(column, pa.array(values or [], pa.string())).fill_null(-1).to_numpy()
        own = min(len(values or ()), _CATEGORIES)
        group = np.where(at < 0, own + 1, np.minimum(at, own))
        absent = pc.fill_null(pc.equal(column, ""), True).to_numpy()
        return np.asarray(np.where(absent, own + 2, group), dtype=np.int64)
    cut = np.searchsorted(np.asarray(edges, dtype=np.float32), column, side="right")
    return np.asarray(np.where(np.isfinite(column), cut, len(edges) + 1), dtype=np.int64)


def _groups(edges: Sequence[float], values: Sequence[str] | None) -> int:
    return len(edges) + 2 if values is None else min(len(values), _CATEGORIES) + 3


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(np.round(values, _DIGITS).tolist())
