"""Feature SQL as of a time.

The SQL of a use case names its events as tables. Each such table is a view that ends at the as-of time, so a
feature cannot see what was not yet known. The views guarantee this; it does not depend on the care of whoever
writes the SQL. A file is one SELECT. DuckDB's parser tells what it reads, and everything that is not on this list,
such as files, is refused (`features.sql`). The tables below the views have names that no file can know. The SQL may use

- a table for each event and each reference of the use case; a reference shows the version in force of each key, and so
  does an event whose key is not `event_id`: the version published last. `<event>_versions` shows all of them;
- `business_days(business_date, previous, next)` of the use case's calendar, and with `UseCase.places`
  `place_days(place, business_date, previous, next)`: those of each place that an event known by then names;
- a table for each daily table of the use case: the rows that its SQL gave for each day, with the day as `known_date`;
- `decisions` (in all files but decisions.sql): the entities decided at this time;
- `getvariable('as_of')` (TIMESTAMPTZ), `getvariable('decision_date')` (DATE), `getvariable('slot')` (VARCHAR).

The SQL of a daily table (`daily/*.sql`) is run once for each weekday, as of its end, and once more for the day of the
decision, as of the decision. It sees events and references in the same views, and `getvariable('day_start')`
(TIMESTAMPTZ): it should give what became known from then on. So the part of a day that is over never changes and can be
kept, and still nothing is seen that was not known. Windows over months then read only a few rows per day.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from itertools import groupby
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import TIMESTAMP, arrow_schema
from ml_assets.duck import as_stream, in_words, open_duckdb
from ml_assets.errors import InputError
from ml_assets.features.changes import Changes
from ml_assets.features.days import day_end, day_of, weekdays
from ml_assets.features.session import Session
from ml_assets.features.sql import VARIABLES, use_of
from ml_assets.features.tables import KEYS_SCHEMA, LABELS_SCHEMA, features_schema, label_events
from ml_assets.features.versions import all_versions, number_versions, numbered_columns, seen_rows
from ml_assets.features.what_if import WhatIf
from ml_assets.spec import DecisionTime, EventSpec, UseCase

if TYPE_CHECKING:
    import pyarrow.dataset as ds

# Times and sets of events for which questions of `what_if` are kept ready: the newest two tables', of a few sets.
_WHAT_IFS = 6


@dataclass(frozen=True)
class DailyParts:
    """Kept parts of the daily tables: all tables for `days`, each with `known_date`. They need not be made again."""

    days: frozenset[date] = frozenset()
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


class AsOfDatabase:
    """A use case's history in DuckDB, of which a query sees only what was known as of a time.

    `events` and `references` map names to rows (an Arrow table, dataset or scanner) with a column `known_at`, events
    also `business_date`. A missing name is an event of which nothing has been seen yet. The events must reach back
    `usecase.look_back(event)` from the first decision; where `daily` has parts, `event.history` before the first day
    without one, and before the first decision, is enough.
    """

    def __init__(
        self,
        usecase: UseCase,
        events: Mapping[str, pa.Table | ds.Dataset | ds.Scanner],
        references: Mapping[str, pa.Table | ds.Dataset],
        *,
        daily: DailyParts | None = None,
        threads: int = 0,
    ) -> None:
        self._usecase = usecase
        # Which SQL file gives each feature, once features have been made.
        self.sources: dict[str, str] = {}
        refuse_foreign(usecase)
        # What is not cut at the as-of time is in a schema whose name no file can contain: it is made up here.
        self._history = f"history_{secrets.token_hex(8)}"
        self._db = open_duckdb(threads)
        self._db.execute(f"CREATE SCHEMA {self._history}")
        # Copies of the rows of keys that have several.
        self._numbered: list[str] = []
        for event in usecase.events:
            empty = arrow_schema(event.contract).append(pa.field("known_at", TIMESTAMP))
            if "business_date" not in empty.names:
                empty = empty.append(pa.field("business_date", pa.date32()))
            self._load(event.name, events.get(event.name, empty.empty_table()))
            counts = number_versions(self._db, event, self._history)
            self._numbered += [f"numbered_{event.name}"] if counts else []
            counts += self._newest_edition(event)
            columns = numbered_columns(self._db, event, self._history)
            self._db.execute(
                f"CREATE VIEW {event.name} AS SELECT {columns} FROM {self._history}.{event.name} AS {event.name} "
                f"WHERE {seen_rows(event)}{counts}"
            )
            if event.has_versions:
                versions = all_versions(self._db, event, self._history, seen_rows(event))
                self._db.execute(f"CREATE VIEW {event.name}_versions AS {versions}")
        for reference in usecase.references:
            empty = arrow_schema(reference.contract).append(pa.field("known_at", TIMESTAMP))
            self._load(reference.name, references.get(reference.name, empty.empty_table()))
            # All columns, so that there is one order.
            rest = "".join(f', "{name}" DESC' for name in empty.names if name not in {"valid_from", "known_at"})
            self._db.execute(
                f"CREATE VIEW {reference.name} AS SELECT * FROM {self._history}.{reference.name} "
                "WHERE known_at <= getvariable('as_of') AND valid_from <= getvariable('decision_date')::DATE "
                f"QUALIFY row_number() OVER (PARTITION BY {', '.join(reference.key)} "
                f"ORDER BY valid_from DESC, known_at DESC{rest}) = 1"
            )
        self._changes = Changes(self._db.cursor(), usecase, self._history)
        self._sessions = [Session(self._db.cursor(), usecase, self._changes)]
        # Those that were asked last are at the end.
        self._what_ifs: dict[tuple[datetime, date, frozenset[str]], WhatIf] = {}
        self._opening = Lock()
        ((self._threads,),) = self._db.execute("SELECT current_setting('threads')").fetchall()
        self._days = set[date]()
        self._news: dict[date, datetime] = {}
        if usecase.daily_sql:
            self._open_daily(daily or DailyParts())
        self._db.execute("SET enable_external_access = false")
        self._db.execute("SET lock_configuration = true")

    def _load(self, name: str, rows: pa.Table | ds.Dataset | ds.Scanner) -> None:
        self._db.register("incoming", rows if isinstance(rows, pa.Table) else as_stream(rows))
        try:
            self._db.execute(f"CREATE TABLE {self._history}.{name} AS SELECT * FROM incoming")
        except duckdb.OutOfMemoryException as error:
            raise InputError(
                f"use case {self._usecase.name}: the history of {name} is too large: {in_words(error)}"
            ) from error
        self._db.unregister("incoming")

    def _newest_edition(self, event: EventSpec) -> str:
        """Return what leaves out the rows that a newer edition had replaced by then; empty where there is none."""
        if not event.edition:
            return ""
        rows, replaced = f"{self._history}.{event.name}", f"{self._history}.replaced_{event.name}"
        group = ", ".join(event.edition_of)
        self._db.execute(
            f"CREATE TABLE {replaced} AS SELECT {group}, {event.edition}, min(known) OVER (PARTITION BY {group} "
            f"ORDER BY {event.edition} NULLS FIRST ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS replaced_at "
            f"FROM (SELECT {group}, {event.edition}, min(known_at) AS known FROM {rows} GROUP BY ALL) "
            "QUALIFY replaced_at IS NOT NULL"
        )
        same = " AND ".join(
            f"replaced.{name} IS NOT DISTINCT FROM {event.name}.{name}" for name in (*event.edition_of, event.edition)
        )
        if not self._db.execute(f"SELECT 1 FROM {replaced} LIMIT 1").fetchall():
            return ""
        return (
            f" AND NOT EXISTS (SELECT 1 FROM {replaced} AS replaced WHERE {same} "
            "AND replaced.replaced_at <= getvariable('as_of'))"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions:
            session.db.close()
        self._close_what_ifs()
        self._db.close()

    @property
    def refused(self) -> list[tuple[datetime, str, str]]:
        """The decisions that were left out of the features so far: decision time, entity and why; see `sound`."""
        return sorted(each for session in self._sessions for each in session.refused)

    def features(self, decision: DecisionTime) -> pa.Table:
        """Return one row per entity decided at this time, in `features_schema`, sorted by entity_id.

        Raises:
            ValueError: the SQL fails, gives an entity twice, or does not give exactly the declared features.
        """
        return self.features_at([decision])

    def features_at(self, decisions: Sequence[DecisionTime]) -> pa.Table:
        """Return the features of many decision times, one after the other; they are computed on all threads.

        Raises:
            ValueError: as `features`.
        """
        schema = features_schema(self._usecase.features)
        if not decisions:
            return schema.empty_table()
        if self._usecase.daily_sql:
            self.make_daily(
                day for day in daily_days(self._usecase, [d.decision_date for d in decisions]) if day not in self._days
            )
        first, *others = decisions
        parts = [self._features(self._sessions[0], first)]
        self.sources = self.sources or self._sessions[0].sources
        while len(self._sessions) < min(self._threads, len(others)):
            self._sessions.append(Session(self._db.cursor(), self._usecase, self._changes, self.sources))
        if len(self._sessions) == 1 or len(others) < 2:
            parts += [self._features(self._sessions[0], decision) for decision in others]
        else:
            idle = list(self._sessions)

            def make(decision: DecisionTime) -> pa.Table:
                session = idle.pop()
                try:
                    return self._features(session, decision)
                finally:
                    idle.append(session)

            with ThreadPoolExecutor(len(idle)) as pool:
                parts += pool.map(make, others)
        return pa.concat_tables(parts)

    def what_if(
        self, decisions: Sequence[DecisionTime], rows: Mapping[str, pa.Table], entities: Iterable[str]
    ) -> pa.Table:
        """Return the features of entities as they would be if these rows of events, by name, were known too.

        An entity has the row of the first of the decision times that lists it, and none if none does. A row of a key
        that is there is a newer version of it. The history stays as it is, and other threads may ask it meanwhile. What
        compares decisions with each other sees all of them; the daily tables of days that are over must have been made.

        Raises:
            ValueError: as `features`.
        """
        left, parts = set(entities), [features_schema(self._usecase.features).empty_table()]
        for _, group in groupby(decisions, key=lambda one: (one.as_of, one.decision_date)):
            times = list(group)
            parts.append(self._what_if_at(times[0], frozenset(rows)).rows(times, rows, left))
            left -= set(parts[-1]["entity_id"].to_pylist())
        return pa.concat_tables(parts)

    def expect_what_if(self, decisions: Sequence[DecisionTime], asked: Iterable[frozenset[str]]) -> None:
        """Make now what the first question of `what_if` with rows of such sets of events would wait for.

        Raises:
            ValueError: as `features`.
        """
        for events in asked:
            for _, group in groupby(decisions, key=lambda one: (one.as_of, one.decision_date)):
                self._what_if_at(next(group), events)

    def _what_if_at(self, decision: DecisionTime, events: frozenset[str]) -> WhatIf:
        key = (decision.as_of, decision.decision_date, events)
        with self._opening:
            if (found := self._what_ifs.pop(key, None)) is not None:
                self._what_ifs[key] = found
                return found
        # Others are asked meanwhile.
        if not self.sources:
            session = Session(self._db.cursor(), self._usecase, self._changes)
            self._features(session, decision)
            self.sources = session.sources
            session.db.close()
        session = Session(self._db.cursor(), self._usecase, self._changes, self.sources)
        made = WhatIf(session, self._usecase, self._history, decision, events)
        with self._opening:
            self._what_ifs[key] = made
            for oldest in list(self._what_ifs)[:-_WHAT_IFS]:
                del self._what_ifs[oldest]  # whoever asks it still, goes on with it
        return made

    def _close_what_ifs(self) -> None:
        for one in self._what_ifs.values():
            one.close()
        self._what_ifs.clear()

    def decided(self, decision: DecisionTime) -> set[str]:
        """Return the entities that decisions.sql lists at a time; no features are made.

        Raises:
            ValueError: the SQL fails, as where it reads a daily table.
        """
        session = self._sessions[0]
        session.stand_at(decision.as_of, decision.decision_date, decision.slot)
        session.query(
            "decisions", f"CREATE OR REPLACE TEMP TABLE decisions AS ({self._usecase.feature_sql['decisions']}\n)"
        )
        return {entity for (entity,) in session.db.execute("SELECT entity_id FROM decisions").fetchall()}

    def _features(self, session: Session, decision: DecisionTime) -> pa.Table:
        session.stand_at(decision.as_of, decision.decision_date, decision.slot)
        self._make_today(session, decision)
        return session.features(decision)

    def _make_today(self, session: Session, decision: DecisionTime) -> None:
        """Make what the daily tables have of the day of a decision, at which the session stands."""
        day = decision.decision_date
        for table in self._usecase.daily:
            name, sql = table.name, self._usecase.daily_sql[table.name]
            # Nothing has become known today: the day has no part yet, as it would have none if it were over.
            known = self._news.get(day)
            limit = "" if known is not None and known <= decision.as_of else " LIMIT 0"
            session.query(name, f"CREATE OR REPLACE TEMP TABLE today_{name} AS SELECT * FROM ({sql}\n){limit}")
            session.query(
                name,
                f"CREATE OR REPLACE TEMP VIEW {name} AS FROM {self._history}.daily_{name} "
                "WHERE known_date < getvariable('decision_date')::DATE "
                f"AND known_date >= getvariable('decision_date')::DATE - {table.history.days} "
                f"UNION ALL SELECT getvariable('decision_date')::DATE AS known_date, * FROM today_{name}",
            )

    def _open_daily(self, kept: DailyParts) -> None:
        """Make the daily tables from the kept parts, and find the days on which anything became known."""
        session = self._sessions[0]
        session.stand_at(day_end(self._usecase.first_partition), self._usecase.first_partition, "daily")
        for name, sql in self._usecase.daily_sql.items():
            table = f"{self._history}.daily_{name}"
            session.query(
                f"daily/{name}", f"CREATE TABLE {table} AS SELECT NULL::DATE AS known_date, * FROM ({sql}\n) LIMIT 0"
            )
            if name in kept.tables:
                self._db.register("incoming", kept.tables[name])
                self._db.execute(f"INSERT INTO {table} BY NAME FROM incoming")
                self._db.unregister("incoming")
        self._days = set(kept.days)
        for event in self._usecase.events:
            rows = self._db.execute(f"SELECT min(known_at) FROM {self._history}.{event.name} GROUP BY known_at::DATE")
            for (known,) in rows.fetchall():
                day = day_of(known)
                self._news[day] = min(known, self._news.get(day, known))

    def make_daily(self, days: Iterable[date]) -> None:
        """Make the parts of these weekdays from the events of the history.

        Raises:
            ValueError: the SQL of a daily table fails.
        """
        session = self._sessions[0]
        for day in days:
            if day in self._days:
                raise InputError(f"use case {self._usecase.name}: the daily parts of {day} are there already")
            if day in self._news:
                session.stand_at(day_end(day), day, "daily")
                for name, sql in self._usecase.daily_sql.items():
                    into = f"INSERT INTO {self._history}.daily_{name} SELECT getvariable('decision_date')::DATE, * "
                    session.query(f"daily/{name}", f"{into} FROM ({sql}\n)")
            self._days.add(day)

    def columns_of(self, file: SqlFile, decision: DecisionTime) -> tuple[str, ...]:
        """Run one SQL file as of a decision time and return its columns; the files before it must have been run.

        Raises:
            ValueError: it fails.
        """
        session = self._sessions[0]
        session.stand_at(decision.as_of, decision.decision_date, decision.slot)
        folder, _, name = file.name.rpartition("/")
        stem = name.removesuffix(".sql")
        table = stem if stem == "decisions" and folder else f"columns_of_{folder}_{stem}"
        session.query(file.name.removesuffix(".sql"), f"CREATE OR REPLACE TEMP TABLE {table} AS ({file.sql}\n)")
        if folder == "daily":
            today = f"SELECT getvariable('decision_date')::DATE AS known_date, * FROM {table}"
            session.query(stem, f"CREATE OR REPLACE TEMP VIEW {stem} AS {today}")
        return tuple(column for column, *_ in session.db.execute(f"DESCRIBE {table}").fetchall())

    def forget_after(self, moment: datetime) -> None:
        """Delete what became known after a time, for good, and the daily parts of days that were not over.

        Nothing that is made from now on can depend on it.
        """
        names = [event.name for event in self._usecase.events] + [one.name for one in self._usecase.references]
        for name in (*names, *self._numbered):
            self._db.execute(f"DELETE FROM {self._history}.{name} WHERE known_at > ?", [moment])
        for table in self._usecase.daily:
            self._db.execute(f"DELETE FROM {self._history}.daily_{table.name} WHERE known_date >= ?", [day_of(moment)])
        self._days = {day for day in self._days if day < day_of(moment)}
        # What is kept between decision times was made while there was more.
        self._changes = Changes(self._db.cursor(), self._usecase, self._history)
        for session in self._sessions:
            session.db.close()
        self._close_what_ifs()
        self._sessions = [Session(self._db.cursor(), self._usecase, self._changes, self.sources)]

    def daily_parts(self, days: Iterable[date]) -> DailyParts:
        """Return the parts of these days; they must have been made."""
        wanted = frozenset(days)
        if absent := sorted(wanted - self._days):
            raise InputError(f"use case {self._usecase.name}: the daily parts of {absent[0]} have not been made")
        days_sql = ", ".join(f"DATE '{day}'" for day in sorted(wanted)) or "NULL"
        return DailyParts(
            wanted,
            {
                name: self._db.sql(
                    f"FROM {self._history}.daily_{name} WHERE known_date IN ({days_sql}) ORDER BY known_date"
                ).to_arrow_table()
                for name in self._usecase.daily_sql
            },
        )

    def labels(
        self,
        outcome_date: date,
        decisions: pa.Table,
        *,
        calendar: BusinessCalendar | None = None,
        by: datetime | None = None,
    ) -> pa.Table:
        """Return the outcome of each decision that has one, in `LABELS_SCHEMA`.

        `decisions` are the rows of the features table with this `outcome_date`, at places of this `calendar` (by
        default the use case's own). The label SQL sees `decisions`, and what was known at the label's `known_at`. If
        events had been published by then but landed later, it sees what was known when the last of them had landed:
        otherwise every outcome would be missing while a lander is late.

        With `by`, the outcome is still open: the label SQL sees what was known by that time, and only those of its
        rows count that say themselves when they became known.

        Raises:
            ValueError: the SQL fails, gives an entity twice, or says that an outcome becomes known later than it sees.
        """
        known = self._usecase.outcome_known_at(outcome_date, calendar or self._usecase.calendar)
        end = by or self._all_published_by(known, outcome_date)
        session, said = self._ask_label(end, outcome_date, decisions)
        rows: pa.Table = session.db.sql(
            "SELECT entity_id, decision_time, outcome_date, label::TINYINT AS label, "
            f"coalesce({said}, getvariable('as_of')) AS label_known_at "
            "FROM decisions JOIN label_of_decisions USING (entity_id) WHERE label IS NOT NULL "
            f"{'' if by is None else f'AND {said} IS NOT NULL'} "
            "ORDER BY entity_id, decision_time"
        ).to_arrow_table()
        late = rows.filter(pc.greater(rows["label_known_at"], pa.scalar(end, TIMESTAMP)))
        if late.num_rows:
            row = late.slice(0, 1).to_pylist()[0]
            raise InputError(
                f"use case {self._usecase.name}: label.sql says that the outcome of {row['entity_id']!r} became known "
                f"at {row['label_known_at']:%Y-%m-%d %H:%M}, after {end:%Y-%m-%d %H:%M}, up to which it sees; let its "
                "column known_at be that of the event that tells the outcome"
            )
        return rows.cast(LABELS_SCHEMA)

    def outcomes_at(self, decision: DecisionTime, decisions: pa.Table) -> pa.Table:
        """Return the labels that label.sql gives to the decisions of a time as of that same time.

        Columns are entity_id, `early` (the label by then) and `dated`: whether the SQL gives a `known_at` by then. An
        early label that is not dated may only mean that nothing has happened yet: alone it proves little.

        Raises:
            ValueError: the SQL fails, or gives an entity twice.
        """
        parts = [pa.schema([("entity_id", pa.string()), ("early", pa.int8()), ("dated", pa.bool_())]).empty_table()]
        for outcome in decisions["outcome_date"].unique().to_pylist():
            about = decisions.filter(pc.equal(decisions["outcome_date"], pa.scalar(outcome)))
            session, said = self._ask_label(decision.as_of, outcome, about.select(KEYS_SCHEMA.names))
            early: pa.Table = session.db.sql(
                f"SELECT entity_id, label::TINYINT AS early, coalesce({said} <= getvariable('as_of'), false) AS dated "
                "FROM decisions JOIN label_of_decisions USING (entity_id) WHERE label IS NOT NULL"
            ).to_arrow_table()
            parts.append(early.cast(parts[0].schema))
        return pa.concat_tables(parts)

    def _ask_label(self, as_of: datetime, outcome_date: date, decisions: pa.Table) -> tuple[Session, str]:
        """Run label.sql as of a time; return where its table is, and the SQL of when each outcome became known."""
        session = self._sessions[0]
        session.stand_at(as_of, outcome_date, "label")
        session.db.register("labelled", decisions)
        session.db.execute("CREATE OR REPLACE TEMP TABLE decisions AS SELECT * FROM labelled")
        session.db.unregister("labelled")
        session.query("label", f"CREATE OR REPLACE TEMP TABLE label_of_decisions AS ({self._usecase.label_sql}\n)")
        session.refuse_duplicates("label", "label_of_decisions")
        return session, "label_of_decisions.known_at" if _tells_when(session) else "NULL::TIMESTAMPTZ"

    @cached_property
    def label_tells_when(self) -> bool:
        """Whether label.sql gives a column `known_at`: when the outcome of each entity became known."""
        first = self._usecase.first_partition
        session, _ = self._ask_label(day_end(first), first, KEYS_SCHEMA.empty_table())
        return _tells_when(session)

    def _all_published_by(self, moment: datetime, outcome_date: date) -> datetime:
        """Return when everything that the label waits for, published by a time, was known: then, or later."""
        known = [moment]
        for event in label_events(self._usecase):
            table = f"{self._history}.{event.name}"
            if "broker_time" not in {column for column, *_ in self._db.execute(f"DESCRIBE {table}").fetchall()}:
                continue
            first = outcome_date - event.history
            ((latest,),) = self._db.execute(
                f"SELECT max(known_at) FROM {table} WHERE broker_time <= ? AND known_at > ? AND business_date >= ?",
                [moment, moment, first],
            ).fetchall()
            known += [] if latest is None else [latest]
        return max(known).astimezone(UTC)


def _tells_when(session: Session) -> bool:
    return "known_at" in {column for column, *_ in session.db.execute("DESCRIBE label_of_decisions").fetchall()}


class SqlFile(NamedTuple):
    """A file of a use case's folder, and the tables and variables that it may read."""

    name: str
    sql: str
    tables: tuple[str, ...]
    variables: tuple[str, ...]


def sql_files(usecase: UseCase) -> Iterator[SqlFile]:
    """Yield all SQL files of a use case, each after the files whose tables it may read."""
    history = (
        *(name for event in usecase.events for name in event.tables),
        *(one.name for one in usecase.references),
        "business_days",
    )
    daily = tuple(table.name for table in usecase.daily)
    for stem, sql in usecase.daily_sql.items():
        yield SqlFile(f"daily/{stem}.sql", sql, history, (*VARIABLES, "day_start"))
    # Not for daily tables: their kept parts do not record from which calendars they were made.
    history += ("place_days",) if usecase.places else ()
    yield SqlFile("features/decisions.sql", usecase.feature_sql["decisions"], history + daily, VARIABLES)
    for stem in (stem for stem in usecase.feature_sql if stem != "decisions"):
        yield SqlFile(f"features/{stem}.sql", usecase.feature_sql[stem], (*history, *daily, "decisions"), VARIABLES)
    yield SqlFile("label.sql", usecase.label_sql, (*history, "decisions"), VARIABLES)


def refuse_foreign(usecase: UseCase) -> None:
    """Do nothing if each SQL file reads only what is cut at the as-of time.

    Raises:
        ValueError: a file reads something else, or its values do not follow from the rows; the message names the file.
    """
    for file in sql_files(usecase):
        try:
            use_of(file.sql).refuse_foreign(file.tables, file.variables)
        except ValueError as error:
            raise InputError(f"use case {usecase.name}: {file.name}: {error}") from error


def daily_days(usecase: UseCase, decision_dates: Iterable[date]) -> list[date]:
    """Return the weekdays whose daily parts the decisions of these dates can see, in order."""
    reach = max(table.history for table in usecase.daily)
    return sorted({day for decided in set(decision_dates) for day in weekdays(decided - reach, decided)})
