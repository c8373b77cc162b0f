"""Feature SQL as of a time.

The SQL of a use case names its events as tables. Each such table is a view that ends at the as-of time, so a
feature cannot see what was not yet known: the guarantee lies in the views and not in the care of whoever
writes the SQL. A file is one SELECT; DuckDB's parser says what it reads, and what is not on this list, such as
files, is refused. The SQL may use

- a table for each event and each reference of the use case; a reference shows the version in force of each key;
- `business_days(business_date, previous, next)` of the use case's calendar;
- a table for each daily table of the use case: what its SQL gave day by day, with the day as `known_date`;
- `decisions` (in all files but decisions.sql): the entities decided at this time;
- `getvariable('as_of')` (TIMESTAMPTZ), `getvariable('decision_date')` (DATE), `getvariable('slot')` (VARCHAR).

The SQL of a daily table (`daily/*.sql`) is run once for each weekday, as of its end, and once more for the day of the
decision, as of the decision. It sees events and references in the same views, and `getvariable('day_start')`
(TIMESTAMPTZ): it should give what became known from then on. So a part of a day that is over stays as it is, may be
kept, and still nothing is seen that was not known: windows over months then add up a few rows a day.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from ml_assets.contracts import TIMESTAMP, arrow_schema
from ml_assets.features.changes import Changes
from ml_assets.features.days import day_end, day_of, weekdays
from ml_assets.features.session import Session
from ml_assets.features.sql import use_of
from ml_assets.features.tables import LABELS_SCHEMA, features_schema
from ml_assets.spec import DecisionTime, UseCase

# The schema of what is not cut at the as-of time; the SQL of a use case is refused if it reads it.
_HISTORY = "history"


@dataclass(frozen=True)
class DailyParts:
    """Parts of the daily tables that need not be made again: all tables of `days`, each with `known_date`."""

    days: frozenset[date] = frozenset()
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


class AsOfDatabase:
    """A use case's history in DuckDB, of which a query sees only what was known as of a time.

    `events` and `references` map names to rows (an Arrow table or dataset) with a column `known_at`, events also
    `business_date`. A missing name is an event of which nothing has been seen yet. The events must reach back
    `usecase.look_back(event)` from the first decision; where `daily` has parts, `event.history` before the first day
    without one, and before the first decision, is enough.
    """

    def __init__(
        self,
        usecase: UseCase,
        events: Mapping[str, pa.Table | ds.Dataset],
        references: Mapping[str, pa.Table | ds.Dataset],
        *,
        daily: DailyParts | None = None,
        threads: int = 0,
    ) -> None:
        self._usecase = usecase
        # Which SQL file gives each feature, once features have been made.
        self.sources: dict[str, str] = {}
        _refuse_foreign_tables(usecase)
        self._db = duckdb.connect(":memory:", config={"threads": threads} if threads else {})
        self._db.execute("SET GLOBAL timezone = 'UTC'")
        self._db.execute(f"CREATE SCHEMA {_HISTORY}")
        for event in usecase.events:
            empty = arrow_schema(event.contract).append(pa.field("known_at", TIMESTAMP))
            if "business_date" not in empty.names:
                empty = empty.append(pa.field("business_date", pa.date32()))
            self._load(event.name, events.get(event.name, empty.empty_table()))
            self._db.execute(
                f"CREATE VIEW {event.name} AS SELECT * FROM {_HISTORY}.{event.name} "
                "WHERE known_at <= getvariable('as_of') "
                # A date less a number is a date: only then are blocks of rows skipped by their range.
                f"AND business_date >= getvariable('decision_date')::DATE - {event.history.days}"
            )
        for reference in usecase.references:
            empty = arrow_schema(reference.contract).append(pa.field("known_at", TIMESTAMP))
            self._load(reference.name, references.get(reference.name, empty.empty_table()))
            self._db.execute(
                f"CREATE VIEW {reference.name} AS SELECT * FROM {_HISTORY}.{reference.name} "
                "WHERE known_at <= getvariable('as_of') AND valid_from <= getvariable('decision_date')::DATE "
                f"QUALIFY row_number() OVER (PARTITION BY {', '.join(reference.key)} "
                "ORDER BY valid_from DESC, known_at DESC) = 1"
            )
        self._changes = Changes(self._db.cursor(), usecase, _HISTORY)
        self._sessions = [Session(self._db.cursor(), usecase, self._changes)]
        ((self._threads,),) = self._db.execute("SELECT current_setting('threads')").fetchall()
        self._days = set[date]()
        self._news: dict[date, datetime] = {}
        if usecase.daily_sql:
            self._open_daily(daily or DailyParts())
        self._db.execute("SET enable_external_access = false")
        self._db.execute("SET lock_configuration = true")

    def _load(self, name: str, rows: pa.Table | ds.Dataset) -> None:
        self._db.register("incoming", rows)
        self._db.execute(f"CREATE TABLE {_HISTORY}.{name} AS SELECT * FROM incoming")
        self._db.unregister("incoming")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions:
            session.db.close()
        self._db.close()

    def features(self, decision: DecisionTime) -> pa.Table:
        """Return a row an entity decided at this time, in `features_schema`, sorted by entity_id.

        Raises:
            ValueError: the SQL fails, gives an entity twice, or does not give exactly the declared features.
        """
        return self.features_at([decision])

    def features_at(self, decisions: Sequence[DecisionTime]) -> pa.Table:
        """Return the features of many decision times, one after the other; they are made on all threads.

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

    def _features(self, session: Session, decision: DecisionTime) -> pa.Table:
        day = decision.decision_date
        session.stand_at(decision.as_of, day, decision.slot)
        for table in self._usecase.daily:
            name, sql = table.name, self._usecase.daily_sql[table.name]
            # Nothing has become known today: the day has no part yet, as it would have none if it were over.
            news = self._news.get(day)
            limit = "" if news is not None and news <= decision.as_of else " LIMIT 0"
            session.query(name, f"CREATE OR REPLACE TEMP TABLE today_{name} AS SELECT * FROM ({sql}\n){limit}")
            session.query(
                name,
                f"CREATE OR REPLACE TEMP VIEW {name} AS FROM {_HISTORY}.daily_{name} "
                "WHERE known_date < getvariable('decision_date')::DATE "
                f"AND known_date >= getvariable('decision_date')::DATE - {table.history.days} "
                f"UNION ALL SELECT getvariable('decision_date')::DATE AS known_date, * FROM today_{name}",
            )
        return session.features(decision)

    def _open_daily(self, kept: DailyParts) -> None:
        """Make the daily tables with the parts that there are, and learn on which days anything became known."""
        session = self._sessions[0]
        session.stand_at(day_end(self._usecase.first_partition), self._usecase.first_partition, "daily")
        for name, sql in self._usecase.daily_sql.items():
            table = f"{_HISTORY}.daily_{name}"
            session.query(name, f"CREATE TABLE {table} AS SELECT NULL::DATE AS known_date, * FROM ({sql}\n) LIMIT 0")
            if name in kept.tables:
                self._db.register("incoming", kept.tables[name])
                self._db.execute(f"INSERT INTO {table} BY NAME FROM incoming")
                self._db.unregister("incoming")
        self._days = set(kept.days)
        for event in self._usecase.events:
            rows = self._db.execute(f"SELECT min(known_at) FROM {_HISTORY}.{event.name} GROUP BY known_at::DATE")
            for (known,) in rows.fetchall():
                day = day_of(known)
                self._news[day] = min(known, self._news.get(day, known))

    def make_daily(self, days: Iterable[date]) -> None:
        """Make the parts of these weekdays, from the events that there are.

        Raises:
            ValueError: the SQL of a daily table fails.
        """
        session = self._sessions[0]
        for day in days:
            if day in self._days:
                raise ValueError(f"use case {self._usecase.name}: the daily parts of {day} are there already")
            if day in self._news:
                session.stand_at(day_end(day), day, "daily")
                for name, sql in self._usecase.daily_sql.items():
                    into = f"INSERT INTO {_HISTORY}.daily_{name} SELECT getvariable('decision_date')::DATE, * "
                    session.query(name, f"{into} FROM ({sql}\n)")
            self._days.add(day)

    def daily_parts(self, days: Iterable[date]) -> DailyParts:
        """Return the parts of these days, which have been made."""
        wanted = frozenset(days)
        if absent := sorted(wanted - self._days):
            raise ValueError(f"use case {self._usecase.name}: the daily parts of {absent[0]} have not been made")
        days_sql = ", ".join(f"DATE '{day}'" for day in sorted(wanted)) or "NULL"
        return DailyParts(
            wanted,
            {
                name: self._db.sql(
                    f"FROM {_HISTORY}.daily_{name} WHERE known_date IN ({days_sql}) ORDER BY known_date"
                ).to_arrow_table()
                for name in self._usecase.daily_sql
            },
        )

    def labels(self, outcome_date: date, decisions: pa.Table) -> pa.Table:
        """Return the outcome of each decision that has one, in `LABELS_SCHEMA`.

        `decisions` are the rows of the features table with this `outcome_date`. The label SQL sees what was known
        by the label's `known_at`, and `decisions`.
        """
        session = self._sessions[0]
        known_at = self._usecase.label.known_at(outcome_date)
        session.stand_at(known_at, outcome_date, "label")
        session.db.register("labelled", decisions)
        session.db.execute("CREATE OR REPLACE TEMP TABLE decisions AS SELECT * FROM labelled")
        session.db.unregister("labelled")
        session.query("label", f"CREATE OR REPLACE TEMP TABLE label_of_decisions AS ({self._usecase.label_sql}\n)")
        session.refuse_duplicates("label", "label_of_decisions")
        rows: pa.Table = session.db.sql(
            "SELECT entity_id, decision_time, outcome_date, label::TINYINT AS label, "
            "getvariable('as_of') AS label_known_at "
            "FROM decisions JOIN label_of_decisions USING (entity_id) WHERE label IS NOT NULL "
            "ORDER BY entity_id, decision_time"
        ).to_arrow_table()
        return rows.cast(LABELS_SCHEMA)


def _refuse_foreign_tables(usecase: UseCase) -> None:
    tables = [event.name for event in usecase.events]
    tables += [reference.name for reference in usecase.references]
    tables += [daily.name for daily in usecase.daily]
    for stem, sql in {**usecase.feature_sql, **usecase.daily_sql, "label": usecase.label_sql}.items():
        try:
            use_of(sql).refuse_foreign(["decisions", "business_days", *tables])
        except ValueError as error:
            raise ValueError(f"use case {usecase.name}: {stem}.sql: {error}") from error


def daily_days(usecase: UseCase, decision_dates: Iterable[date]) -> list[date]:
    """Return the weekdays whose daily parts the decisions of these dates can see, in order."""
    reach = max(table.history for table in usecase.daily)
    return sorted({day for decided in set(decision_dates) for day in weekdays(decided - reach, decided)})
