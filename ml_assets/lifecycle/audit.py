"""Is the training set what was known? Features made again from history that is cut by hand, and too good features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import AsOfDatabase, features_schema
from ml_assets.lake import Lake, curated_table, reference_table
from ml_assets.learning.leaks import single_feature_auc
from ml_assets.learning.training_set import part_of
from ml_assets.lifecycle.training import read_training_set
from ml_assets.spec import DecisionTime, UseCase

# Decision times of a training set that are made again.
_AUDITED = 2
# Clocks of sources and of the broker differ by this much.
_CLOCK_TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True)
class LeakReport:
    """What an audit of a training set found.

    `differing` counts, by feature, the audited decisions whose stored value is not the one that what was known gives.
    `known_too_early` counts, by event, the curated rows of the audited days that were known before they happened.
    `auc` is what each feature alone achieves on the train part, best first; above `limit` it is suspect.
    """

    audited: tuple[datetime, ...]
    decisions: int
    differing: Mapping[str, int] = field(default_factory=dict)
    missing: int = 0
    known_too_early: Mapping[str, int] = field(default_factory=dict)
    auc: Mapping[str, float] = field(default_factory=dict)
    limit: float = 1.0

    @property
    def suspects(self) -> dict[str, float]:
        """Features that rank outcomes too well to be true."""
        return {name: auc for name, auc in self.auc.items() if auc > self.limit}

    @property
    def passed(self) -> bool:
        """Whether nothing speaks for a leak; an audit that looked at nothing has not passed."""
        nothing_found = not (self.differing or self.missing or self.known_too_early or self.suspects)
        return self.decisions > 0 and nothing_found


def audit_training_set(lake: Lake, usecase: UseCase, training_date: date, *, threads: int = 0) -> LeakReport:
    """Audit the training set of a date: some of its decision times are made again from what was known by then.

    The history is cut by a filter on `known_at` before the feature SQL sees it. The views of `AsOfDatabase` do the
    same, so what differs was made by other code, from other data, or by SQL that found a way around them.

    Raises:
        LookupError: there is no training set.
    """
    rows = read_training_set(lake, usecase, training_date)
    audited = _choose(rows)
    differing: dict[str, int] = {}
    known_too_early: dict[str, int] = {}
    decisions = missing = 0
    for decision in audited:
        stored = rows.filter(pc.equal(rows["decision_time"], pa.scalar(decision.as_of, TIMESTAMP)))
        events, references, early = _known_by(lake, usecase, decision)
        for name, count in early.items():
            known_too_early[name] = known_too_early.get(name, 0) + count
        with AsOfDatabase(usecase, events, references, threads=threads) as history:
            made = history.features(decision)
        decisions += stored.num_rows
        found, absent = compare_features(usecase, stored, made)
        missing += absent
        for name, count in found.items():
            differing[name] = differing.get(name, 0) + count
    auc = single_feature_auc(usecase.features, part_of(rows, "train"))
    return LeakReport(
        audited=tuple(decision.as_of for decision in audited),
        decisions=decisions,
        differing=differing,
        missing=missing,
        known_too_early=known_too_early,
        auc={str(name): float(value) for name, value in auc.items()},
        limit=usecase.gate.max_feature_auc,
    )


def compare_features(usecase: UseCase, stored: pa.Table, made: pa.Table) -> tuple[dict[str, int], int]:
    """Return, by feature, how many stored decisions have another value than those made anew, and how many are not made.

    Decisions that are made but not stored say nothing: they may have no label.
    """
    names = [field.name for field in features_schema(usecase.features) if field.name not in _NOT_COMPARED]
    again = made.select(["entity_id", *names]).rename_columns(["entity_id", *(f"again_{name}" for name in names)])
    both = stored.select(["entity_id", *names]).join(again, keys="entity_id", join_type="inner")
    counts = {name: _unequal(both[name], both[f"again_{name}"]) for name in names}
    return {name: count for name, count in counts.items() if count}, stored.num_rows - both.num_rows


_NOT_COMPARED = frozenset({"entity_id", "decision_time", "decision_date", "slot", "attributes"})


def _unequal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> int:
    if pa.types.is_floating(one.type):
        a, b = one.to_numpy(), other.to_numpy()
        return int((~np.isclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)).sum())
    equal = pc.or_(pc.fill_null(pc.equal(one, other), False), pc.and_(pc.is_null(one), pc.is_null(other)))
    return int(pc.sum(pc.invert(equal)).as_py() or 0)


def _choose(rows: pa.Table) -> Sequence[DecisionTime]:
    """Return decision times of the second half of the training set, evenly spread, the last one included."""
    distinct = rows.group_by(["decision_time", "slot"]).aggregate([]).to_pylist()
    times = sorted((row["decision_time"], row["slot"]) for row in distinct)
    at = np.unique(np.linspace(len(times) // 2, len(times) - 1, min(_AUDITED, len(times))).astype(int))
    return [DecisionTime(times[i][1], times[i][0].astimezone(UTC)) for i in at]


def _known_by(
    lake: Lake, usecase: UseCase, decision: DecisionTime
) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    """Return events and references that were known by a decision, and how many of the events were so too early."""
    known = ds.field("known_at") <= pa.scalar(decision.as_of, TIMESTAMP)
    events: dict[str, Any] = {}
    early: dict[str, int] = {}
    for event in usecase.events:
        dataset = lake.dataset(curated_table(usecase, event))
        if dataset is None:
            continue
        recent = ds.field("business_date") >= decision.decision_date - usecase.look_back(event)
        rows = events[event.name] = dataset.to_table(filter=known & recent)
        ahead = pc.subtract(rows["event_time"], rows["known_at"])
        tolerance = pa.scalar(_CLOCK_TOLERANCE, pa.duration("us"))
        if count := int(pc.sum(pc.greater(ahead, tolerance)).as_py() or 0):
            early[event.name] = count
    references = {}
    for reference in usecase.references:
        dataset = lake.dataset(reference_table(usecase, reference))
        if dataset is not None:
            references[reference.name] = dataset.to_table(filter=known)
    return events, references, early
