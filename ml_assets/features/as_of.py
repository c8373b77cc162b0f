"""Feature SQL as of a time.

The SQL of a use case names its events as tables. Each such table is a view that ends at the as-of time, so a
feature cannot see what was not yet known: the guarantee lies in the views and not in the care of whoever
writes the SQL. The SQL may use

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

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from ml_assets.contracts import TIMESTAMP, arrow_schema
from ml_assets.features.days import day_end, day_of, day_start, weekdays
from ml_assets.spec import DecisionTime, EventSpec, Feature, UseCase

KEYS_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("decision_time", TIMESTAMP, nullable=False),
        pa.field("decision_date", pa.date32(), nullable=False),
        pa.field("slot", pa.string(), nullable=False),
        pa.field("outcome_date", pa.date32(), nullable=False),
        pa.field("cost_if_fail", pa.float64(), nullable=False),
        pa.field("attributes", pa.string()),
    ]
)
LABELS_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("decision_time", TIMESTAMP, nullable=False),
        pa.field("outcome_date", pa.date32(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("label_known_at", TIMESTAMP, nullable=False),
    ]
)


_WHOLE_ROWS = re.compile(
    r"DISTINCT\s+(\w+\.)?\*|\bNATURAL\b|\bCOLUMNS\s*\(|\bEXCEPT\b|\bINTERSECT\b|\bUNION\b", re.IGNORECASE
)


_STAR = re.compile(r"(\bSELECT|,|\.)\s*\*", re.IGNORECASE)
# What is not the same at another decision time although the history is.
_MOVING = re.compile(r"\bgetvariable\b|\bbusiness_days\b|\bcurrent_|\bnow\b|\brandom\b|\buuid", re.IGNORECASE)


def features_schema(features: Iterable[Feature]) -> pa.Schema:
    """Return the schema of a features table: the decision's keys, then a column a feature."""
    columns = (pa.field(f.name, pa.string() if f.kind == "categorical" else pa.float64()) for f in features)
    return pa.schema([*KEYS_SCHEMA, *(column for column in columns if column.name not in KEYS_SCHEMA.names)])


def columns_read(usecase: UseCase, event: EventSpec) -> list[str]:
    """Return the columns of an event that the use case's SQL can need; see `columns_named`."""
    return columns_named(
        event, "\n".join([*usecase.feature_sql.values(), *usecase.daily_sql.values(), usecase.label_sql])
    )


def columns_named(event: EventSpec, sql: str) -> list[str]:
    """Return the columns of an event that SQL can need: those that it names, and those of time and key.

    A history without the others gives the same features, and costs less to read. SQL that compares whole rows
    (`DISTINCT *`, `NATURAL JOIN`, `COLUMNS(...)`, `EXCEPT`, `INTERSECT`) needs all of them.
    """
    names = [field.name for field in arrow_schema(event.contract)]
    if _WHOLE_ROWS.search(sql):
        return [*names, "known_at", *(["business_date"] if "business_date" not in names else [])]
    words = words_of(sql)
    kept = [name for name in names if name.lower() in words or name in {"event_id", "event_time", "business_date"}]
    return [*kept, "known_at", *(["business_date"] if "business_date" not in kept else [])]


def words_of(sql: str) -> set[str]:
    """Return the words of SQL in lower case: a name that is not among them is not used."""
    return set(re.findall(r"\w+", sql.lower()))


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
        for stem, sql in {**usecase.feature_sql, **usecase.daily_sql, "label": usecase.label_sql}.items():
            if re.search(r'\bhistory"?\s*\.', sql, flags=re.IGNORECASE):
                raise ValueError(
                    f"use case {usecase.name}: {stem}.sql reads the schema `history`, which is not cut at the as-of "
                    "time; read the table of the same name without the schema"
                )
        self._db = duckdb.connect(":memory:", config={"threads": threads} if threads else {})
        self._db.execute("SET GLOBAL timezone = 'UTC'")
        # SQL cannot name what it would have to guess, and cannot read files, where outcomes lie about.
        self._history = f"history_{secrets.token_hex(8)}"
        self._db.execute(f"CREATE SCHEMA {self._history}")
        for event in usecase.events:
            empty = arrow_schema(event.contract).append(pa.field("known_at", TIMESTAMP))
            if "business_date" not in empty.names:
                empty = empty.append(pa.field("business_date", pa.date32()))
            self._load(event.name, events.get(event.name, empty.empty_table()))
            self._db.execute(
                f"CREATE VIEW {event.name} AS SELECT * FROM {self._history}.{event.name} "
                "WHERE known_at <= getvariable('as_of') "
                # A date less a number is a date: only then are blocks of rows skipped by their range.
                f"AND business_date >= getvariable('decision_date')::DATE - {event.history.days}"
            )
        for reference in usecase.references:
            empty = arrow_schema(reference.contract).append(pa.field("known_at", TIMESTAMP))
            self._load(reference.name, references.get(reference.name, empty.empty_table()))
            self._db.execute(
                f"CREATE VIEW {reference.name} AS SELECT * FROM {self._history}.{reference.name} "
                "WHERE known_at <= getvariable('as_of') AND valid_from <= getvariable('decision_date')::DATE "
                f"QUALIFY row_number() OVER (PARTITION BY {', '.join(reference.key)} "
                "ORDER BY valid_from DESC, known_at DESC) = 1"
            )
        self._changes = _Changes(self._db.cursor(), usecase, self._history)
        self._sessions = [_Session(self._db.cursor(), usecase, self._changes)]
        ((self._threads,),) = self._db.execute("SELECT current_setting('threads')").fetchall()
        self._days = set[date]()
        self._news: dict[date, datetime] = {}
        if usecase.daily_sql:
            self._open_daily(daily or DailyParts())
        self._db.execute("SET enable_external_access = false")
        self._db.execute("SET lock_configuration = true")

    def _load(self, name: str, rows: pa.Table | ds.Dataset) -> None:
        self._db.register("incoming", rows)
        self._db.execute(f"CREATE TABLE {self._history}.{name} AS SELECT * FROM incoming")
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
            self._sessions.append(_Session(self._db.cursor(), self._usecase, self._changes, self.sources))
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

    def _features(self, session: "_Session", decision: DecisionTime) -> pa.Table:
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
                f"CREATE OR REPLACE TEMP VIEW {name} AS FROM {self._history}.daily_{name} "
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
            table = f"{self._history}.daily_{name}"
            session.query(name, f"CREATE TABLE {table} AS SELECT NULL::DATE AS known_date, * FROM ({sql}\n) LIMIT 0")
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
                    into = f"INSERT INTO {self._history}.daily_{name} SELECT getvariable('decision_date')::DATE, * "
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
                    f"FROM {self._history}.daily_{name} WHERE known_date IN ({days_sql}) ORDER BY known_date"
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


def daily_days(usecase: UseCase, decision_dates: Iterable[date]) -> list[date]:
    """Return the weekdays whose daily parts the decisions of these dates can see, in order."""
    reach = max(table.history for table in usecase.daily)
    return sorted({day for decided in set(decision_dates) for day in weekdays(decided - reach, decided)})


def _moves(usecase: UseCase, sql: str) -> bool:
    """Return whether SQL may give something else at another decision time although the history is the same."""
    return bool(_MOVING.search(sql)) or any(table.name.lower() in words_of(sql) for table in usecase.daily)


class _Changes:
    """When anything came into the history, or went out of what is looked back on: by time and by date, in order."""

    def __init__(self, db: duckdb.DuckDBPyConnection, usecase: UseCase, schema: str) -> None:
        self._db = db
        self._usecase = usecase
        self._schema = schema

    @cached_property
    def _known(self) -> NDArray[np.int64]:
        names = [event.name for event in self._usecase.events] + [one.name for one in self._usecase.references]
        return self._distinct([f"SELECT epoch_us(known_at) AS moment FROM {self._schema}.{name}" for name in names])

    @cached_property
    def _dates(self) -> NDArray[np.int64]:
        """Days since 1970 on which a reference comes into force, or which are the first without a business date."""
        parts = [
            f"SELECT business_date + {event.history.days + 1} AS moment FROM {self._schema}.{event.name}"
            for event in self._usecase.events
        ]
        parts += [f"SELECT valid_from AS moment FROM {self._schema}.{one.name}" for one in self._usecase.references]
        return self._distinct([f"SELECT moment - DATE '1970-01-01' AS moment FROM ({part})" for part in parts])

    def _distinct(self, parts: Sequence[str]) -> NDArray[np.int64]:
        found = [
            self._db.sql(f"SELECT DISTINCT moment::BIGINT AS moment FROM ({part})").fetchnumpy()["moment"]
            for part in parts
        ]
        return np.unique(np.concatenate([np.asarray(values, dtype=np.int64) for values in found]))

    def between(self, one: DecisionTime, other: DecisionTime) -> bool:
        """Return whether a decision at one of the times could see what one at the other could not.

        Data that are published twice a month are the same for ten decision dates, and so is what follows from them.
        """
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        times = sorted((decision.as_of - epoch) // timedelta(microseconds=1) for decision in (one, other))
        dates = sorted((decision.decision_date - epoch.date()).days for decision in (one, other))
        return any(
            np.searchsorted(moments, first, side="right") < np.searchsorted(moments, last, side="right")
            for moments, (first, last) in ((self._known, times), (self._dates, dates))
        )


class _Session:
    """A connection that stands at a decision time: its variables and temporary tables are its own."""

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        usecase: UseCase,
        changes: "_Changes",
        sources: Mapping[str, str] | None = None,
    ) -> None:
        self.db = db
        self.sources = dict(sources or {})
        self._usecase = usecase
        self._calendar: tuple[date, pa.Table] | None = None
        self._schema = features_schema(usecase.features)
        given = {
            "decision_time": "getvariable('as_of')",
            "decision_date": "getvariable('decision_date')",
            "slot": "getvariable('slot')",
        }
        columns = ", ".join(
            f"{given[field.name]} AS {field.name}" if field.name in given else field.name for field in self._schema
        )
        groups = [stem for stem in usecase.feature_sql if stem != "decisions"]
        joins = "".join(f" LEFT JOIN feature_group_{stem} USING (entity_id)" for stem in groups)
        # What follows from the history alone is kept until the history changes; the rest is part of one statement.
        self._lasting = [stem for stem in groups if not _moves(usecase, usecase.feature_sql[stem])]
        self._changes = changes
        self._made_at: DecisionTime | None = None
        moving = [stem for stem in groups if stem not in self._lasting]
        inner = ", ".join(f"feature_group_{stem} AS ({usecase.feature_sql[stem]}\n)" for stem in moving)
        self._all = f"{f'WITH {inner} ' if moving else ''}SELECT {columns} FROM decisions{joins} ORDER BY entity_id"
        self._groups = groups

    def stand_at(self, as_of: datetime, decision_date: date, slot: str) -> None:
        """Move the views to a time."""
        self.db.execute(
            f"SET VARIABLE as_of = TIMESTAMPTZ '{as_of.isoformat()}'; "
            f"SET VARIABLE decision_date = DATE '{decision_date.isoformat()}'; "
            f"SET VARIABLE day_start = TIMESTAMPTZ '{day_start(decision_date).isoformat()}'"
        )
        self.db.execute("SET VARIABLE slot = ?::VARCHAR", [slot])
        calendar = self._calendar
        days = self._business_days(decision_date)
        if self._calendar is not calendar:
            self.db.register("business_days", days)

    def _business_days(self, around: date) -> pa.Table:
        """Return the business days of about a year on both sides of a date, with their neighbours."""
        if self._calendar is None or abs(self._calendar[0] - around) > timedelta(days=30):
            reach = timedelta(days=400)
            days = list(self._usecase.calendar.between(around - reach, around + reach))
            columns = {"business_date": days[1:-1], "previous": days[:-2], "next": days[2:]}
            table = pa.table({name: pa.array(column, pa.date32()) for name, column in columns.items()})
            self._calendar = (around, table)
        return self._calendar[1]

    def features(self, decision: DecisionTime) -> pa.Table:
        """Return the features of the time at which this stands: rows sorted by entity_id, in `features_schema`."""
        sql = self._usecase.feature_sql
        self.query("decisions", f"CREATE OR REPLACE TEMP TABLE decisions AS ({sql['decisions']}\n)")
        if not self.sources:
            self._one_by_one()
            self.sources = self._refuse_undeclared()
        elif self._lasting:
            self._make_lasting(decision)
        if self._lasting:
            self.db.execute("CREATE OR REPLACE TEMP TABLE decisions_before AS FROM decisions")
            self._made_at = decision
        try:
            rows: pa.Table = self.db.sql(self._all).to_arrow_table()
        except duckdb.Error as error:
            self._one_by_one()
            raise ValueError(f"use case {self._usecase.name}: the features' SQL failed: {error}") from error
        ids = rows["entity_id"].combine_chunks()
        if len(ids) > 1 and pc.any(pc.equal(ids[1:], ids[:-1])).as_py():
            self._one_by_one()
        return rows.cast(self._schema)

    def _make_lasting(self, decision: DecisionTime) -> None:
        """Make the groups that follow from the history alone, those that may have changed since they were made last."""
        before, self._made_at = self._made_at, None  # until all of them are made
        same_history = before is not None and not self._changes.between(before, decision)
        for stem in self._lasting:
            sql = self._usecase.feature_sql[stem]
            if not (same_history and self._decides_the_same(sql)):
                self.query(stem, f"CREATE OR REPLACE TEMP TABLE feature_group_{stem} AS ({sql}\n)")

    def _decides_the_same(self, sql: str) -> bool:
        """Return whether the columns of the decisions that the SQL asks for have the values that they had before."""
        columns = [column for column, *_ in self.db.execute("DESCRIBE decisions").fetchall()]
        if not (_WHOLE_ROWS.search(sql) or _STAR.search(sql)):
            words = words_of(sql)
            columns = [column for column in columns if column.lower() in words]
        if not columns:
            return True
        asked = ", ".join(f'"{column}"' for column in columns)
        now, then = (f"SELECT {asked} FROM {table}" for table in ("decisions", "decisions_before"))
        return not any(
            self.db.execute(f"({one}) EXCEPT ALL ({other}) LIMIT 1").fetchall()
            for one, other in ((now, then), (then, now))
        )

    def _one_by_one(self) -> None:
        """Run the files one after the other, to say which of them fails or gives an entity twice."""
        self.refuse_duplicates("decisions", "decisions")
        for stem in self._groups:
            sql = self._usecase.feature_sql[stem]
            self.query(stem, f"CREATE OR REPLACE TEMP TABLE feature_group_{stem} AS ({sql}\n)")
            self.refuse_duplicates(stem, f"feature_group_{stem}")

    def query(self, stem: str, sql: str) -> None:
        try:
            self.db.execute(sql)
        except duckdb.Error as error:
            raise ValueError(f"use case {self._usecase.name}: {stem}.sql failed: {error}") from error

    def refuse_duplicates(self, stem: str, table: str) -> None:
        twice = self.db.execute(
            f"SELECT entity_id FROM {table} GROUP BY entity_id HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if twice:
            raise ValueError(
                f"use case {self._usecase.name}: {stem}.sql gives entity {twice[0]!r} more than once; "
                "it must give one row an entity"
            )

    def _refuse_undeclared(self) -> dict[str, str]:
        """Return which SQL file gives each declared feature."""
        declared = {f.name for f in self._usecase.features}
        spine = {column for column, *_ in self.db.execute("DESCRIBE decisions").fetchall()}
        found: dict[str, str] = dict.fromkeys(declared & (spine | {"slot"}), "decisions")
        for stem in self._groups:
            for column, *_ in self.db.execute(f"DESCRIBE feature_group_{stem}").fetchall():
                if column == "entity_id":
                    continue
                if column not in declared:
                    raise ValueError(
                        f"use case {self._usecase.name}: {stem}.sql gives {column!r}, which usecase.py does not declare"
                    )
                if column in found:
                    raise ValueError(
                        f"use case {self._usecase.name}: {column!r} comes from {found[column]}.sql and {stem}.sql"
                    )
                found[column] = stem
        if missing := sorted(declared - set(found)):
            raise ValueError(f"use case {self._usecase.name}: no SQL gives the declared features {', '.join(missing)}")
        return found
