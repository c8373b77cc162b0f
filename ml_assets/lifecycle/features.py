"""Curated events to features, and matured outcomes to labels.

Features are made in three steps: `due_of` says what is due, a `FeatureMaker` makes the rows and writes only parts of
daily tables, and `write_features` writes them. `lifecycle.backfill` can take the second step elsewhere.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import Self

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import TIMESTAMP
from ml_assets.errors import InputError
from ml_assets.features import (
    KEYS_SCHEMA,
    LABELS_SCHEMA,
    AsOfDatabase,
    DailyParts,
    columns_read,
    features_schema,
)
from ml_assets.features.days import day_end, day_start
from ml_assets.features.sound import calendars_of, lacking
from ml_assets.lake import (
    Batches,
    Lake,
    curated_table,
    features_table,
    in_turn,
    labels_table,
    reference_table,
    source_tables,
)
from ml_assets.lake.counts import counts_by
from ml_assets.lake.opened import FEW_AT_ONCE
from ml_assets.landing.extent import TopicProgress, least
from ml_assets.landing.schemas import COORDINATES
from ml_assets.lifecycle.daily import CLOCKS_AHEAD, KeptDays, PartInputs, keep_parts, look_for_parts
from ml_assets.lifecycle.decided import note_decided
from ml_assets.lifecycle.horizons import Horizons, Outcome, dates_of, horizons_of, known_time
from ml_assets.lifecycle.waiting import (
    NotIngested,
    all_progress,
    daily_progress,
    is_mature,
    label_progress,
    not_ingested,
    reached,
    what_is_stale,
)
from ml_assets.spec import DecisionTime, UseCase

# When a decision was to be made, of which entity, and why it was not.
Refused = tuple[datetime, str, str]


@dataclass(frozen=True, slots=True)
class DecisionReport:
    """What was written: rows in all, rows of each date, and the Delta version of the table.

    `landed_until` is up to when all topics have landed, `newest_decision` the last time that was decided at. Left for
    later are `undecided`, the decision times that are yet to come or wait for `slowest`, and `immature`, the outcome
    dates whose events have not landed: `slowest` is the topic that holds them back. `daily_made` are the days of which
    parts of daily tables were made, anew or for the first time. `refused` are the decisions that were left out, with
    the reason; `lacking` counts those that lack what they need, by what.

    Of features, `impossible` decisions were left out since their outcome is known before they are made, or never.
    Of labels, `decisions` are those whose outcome is known on these dates: `labelled`, `waiting` for a topic, or
    `without_outcome`, to which label.sql gives no label. `early` labels are of outcomes that are still open.
    """

    rows: int
    rows_by_date: dict[date, int]
    version: int
    landed_until: datetime | None = None
    newest_decision: datetime | None = None
    undecided: tuple[DecisionTime, ...] = ()
    immature: tuple[date, ...] = ()
    daily_made: tuple[date, ...] = ()
    refused: tuple[Refused, ...] = ()
    lacking: Mapping[str, int] = field(default_factory=dict)
    slowest: str = ""
    impossible: int = 0
    decisions: int = 0
    labelled: int = 0
    waiting: int = 0
    without_outcome: int = 0
    early: int = 0


def compute_features(
    lake: Lake,
    usecase: UseCase,
    dates: Sequence[date],
    *,
    until: datetime | None = None,
    threads: int = 0,
    progress: Callable[[date], None] = lambda _: None,
) -> DecisionReport:
    """Make the feature partitions of these decision dates, each as of its own decision times.

    Decision times after `until` (usually now) are left for later: what will be known then is not known yet. So are
    those of which a daily table would count as an outcome what has not landed.

    Raises:
        ValueError: the SQL fails, or no decision of a date can ever be labelled.
        PartitionBusyError: other runs made some of the dates each time while this one did; they have seen more.
    """
    return in_turn(
        lambda: _compute_features(lake, usecase, dates, until, threads, progress),
        f"{features_table(usecase)}, {min(dates)} to {max(dates)}",
    )


def _compute_features(
    lake: Lake,
    usecase: UseCase,
    dates: Sequence[date],
    until: datetime | None,
    threads: int,
    progress: Callable[[date], None],
) -> DecisionReport:
    due = due_of(lake, usecase, dates, until=until)
    made, parts = [], [features_schema(usecase.features).empty_table()]
    with FeatureMaker(lake, usecase, due, threads=threads) as maker:
        daily_made = maker.keep_daily()  # at once: a run of other dates beside this one need not make them too
        for day in dates:
            said, rows = maker.make(day)
            made.append(said)
            parts.append(rows)
            progress(day)
    return write_features(lake, usecase, due, made, pa.concat_tables(parts), daily_made=daily_made)


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be made of some dates: the decision times of each that are due, and the versions of what they see.

    `since` is where the features stood before: rows that are made of this replace nothing that came later. `undecided`
    are the times that are left for later. `waits_for` is the topic that holds some of them back, if one does.
    """

    times: Mapping[date, tuple[DecisionTime, ...]]
    versions: Mapping[str, int]
    since: int
    undecided: tuple[DecisionTime, ...] = ()
    waits_for: str = ""

    def of(self, dates: Iterable[date]) -> "Due":
        """Return what is to be made of some of the dates."""
        return Due({day: self.times[day] for day in dates}, self.versions, self.since)


def due_of(lake: Lake, usecase: UseCase, dates: Iterable[date], *, until: datetime | None = None) -> Due:
    """Return what is to be made of these decision dates as the lake is now, of decision times up to `until`."""
    since = lake.stand(features_table(usecase))
    held_back = daily_progress(lake, usecase) if usecase.daily else None
    times: dict[date, tuple[DecisionTime, ...]] = {}
    undecided: list[DecisionTime] = []
    waits = False
    for day in dates:
        due = [decision for decision in usecase.decision_times(day) if until is None or decision.as_of <= until]
        if due and not reached(held_back, day_start(day)):
            due, waits = [], True
        undecided += [decision for decision in usecase.decision_times(day) if decision not in due]
        times[day] = tuple(due)
    versions = lake.versions(source_tables(usecase))
    return Due(times, versions, since, tuple(undecided), str(held_back) if waits else "")


class MadeDate(msgspec.Struct, frozen=True):
    """What is to be said of the rows of a date; `refused` and `impossible` are the decisions that were left out.

    The features of a `refused` one are unsound; the outcome of an `impossible` one can never be known in time.
    """

    day: date
    rows: int
    refused: tuple[Refused, ...] = ()
    impossible: tuple[Refused, ...] = ()
    lacking: dict[str, int] = {}


class FeatureMaker:
    """Makes the rows of dates that are due, in this process, from the lake as it stood at the versions of `due`.

    It takes the parts of daily tables that the lake keeps and makes those that it lacks; only `keep_daily` writes.
    """

    def __init__(self, lake: Lake, usecase: UseCase, due: Due, *, threads: int = 0) -> None:
        self._lake, self._usecase, self._due, self._threads = lake, usecase, due, threads
        self._kept = KeptDays(DailyParts())
        if usecase.daily:
            self._inputs = PartInputs(lake, usecase, due.versions)
            self._kept = look_for_parts(lake, usecase, self._inputs, list(due.times))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "_history" in vars(self):
            self._history.__exit__(kind, error, trace)

    @cached_property
    def _history(self) -> AsOfDatabase:
        due, missing = self._due, self._kept.missing
        history = open_history(
            self._lake, self._usecase, min([*due.times, *missing]), max(due.times),
            daily=self._kept.parts, versions=due.versions, threads=self._threads,
        )  # fmt: skip
        try:
            history.make_daily(missing)
        except BaseException:
            history.__exit__(None, None, None)
            raise
        return history

    def make(self, day: date) -> tuple[MadeDate, pa.Table]:
        """Return the rows of a date, in `features_schema`, and what is to be said of them.

        Raises:
            ValueError: the SQL fails, or no decision of the date can ever be labelled.
        """
        times = self._due.times[day]
        rows, impossible = _without_impossible(self._usecase, day, self._history.features_at(times))
        moments = {decision.as_of for decision in times}
        refused = tuple(one for one in self._history.refused if one[0] in moments)
        return MadeDate(day, rows.num_rows, refused, tuple(impossible), lacking(self._usecase, rows)), rows

    def keep_daily(self) -> tuple[date, ...]:
        """Write the parts of daily tables that the lake lacked, and return their days.

        Raises:
            ValueError: the SQL of a daily table fails.
        """
        if self._kept.missing or any(self._kept.origins.values()):
            keep_parts(self._lake, self._usecase, self._inputs, self._kept, self._history)
        return self._kept.missing


def write_features(
    lake: Lake,
    usecase: UseCase,
    due: Due,
    made: Sequence[MadeDate],
    rows: pa.Table | Batches,
    *,
    daily_made: tuple[date, ...] = (),
) -> DecisionReport:
    """Replace the feature partitions of the dates that were made by their rows, and note what they were made from.

    Raises:
        CommitFailedError: some of the dates have been made by somebody else since they were looked at (`Due.since`).
    """
    dates = [one.day for one in made]
    version = lake.replace(features_table(usecase), rows, "decision_date", dates, since=due.since)
    decided = [decision for day in dates for decision in due.times[day]]
    # After the features: a decision time that is noted as decided has all its rows there.
    note_decided(lake, usecase, dates, decided, features=version, made_from=due.versions)
    slowest = least(all_progress(lake, [usecase]).values())
    lacks = Counter[str]()
    for one in made:
        lacks.update(one.lacking)
    impossible = [each for one in made for each in one.impossible]
    return DecisionReport(
        sum(one.rows for one in made),
        {one.day: one.rows for one in sorted(made, key=lambda one: one.day) if one.rows},
        version,
        landed_until=slowest.until if slowest else None,
        newest_decision=max((decision.as_of for decision in decided), default=None),
        undecided=due.undecided,
        daily_made=daily_made,
        refused=(*sorted(each for one in made for each in one.refused), *impossible),
        lacking=dict(lacks),
        slowest=due.waits_for or str(slowest),
        impossible=len(impossible),
    )


def mature_labels(lake: Lake, usecase: UseCase, known_dates: Sequence[date], *, threads: int = 0) -> DecisionReport:
    """Make the label partitions of these dates: the outcomes that became known on them.

    An outcome is left for later while the topics that the label waits for have not landed up to the time at which it is
    known: judged too early, every trade would have failed. An outcome that label.sql says became known before its
    horizon is over is written to the date on which it did.

    Raises:
        PartitionBusyError: other runs made some of the dates each time while this one did; they have seen more.
    """
    what = f"{labels_table(usecase)}, {min(known_dates)} to {max(known_dates)}"
    return in_turn(lambda: _mature_labels(lake, usecase, known_dates, threads), what)


def _mature_labels(lake: Lake, usecase: UseCase, known_dates: Sequence[date], threads: int) -> DecisionReport:
    before = lake.stand(labels_table(usecase))
    slowest = label_progress(lake, usecase)
    horizons = horizons_of(lake, usecase)
    outcomes = [(known, outcome) for known in known_dates for outcome in horizons.known_on(known)]
    stale = not_ingested(lake, usecase)
    mature = [(known, outcome) for known, outcome in outcomes if is_mature(horizons, slowest, stale, outcome)]
    schema = LABELS_SCHEMA.append(pa.field("known_date", pa.date32(), nullable=False))
    parts = [schema.empty_table()]
    decided = labelled = early = 0
    still_open = [(known, outcome) for known in known_dates for outcome in horizons.open_on(known)]
    immature = [outcome for known, outcome in outcomes if (known, outcome) not in mature]
    waiting = sum(decisions_about(lake, usecase, outcome, horizons).num_rows for outcome in immature)
    lacks: dict[str, int] = {}
    if mature or still_open:
        first = min(outcome.date for _, outcome in [*mature, *still_open])
        with open_history(lake, usecase, first, max(known_dates), threads=threads) as history:
            tells_when = history.label_tells_when
            for known_date, outcome in mature:
                decisions = decisions_about(lake, usecase, outcome, horizons)
                if not decisions.num_rows:
                    continue
                rows = history.labels(outcome.date, decisions, calendar=BusinessCalendar(outcome.markets[0]))
                decided += decisions.num_rows
                labelled += rows.num_rows
                for what, count in lacking(usecase, _without(decisions, rows)).items():
                    lacks[what] = lacks.get(what, 0) + count
                # What became known before has its place on the day on which it did.
                rows = _known_from(rows, day_start(known_date)) if tells_when else rows
                parts.append(_on(rows, known_date, schema))
            for known_date, outcome in still_open if tells_when else ():
                decisions = decisions_about(lake, usecase, outcome, horizons)
                rows = history.labels(outcome.date, decisions, by=day_end(known_date))
                rows = _known_from(rows, day_start(known_date))
                early += rows.num_rows
                parts.append(_on(rows, known_date, schema))
    labels = pa.concat_tables(parts)
    # Known before the decision: there was nothing to decide.
    labels = labels.filter(pc.greater(labels["label_known_at"], labels["decision_time"]))
    version = lake.replace(labels_table(usecase), labels, "known_date", known_dates, since=before)
    return DecisionReport(
        labels.num_rows,
        counts_by(labels, "known_date"),
        version,
        landed_until=slowest.until,
        immature=tuple(dates_of(immature)),
        lacking=lacks,
        slowest=_why(slowest, stale, usecase, horizons, immature),
        decisions=decided + waiting,
        labelled=labelled,
        waiting=waiting,
        without_outcome=decided - labelled,
        early=early,
    )


def _without_impossible(usecase: UseCase, day: date, features: pa.Table) -> tuple[pa.Table, list[Refused]]:
    """Return the decisions of a date that can be labelled once, and the others with the reason.

    Raises:
        ValueError: none can, or the time at which an outcome is known has no time zone.
    """
    days = features["outcome_date"].unique().to_pylist()
    ends = {(day, one): known_time(usecase, day, one) for day in days for one in usecase.calendars}
    alike = all(ends[day, one] == ends[day, usecase.calendar] for day, one in ends)
    calendars = [usecase.calendar] * features.num_rows if alike else calendars_of(usecase, features["attributes"])
    known = pa.array(
        [ends[each] for each in zip(features["outcome_date"].to_pylist(), calendars, strict=True)], TIMESTAMP
    )
    possible = pc.fill_null(pc.greater(known, features["decision_time"]), False)
    rest = features.append_column("end", known).filter(pc.invert(possible))
    never = []
    for row in rest.select(["entity_id", "decision_time", "outcome_date", "end"]).to_pylist():
        end = row["end"]
        when = f"known {end:%Y-%m-%d %H:%M}, before the decision" if end else "beyond the calendar"
        never.append((row["decision_time"], row["entity_id"], f"its outcome date {row['outcome_date']} is {when}"))
    if never and len(never) == features.num_rows:
        at, entity, why = never[0]
        raise InputError(
            f"use case {usecase.name}: no decision of {day} can ever be labelled, for example {entity!r}, decided "
            f"{at:%Y-%m-%d %H:%M}: {why}. decisions.sql must give an outcome_date whose LabelSpec.known_at comes after "
            "the decision"
        )
    return features.filter(possible), never


def open_history(
    lake: Lake,
    usecase: UseCase,
    first: date,
    last: date,
    *,
    daily: DailyParts | None = None,
    versions: Mapping[str, int] | None = None,
    threads: int = 0,
) -> AsOfDatabase:
    """Return the curated history that decisions from `first` to `last` can look back on, besides the kept parts.

    Features, labels, audit and lineage all see it through this. With `versions` the tables are read as they stood at
    these versions; one that is not among them was not there.
    """

    def rows_of(name: str) -> ds.Dataset | None:
        if versions is None:
            return lake.dataset(name)
        return lake.dataset(name, versions[name]) if name in versions else None

    events: dict[str, ds.Scanner] = {}
    for event in usecase.events:
        dataset = rows_of(curated_table(usecase, event))
        if dataset is not None:
            wanted = in_reach(event.history, first, last)
            # Only what the SQL can need, of the days that it looks back on: a day costs the same after years.
            there = set(dataset.schema.names)
            columns = [name for name in columns_read(usecase, event) if name in there or name not in COORDINATES.names]
            events[event.name] = dataset.scanner(columns=columns, filter=wanted, **FEW_AT_ONCE)
    return AsOfDatabase(usecase, events, references_of(usecase, rows_of), daily=daily, threads=threads)


def references_of(usecase: UseCase, rows_of: Callable[[str], ds.Dataset | None]) -> dict[str, ds.Dataset]:
    """Return the reference tables that are there, by the names that the SQL has for them; `rows_of` reads a table."""
    found = ((reference.name, rows_of(reference_table(usecase, reference))) for reference in usecase.references)
    return {name: rows for name, rows in found if rows is not None}


def in_reach(history: timedelta, first: date, last: date) -> ds.Expression:
    """Return the condition that decisions from `first` to `last` can see a row: by its business date."""
    day = ds.field("business_date")
    # Where a clock runs ahead, what was known in time has a later business date.
    return (day >= first - history) & (day <= last + CLOCKS_AHEAD)


def _why(
    slowest: TopicProgress, stale: NotIngested, usecase: UseCase, horizons: Horizons, immature: Sequence[Outcome]
) -> str:
    """Return what outcomes wait for, in words."""
    for outcome in immature:
        if reached(slowest, horizons.known_at[outcome]):
            return what_is_stale(usecase, horizons, stale, outcome)
    return str(slowest)


def decisions_about(lake: Lake, usecase: UseCase, outcome: Outcome, horizons: Horizons) -> pa.Table:
    """Return the keys of the decisions about an outcome, those at the places of its calendars."""
    dataset = lake.dataset(features_table(usecase))
    if dataset is None:
        return KEYS_SCHEMA.empty_table()
    days = [day for day, outcomes in horizons.by_decision.items() if outcome.date in outcomes]
    decided = ds.field("decision_date").isin(pa.array(days, pa.date32()))
    rows = dataset.to_table(columns=KEYS_SCHEMA.names, filter=decided & (ds.field("outcome_date") == outcome.date))
    if len(outcome.markets) == len(usecase.calendars):
        return rows
    mine = [calendar.market in outcome.markets for calendar in calendars_of(usecase, rows["attributes"])]
    return rows.filter(pa.array(mine, pa.bool_()))


def _without(decisions: pa.Table, labels: pa.Table) -> pa.Table:
    """Return the decisions that have no label."""
    keys = ["entity_id", "decision_time"]
    absent = decisions.select(keys).join(labels.select(keys), keys=keys, join_type="left anti")
    return absent.join(decisions.select([*keys, "outcome_date", "attributes"]), keys=keys)


def _known_from(labels: pa.Table, moment: datetime) -> pa.Table:
    return labels.filter(pc.greater_equal(labels["label_known_at"], pa.scalar(moment, TIMESTAMP)))


def _on(labels: pa.Table, known_date: date, schema: pa.Schema) -> pa.Table:
    return labels.append_column(schema.field("known_date"), pa.array([known_date] * labels.num_rows, pa.date32()))
