"""Feature SQL as of a time.

The SQL of a use case names its events as tables. Each such table is a view that ends at the as-of time, so a
feature cannot see what was not yet known: the guarantee lies in the views and not in the care of whoever
writes the SQL. The SQL may use

- a table for each event and each reference of the use case; a reference shows the version in force of each key;
- `business_days(business_date, previous, next)` of the use case's calendar;
- `decisions` (in all files but decisions.sql): the entities decided at this time;
- `getvariable('as_of')` (TIMESTAMPTZ), `getvariable('decision_date')` (DATE), `getvariable('slot')` (VARCHAR).
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from ml_assets.contracts import TIMESTAMP, arrow_schema
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
    """Return the columns of an event that the use case's SQL can need: those that it names, and those of time and key.

    A history without the others gives the same features, and costs less to read. SQL that compares whole rows
    (`DISTINCT *`, `NATURAL JOIN`, `COLUMNS(...)`, `EXCEPT`, `INTERSECT`) needs all of them.
    """
    names = [field.name for field in arrow_schema(event.contract)]
    sql = "\n".join([*usecase.feature_sql.values(), usecase.label_sql])
    if _WHOLE_ROWS.search(sql):
        return [*names, "known_at", *(["business_date"] if "business_date" not in names else [])]
    words = set(re.findall(r"\w+", sql.lower()))
    kept = [name for name in names if name.lower() in words or name in {"event_id", "event_time", "business_date"}]
    return [*kept, "known_at", *(["business_date"] if "business_date" not in kept else [])]


class AsOfDatabase:
    """A use case's history in DuckDB, of which a query sees only what was known as of a time.

    `events` and `references` map names to rows (an Arrow table or dataset) with a column `known_at`, events also
    `business_date`. A missing name is an event of which nothing has been seen yet.
    """

    def __init__(
        self,
        usecase: UseCase,
        events: Mapping[str, pa.Table | ds.Dataset],
        references: Mapping[str, pa.Table | ds.Dataset],
        *,
        threads: int = 0,
    ) -> None:
        self._usecase = usecase
        self._calendar: tuple[date, pa.Table] | None = None
        self._made_at: DecisionTime | None = None
        # Which SQL file gives each feature, once features have been made.
        self.sources: dict[str, str] = {}
        for stem, sql in {**usecase.feature_sql, "label": usecase.label_sql}.items():
            if re.search(r'\bhistory"?\s*\.', sql, flags=re.IGNORECASE):
                raise ValueError(
                    f"use case {usecase.name}: {stem}.sql reads the schema `history`, which is not cut at the as-of "
                    "time; read the table of the same name without the schema"
                )
        self._db = duckdb.connect(":memory:", config={"threads": threads} if threads else {})
        self._db.execute("SET timezone = 'UTC'")
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
                f"AND business_date >= getvariable('decision_date')::DATE - INTERVAL {event.history.days} DAY"
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
        self._db.close()

    def _stand_at(self, as_of: datetime, decision_date: date, slot: str) -> None:
        """Move the views to a time."""
        self._db.execute("SET VARIABLE as_of = ?::TIMESTAMPTZ", [as_of])
        self._db.execute("SET VARIABLE decision_date = ?::DATE", [decision_date])
        self._db.execute("SET VARIABLE slot = ?::VARCHAR", [slot])
        calendar = self._calendar
        days = self._business_days(decision_date)
        if self._calendar is not calendar:
            self._db.register("business_days", days)

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
        """Return a row an entity decided at this time, in `features_schema`, sorted by entity_id.

        Raises:
            ValueError: the SQL fails, gives an entity twice, or does not give exactly the declared features.
        """
        self._stand_at(decision.as_of, decision.decision_date, decision.slot)
        same_history = self._sees_the_same(decision)
        self._made_at = None  # until all groups are made
        self._query("decisions", "CREATE OR REPLACE TEMP TABLE decisions AS " + self._usecase.feature_sql["decisions"])
        self._refuse_duplicates("decisions", "decisions")
        joins, groups = [], {}
        for stem, sql in self._usecase.feature_sql.items():
            if stem == "decisions":
                continue
            if not (same_history and self._would_be_the_same(sql)):
                self._query(stem, f"CREATE OR REPLACE TEMP TABLE feature_group_{stem} AS {sql}")
                self._refuse_duplicates(stem, f"feature_group_{stem}")
            groups[stem] = f"feature_group_{stem}"
            joins.append(f"LEFT JOIN feature_group_{stem} USING (entity_id)")
        schema = features_schema(self._usecase.features)
        self.sources = self._refuse_undeclared(groups)
        given = {
            "decision_time": "getvariable('as_of')",
            "decision_date": "getvariable('decision_date')",
            "slot": "getvariable('slot')",
        }
        columns = ", ".join(
            f"{given[field.name]} AS {field.name}" if field.name in given else field.name for field in schema
        )
        self._query(
            "decisions", f"CREATE OR REPLACE TEMP TABLE decided AS SELECT {columns} FROM decisions {' '.join(joins)}"
        )
        self._db.execute("CREATE OR REPLACE TEMP TABLE decisions_before AS FROM decisions")
        self._made_at = decision
        rows: pa.Table = self._db.sql("FROM decided ORDER BY entity_id").to_arrow_table()
        return rows.cast(schema)

    def labels(self, outcome_date: date, decisions: pa.Table) -> pa.Table:
        """Return the outcome of each decision that has one, in `LABELS_SCHEMA`.

        `decisions` are the rows of the features table with this `outcome_date`. The label SQL sees what was known
        by the label's `known_at`, and `decisions`.
        """
        known_at = self._usecase.label.known_at(outcome_date)
        self._stand_at(known_at, outcome_date, "label")
        self._db.register("labelled", decisions)
        self._db.execute("CREATE OR REPLACE TEMP TABLE decisions AS SELECT * FROM labelled")
        self._db.unregister("labelled")
        self._query("label", "CREATE OR REPLACE TEMP TABLE outcomes AS " + self._usecase.label_sql)
        self._refuse_duplicates("label", "outcomes")
        rows: pa.Table = self._db.sql(
            "SELECT entity_id, decision_time, outcome_date, label::TINYINT AS label, "
            "getvariable('as_of') AS label_known_at "
            "FROM decisions JOIN outcomes USING (entity_id) WHERE label IS NOT NULL "
            "ORDER BY entity_id, decision_time"
        ).to_arrow_table()
        return rows.cast(LABELS_SCHEMA)

    def _sees_the_same(self, decision: DecisionTime) -> bool:
        """Return whether no event and no reference can have come or gone since the features that were made last.

        Data that are published twice a month are the same for ten decision dates, and so is what follows from them.
        """
        before = self._made_at
        if before is None:
            return False
        known = sorted((before.as_of, decision.as_of))
        dates = sorted((before.decision_date, decision.decision_date))
        among = {
            event.name: f"business_date >= $3::DATE - INTERVAL {event.history.days} DAY "
            f"AND business_date < $4::DATE - INTERVAL {event.history.days} DAY"
            for event in self._usecase.events
        } | {
            reference.name: "valid_from > $3::DATE AND valid_from <= $4::DATE" for reference in self._usecase.references
        }
        return not any(
            self._db.execute(
                f"SELECT 1 FROM {self._history}.{name} WHERE (known_at > $1 AND known_at <= $2) OR ({moved}) LIMIT 1",
                [*known, *dates],
            ).fetchone()
            for name, moved in among.items()
        )

    def _would_be_the_same(self, sql: str) -> bool:
        """Return whether the SQL gives what it gave last, if it sees the same history: it asks for nothing that moves
        with the decision time, and for no column of the decisions that has other values now."""
        if _MOVING.search(sql):
            return False
        columns = [column for column, *_ in self._db.execute("DESCRIBE decisions").fetchall()]
        if not (_WHOLE_ROWS.search(sql) or _STAR.search(sql)):
            words = set(re.findall(r"\w+", sql.lower()))
            columns = [column for column in columns if column.lower() in words]
        if not columns:
            return True
        asked = ", ".join(f'"{column}"' for column in columns)
        now, then = (f"SELECT {asked} FROM {table}" for table in ("decisions", "decisions_before"))
        return not any(
            self._db.execute(f"({one}) EXCEPT ALL ({other}) LIMIT 1").fetchone()
            for one, other in ((now, then), (then, now))
        )

    def _query(self, stem: str, sql: str) -> None:
        try:
            self._db.execute(sql)
        except duckdb.Error as error:
            raise ValueError(f"use case {self._usecase.name}: {stem}.sql failed: {error}") from error

    def _refuse_duplicates(self, stem: str, table: str) -> None:
        twice = self._db.execute(
            f"SELECT entity_id FROM {table} GROUP BY entity_id HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if twice:
            raise ValueError(
                f"use case {self._usecase.name}: {stem}.sql gives entity {twice[0]!r} more than once; "
                "it must give one row an entity"
            )

    def _refuse_undeclared(self, groups: Mapping[str, str]) -> dict[str, str]:
        """Return which SQL file gives each declared feature."""
        declared = {f.name for f in self._usecase.features}
        spine = {column for column, *_ in self._db.execute("DESCRIBE decisions").fetchall()}
        found: dict[str, str] = dict.fromkeys(declared & (spine | {"slot"}), "decisions")
        for stem, table in groups.items():
            for column, *_ in self._db.execute(f"DESCRIBE {table}").fetchall():
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
