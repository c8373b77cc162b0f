"""Was the training set known in time? Features are computed again without the future; too good features are refused."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import DailyParts, daily_days, features_schema
from ml_assets.features.days import day_end
from ml_assets.lake import Lake, curated_table
from ml_assets.learning.leaks import Settled, TellingValue, settled_when_decided, single_feature_auc, telling_values
from ml_assets.learning.training_set import part_of
from ml_assets.lifecycle.features import in_reach, open_history
from ml_assets.lifecycle.training import read_training_set
from ml_assets.spec import DecisionTime, UseCase


@dataclass(frozen=True)
class LeakReport:
    """What an audit of a training set found.

    `differing` counts, by feature, the audited decisions whose stored value is not the one that what was known gives.
    `known_too_early` counts, by event, the curated rows of the audited days that were known before they happened.
    `auc` is what each feature alone achieves on the train part, best first; above `limit` it is suspect.
    `settled` is how many positives had happened when they were decided, `max_settled` the share of them that may.
    `telling` are values that alone tell the outcome in the train part: they are pointed out and not refused.
    """

    audited: tuple[datetime, ...]
    decisions: int
    differing: Mapping[str, int] = field(default_factory=dict)
    missing: int = 0
    known_too_early: Mapping[str, int] = field(default_factory=dict)
    auc: Mapping[str, float] = field(default_factory=dict)
    limit: float = 1.0
    settled: Settled = field(default_factory=Settled)
    max_settled: float = 1.0
    telling: Sequence[TellingValue] = ()

    @property
    def suspects(self) -> dict[str, float]:
        """Features that rank outcomes too well to be true."""
        return {name: auc for name, auc in self.auc.items() if auc > self.limit}

    @property
    def passed(self) -> bool:
        """Whether nothing suggests a leak; an audit that looked at nothing has not passed."""
        nothing_found = not (self.differing or self.missing or self.known_too_early or self.suspects)
        return self.decisions > 0 and nothing_found and not self.came_before

    @property
    def came_before(self) -> bool:
        """Whether too many outcomes had happened before their decision."""
        return self.settled.share > self.max_settled


def audit_training_set(lake: Lake, usecase: UseCase, training_date: date, *, threads: int = 0) -> LeakReport:
    """Audit the training set of a date: all its decision times are made again from what was known by then.

    Going back from the newest, all that became known after a decision time is deleted before its SQL is run, so the
    future is not there to be read. What differs was made by other code, from other data, or by SQL that found a way
    around the views of `AsOfDatabase`.

    Raises:
        LookupError: there is no training set.
    """
    rows = read_training_set(lake, usecase, training_date, for_models=True)
    decisions = _decision_times(rows)
    differing: dict[str, int] = {}
    missing = 0
    early = []
    for decision, made, outcomes in _made_of_the_past(lake, usecase, decisions, threads):
        stored = rows.filter(pc.equal(rows["decision_time"], pa.scalar(decision.as_of, TIMESTAMP)))
        found, absent = compare_features(usecase, stored, made)
        missing += absent
        early.append(beside(outcomes, made, stored))
        for name, count in found.items():
            differing[name] = differing.get(name, 0) + count
    train = part_of(rows, "train")
    auc = single_feature_auc(usecase.features, train)
    return LeakReport(
        audited=tuple(decision.as_of for decision in decisions),
        decisions=rows.num_rows,
        differing=differing,
        missing=missing,
        known_too_early=_known_too_early(lake, usecase, decisions),
        auc={str(name): float(value) for name, value in auc.items()},
        limit=usecase.gate.max_feature_auc,
        settled=settled_when_decided(pa.concat_tables(early)),
        max_settled=usecase.gate.max_settled,
        telling=telling_values(usecase.features, train),
    )


def _made_of_the_past(
    lake: Lake, usecase: UseCase, decisions: Sequence[DecisionTime], threads: int
) -> Iterator[tuple[DecisionTime, pa.Table, pa.Table]]:
    """Yield the features of each decision time, the newest first, and the outcomes that label.sql sees by then.

    Both are made while nothing newer is there.
    """
    first, last = decisions[0].decision_date, decisions[-1].decision_date
    parts = []
    if usecase.daily:
        days = daily_days(usecase, [decision.decision_date for decision in decisions])
        with open_history(lake, usecase, min(days), last, threads=threads) as history:
            for day in reversed(days):
                history.forget_after(day_end(day))
                history.make_daily([day])
                parts.append(history.daily_parts([day]))
    kept = DailyParts(
        frozenset().union(*(part.days for part in parts)),
        {table.name: pa.concat_tables(part.tables[table.name] for part in parts) for table in usecase.daily},
    )
    with open_history(lake, usecase, first, last, daily=kept, threads=threads) as history:
        for decision in reversed(decisions):
            history.forget_after(decision.as_of)
            made = history.features(decision)
            yield decision, made, history.outcomes_at(decision, made)


def beside(outcomes: pa.Table, made: pa.Table, stored: pa.Table) -> pa.Table:
    """Return the decisions of a time for `settled_when_decided`: what their outcome was by then, and in the end.

    Decisions of one slot that look as many days ahead are alike.
    """
    ahead = pc.subtract(made["outcome_date"].cast(pa.int32()), made["decision_date"].cast(pa.int32()))
    alike = pc.binary_join_element_wise(made["slot"], ahead.cast(pa.string()), " ")
    rows = made.select(["entity_id"]).append_column("group", alike)
    for known in (outcomes, stored.select(["entity_id", "label"])):
        rows = rows.join(known, keys="entity_id", join_type="left outer")
    return rows.select(["group", "early", "dated", "label"])


def compare_features(usecase: UseCase, stored: pa.Table, made: pa.Table) -> tuple[dict[str, int], int]:
    """Return, by feature, how many stored decisions differ from those computed again, and how many are missing there.

    Decisions that are made but not stored say nothing: they may have no label.
    """
    names = [field.name for field in features_schema(usecase.features) if field.name not in _NOT_COMPARED]
    again = made.select(["entity_id", *names]).rename_columns(["entity_id", *(f"again_{name}" for name in names)])
    # Arrow joins no columns of codes whose dictionaries differ.
    ours = stored.select(["entity_id", *names])
    texts = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in ours.schema]
    both = ours.cast(pa.schema(texts)).join(again, keys="entity_id", join_type="inner")
    counts = {name: _unequal(both[name], both[f"again_{name}"]) for name in names}
    return {name: count for name, count in counts.items() if count}, stored.num_rows - both.num_rows


_NOT_COMPARED = frozenset({"entity_id", "decision_time", "decision_date", "slot", "attributes"})


def _unequal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> int:
    if pa.types.is_floating(one.type):
        # What is compared as models read it may be rounded to either side.
        close = 1e-9 if one.type == pa.float64() else 1e-6
        with np.errstate(over="ignore"):
            a, b = one.to_numpy(), other.cast(one.type, safe=False).to_numpy()
        return int((~np.isclose(a, b, rtol=close, atol=1e-9, equal_nan=True)).sum())
    equal = pc.or_(pc.fill_null(pc.equal(one, other), False), pc.and_(pc.is_null(one), pc.is_null(other)))
    return int(pc.sum(pc.invert(equal)).as_py() or 0)


def _decision_times(rows: pa.Table) -> Sequence[DecisionTime]:
    distinct = rows.group_by(["decision_time", "slot"]).aggregate([]).to_pylist()
    times = sorted((row["decision_time"], row["slot"]) for row in distinct)
    return [DecisionTime(slot, time.astimezone(UTC)) for time, slot in times]


def _known_too_early(lake: Lake, usecase: UseCase, decisions: Sequence[DecisionTime]) -> dict[str, int]:
    """Return how many of the events that the decisions can see were known before they happened, by event."""
    found: dict[str, int] = {}
    for event in usecase.events:
        dataset = lake.dataset(curated_table(usecase, event))
        if dataset is None:
            continue
        known = ds.field("known_at") <= pa.scalar(decisions[-1].as_of, TIMESTAMP)
        seen = in_reach(usecase.look_back(event), decisions[0].decision_date, decisions[-1].decision_date)
        rows = dataset.to_table(columns=["event_time", "known_at"], filter=known & seen)
        ahead = pc.subtract(rows["event_time"], rows["known_at"])
        tolerance = pa.scalar(event.clock_tolerance, pa.duration("us"))
        if count := int(pc.sum(pc.greater(ahead, tolerance)).as_py() or 0):
            found[event.name] = count
    return found
