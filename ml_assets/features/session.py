"""One connection of an as-of database: it stands at a decision time and makes that time's features."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.features.changes import Changes
from ml_assets.features.days import day_start
from ml_assets.features.sql import use_of
from ml_assets.features.tables import features_schema
from ml_assets.spec import DecisionTime, UseCase


def _table(stem: str) -> str:
    """Return the name of what a SQL file gives."""
    return stem if stem == "decisions" else f"feature_group_{stem}"


class Session:
    """A connection that stands at a decision time: its variables and temporary tables are its own."""

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        usecase: UseCase,
        changes: Changes,
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
        self._columns = ", ".join(
            f"{given[field.name]} AS {field.name}" if field.name in given else field.name for field in self._schema
        )
        self._groups = [stem for stem in usecase.feature_sql if stem != "decisions"]
        # What follows from the history alone can be kept while the history stays as it is.
        self._lasting = frozenset(stem for stem in self._groups if not self._moves(usecase.feature_sql[stem]))
        self._changes = changes
        self._kept: frozenset[str] = frozenset()
        self._kept_at: DecisionTime | None = None
        self._slot: str | None = None

    def stand_at(self, as_of: datetime, decision_date: date, slot: str) -> None:
        """Move the views to a time."""
        said = (
            f"SET VARIABLE as_of = TIMESTAMPTZ '{as_of.isoformat()}'; "
            f"SET VARIABLE decision_date = DATE '{decision_date.isoformat()}'"
        )
        if self._usecase.daily:
            said += f"; SET VARIABLE day_start = TIMESTAMPTZ '{day_start(decision_date).isoformat()}'"
        self.db.execute(said)
        if slot != self._slot:
            self.db.execute("SET VARIABLE slot = ?::VARCHAR", [slot])
            self._slot = slot
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
        made = self._make_what_stays(decision)
        try:
            rows: pa.Table = self.db.sql(self._statement(made)).to_arrow_table()
        except duckdb.Error as error:
            self._one_by_one()
            raise ValueError(f"use case {self._usecase.name}: the features' SQL failed: {error}") from error
        self._kept, self._kept_at = made & self._lasting, decision
        ids = rows["entity_id"].combine_chunks()
        if len(ids) > 1 and pc.any(pc.equal(ids[1:], ids[:-1])).as_py():
            self._one_by_one()
        return rows.cast(self._schema)

    def _moves(self, sql: str) -> bool:
        """Return whether SQL may give something else at another decision time although the history is the same."""
        use = use_of(sql)
        return use.moving or not use.tables.isdisjoint(
            {"business_days", *(table.name.lower() for table in self._usecase.daily)}
        )

    def _make_what_stays(self, decision: DecisionTime) -> frozenset[str]:
        """Make the files' tables that the next decision time can use too; return which tables there are now."""
        kept, kept_at = self._kept, self._kept_at
        if not kept or kept_at is None or self._changes.between(kept_at, decision):
            kept = frozenset()
        self._kept, self._kept_at = frozenset(), None  # until all is made
        if not self.sources:
            self._one_by_one()
            self.sources = self._refuse_undeclared()
            return frozenset(self._groups) | {"decisions"}
        stay = bool(self._lasting) and not self._changes.between(decision, self._next(decision))
        if not kept and not stay:
            return frozenset()
        if kept:
            self.db.execute("CREATE OR REPLACE TEMP TABLE decisions_before AS FROM decisions")
        self._make("decisions")
        kept = frozenset(stem for stem in kept if self._decides_the_same(self._usecase.feature_sql[stem]))
        for stem in self._lasting - kept if stay else ():
            self._make(stem)
        return (self._lasting if stay else kept) | {"decisions"}

    def _next(self, decision: DecisionTime) -> DecisionTime:
        """Return the decision time that comes after this: it is the one that is usually asked for next."""
        days = (decision.decision_date, self._usecase.calendar.add(decision.decision_date, 1))
        times = [time for day in days for time in self._usecase.decision_times(day)]
        return min((time for time in times if time.as_of > decision.as_of), key=lambda time: time.as_of)

    def _statement(self, made: frozenset[str]) -> str:
        """Return the SQL of all features at once, which makes what is not made yet."""
        sql = self._usecase.feature_sql
        stems = [stem for stem in ("decisions", *self._groups) if stem not in made]
        inner = ", ".join(f"{_table(stem)} AS ({sql[stem]}\n)" for stem in stems)
        joins = "".join(f" LEFT JOIN {_table(stem)} USING (entity_id)" for stem in self._groups)
        return f"{inner and f'WITH {inner} '}SELECT {self._columns} FROM decisions{joins} ORDER BY entity_id"

    def _decides_the_same(self, sql: str) -> bool:
        """Return whether the columns of the decisions that the SQL asks for have the values that they had before."""
        columns = [column for column, *_ in self.db.execute("DESCRIBE decisions").fetchall()]
        use = use_of(sql)
        if not (use.whole_rows or use.star):
            columns = [column for column in columns if column.lower() in use.names]
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
        for stem in ("decisions", *self._groups):
            self._make(stem)
            self.refuse_duplicates(stem, _table(stem))

    def _make(self, stem: str) -> None:
        self.query(stem, f"CREATE OR REPLACE TEMP TABLE {_table(stem)} AS ({self._usecase.feature_sql[stem]}\n)")

    def query(self, stem: str, sql: str) -> None:
        """Run a statement made of the SQL file `stem`.

        Raises:
            ValueError: it fails; with the name of the file.
        """
        try:
            self.db.execute(sql)
        except duckdb.Error as error:
            raise ValueError(f"use case {self._usecase.name}: {stem}.sql failed: {error}") from error

    def refuse_duplicates(self, stem: str, table: str) -> None:
        """Do nothing if the table that the SQL file `stem` gave has each entity once.

        Raises:
            ValueError: it has one twice.
        """
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
            for column, *_ in self.db.execute(f"DESCRIBE {_table(stem)}").fetchall():
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
