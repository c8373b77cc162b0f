"""Where a decision lies among others: a vector of its features and of what its causes added to its log-odds.

All coordinates are in log-odds, so that a distance is one too. A cause has what it added (see `reasons`). A feature has
its group in the training set, which the model keeps (`drift_reference`): a number its ridit (Bross 1958, "How to use
ridit analysis"), the mean rank of the group, standardised; a category one coordinate for each value. Both are weighted
by how far the feature moves the score: the standard deviation of the mean log-odds of its groups.

Pure, and without scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.errors import InputError
from ml_assets.learning.drift_reference import Spread, column_of
from ml_assets.learning.scorer import Manifest

Floats = NDArray[np.float64]


class CaseSpace:
    """Turns decisions into vectors, by the training set of one model; decisions of other models may lie in it too."""

    def __init__(self, manifest: Manifest, causes: Sequence[str], dimensions: int) -> None:
        """Take the training set from a model's manifest. `causes` are those of the contributions, in their order.

        A vector has `dimensions` numbers; those that are not used are 0.

        Raises:
            InputError: the model was saved without its training days.
        """
        reference = manifest.reference.drift if manifest.reference else None
        if reference is None:
            raise InputError(
                f"use case {manifest.usecase}: model {manifest.candidate!r} was made before its training days were "
                "kept with it, so that decisions cannot be compared; retrain it"
            )
        self._causes, self.dimensions = len(causes), dimensions
        self._coordinates: dict[str, Floats] = {}
        room = dimensions - self._causes
        found = {name: (spread, _coordinates(spread)) for name, spread in reference.features.items()}
        # Where there is no room for all, the features that move the score least are left out.
        for name in sorted(found, key=lambda one: -_weight(found[one][0])):
            width = found[name][1].shape[1]
            if width <= room:
                self._coordinates[name], room = found[name][1], room - width
        self._names, self._spreads = manifest.features, {name: found[name][0] for name in self._coordinates}

    @property
    def used(self) -> int:
        """How many coordinates are used."""
        return self._causes + sum(int(table.shape[1]) for table in self._coordinates.values())

    def vectors(self, rows: pa.Table, contributions: Floats) -> NDArray[np.float32]:
        """Return the vectors (n, dimensions) of decisions with these `contributions` (n, causes).

        Raises:
            ValueError: the contributions are of other causes.
        """
        if contributions.shape != (rows.num_rows, self._causes):
            raise InputError(
                f"contributions have shape {contributions.shape}; {rows.num_rows} decisions of {self._causes} causes "
                "need another"
            )
        parts = [contributions]
        for name, table in self._coordinates.items():
            parts.append(table[self._spreads[name].group(column_of(self._names, rows, name))])
        made = np.zeros((rows.num_rows, self.dimensions), dtype=np.float32)
        made[:, : self.used] = np.concatenate(parts, axis=1)
        return made


def _coordinates(spread: Spread) -> Floats:
    """Return what each group of a feature has as coordinates: (groups, coordinates)."""
    counts, weight = _counts(spread), _weight(spread)
    if spread.values is not None:
        shares = counts / max(1.0, counts.sum())
        # So that two decisions differ on average as much as they do by a standardised number of this weight.
        apart = 1.0 - float(np.sum(shares**2))
        used = np.flatnonzero(counts)
        table = np.zeros((len(counts), len(used)))
        table[used, np.arange(len(used))] = weight / np.sqrt(apart) if apart > 0 else 0.0
        return table
    known, missing = counts[:-1], counts[-1]
    ranks = (np.cumsum(known) - known / 2) / max(1.0, known.sum())
    mean = float(np.average(ranks, weights=known)) if known.sum() else 0.0
    spread_of = float(np.sqrt(np.average((ranks - mean) ** 2, weights=known))) if known.sum() else 0.0
    table = np.zeros((len(counts), 2 if missing else 1))
    table[:-1, 0] = weight * (ranks - mean) / spread_of if spread_of else 0.0
    if missing:
        table[-1, 1] = weight
    return table


def _weight(spread: Spread) -> float:
    """Return the standard deviation of the mean log-odds of a feature's groups over the decisions."""
    counts, levels = _counts(spread), np.asarray(spread.levels)
    if not counts.sum():
        return 0.0
    mean = np.average(levels, weights=counts)
    return float(np.sqrt(np.average((levels - mean) ** 2, weights=counts)))


def _counts(spread: Spread) -> Floats:
    counts: Floats = np.sum([np.asarray(of_slot, dtype=np.float64) for of_slot in spread.counts.values()], axis=0)
    return counts
