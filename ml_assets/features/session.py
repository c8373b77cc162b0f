"""One connection of an as-of database: it is set to a decision time and computes that time's features."""

from collections.abc import Collection, Mapping
from datetime import date, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.duck import in_words
from ml_assets.errors import InputError
from ml_assets.features.changes import Changes
from ml_assets.features.days import business_days, day_start, market_days, years_of_business_days
from ml_assets.features.sound import sound
from ml_assets.features.sql import use_of
from ml_assets.features.tables import features_schema
from ml_assets.spec import DecisionTime, UseCase


def _table(stem: str) -> str:
    """Return the name of the table that a SQL file gives."""
    return stem if stem == "decisions" else f"feature_group_{stem}"


class Session:
    """A connection that is set to a decision time, with its own variables and temporary tables."""

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
        self._years: tuple[int, int] | None = None
        self.schema = features_schema(usecase.features)
        given = {
            "decision_time": "getvariable('as_of')",
            "decision_date": "getvariable('decision_date')",
            "slot": "getvariable('slot')",
        }
        self._columns = ", ".join(
            f"{given[field.name]} AS {field.name}" if field.name in given else field.name for field in self.schema
        )
        self._groups = [stem for stem in usecase.feature_sql if stem != "decisions"]
        # Results that follow from the history alone can be kept while the history does not change.
        self._lasting = frozenset(stem for stem in self._groups if not self._moves(usecase.feature_sql[stem]))
        self._changes = changes
        self._kept: frozenset[str] = frozenset()
        self._kept_at: DecisionTime | None = None
        self._slot: str | None = None
        # Decisions that were left out: when, entity, why.
        self.refused: list[tuple[datetime, str, str]] = []

    def stand_at(self, as_of: datetime, decision_date: date, slot: str) -> None:
        """Move the views to a time.

        Raises:
            ValueError: the history is not the one that was opened.
        """
        self._changes.refuse_others(self.db)
        said = (
            f"SET VARIABLE as_of = TIMESTAMPTZ '{as_of.isoformat()}'; "
            f"SET VARIABLE decision_date = DATE '{decision_date.isoformat()}'"
        )
        if self._usecase.daily:
            said += f"; SET VARIABLE day_start = TIMESTAMPTZ '{day_start(decision_date).isoformat()}'"
        self.db.execute(said)
        self.stand_in(slot)
        years = years_of_business_days(self._usecase, decision_date)
        if years != self._years:
            self.db.register("business_days", business_days(self._usecase.calendar, *years))
            self._register_places(years)
            self._years = years

    def stand_in(self, slot: str) -> None:
        """Move the views to a slot of the time at which they stand."""
        if slot != self._slot:
            self.db.execute("SET VARIABLE slot = ?::VARCHAR", [slot])
            self._slot = slot

    def _register_places(self, years: tuple[int, int]) -> None:
        """Make `place_days`: the business days of each place that the events known by then name."""
        places = self._usecase.places
        if places is None:
            return
        of_places = {place: calendar.market for place, calendar in places.calendars.items()}
        columns = {"place": pa.array(of_places, pa.string()), "market": pa.array(of_places.values(), pa.string())}
        self.db.register("calendars_of_places", pa.table(columns))
        self.db.register("market_days", market_days(self._usecase.calendars, *years))
        named = " UNION ".join(
            f"SELECT DISTINCT {places.column} AS place FROM {event.name}"
            for event in self._usecase.events
            if places.column in event.contract.__struct_fields__
        )
        self.db.execute(f"CREATE OR REPLACE TEMP VIEW place_days AS {self._days_of(named)}")

    def add_places(self, named: Collection[str]) -> None:
        """Add the business days of places to `place_days`, where that has been made a table."""
        if named:
            self.db.execute(
                f"INSERT INTO place_days {self._days_of('SELECT unnest(?::VARCHAR[]) AS place')}", [list(named)]
            )

    def _days_of(self, named: str) -> str:
        return (
            f"SELECT place, business_date, previous, next FROM ({named}) LEFT JOIN calendars_of_places USING (place) "
            f"JOIN market_days ON market_days.market = coalesce(calendars_of_places.market, "
            f"'{self._usecase.calendar.market}')"
        )

    def features(self, decision: DecisionTime) -> pa.Table:
        """Return the features of the time to which this is set: rows sorted by entity_id, in `features_schema`."""
        made = self._make_what_stays(decision)
        try:
            rows: pa.Table = self.db.sql(self.statement(self._usecase.feature_sql, made)).to_arrow_table()
        except duckdb.Error as error:
            self._one_by_one()
            raise InputError(f"use case {self._usecase.name}: the features' SQL failed: {in_words(error)}") from error
        self._kept, self._kept_at = made & self._lasting, decision
        if rows.num_rows and rows["outcome_date"].null_count == rows.num_rows:
            first, last = years_of_business_days(self._usecase, decision.decision_date)
            raise InputError(
                f"use case {self._usecase.name}: decisions.sql gives no outcome_date for any of the {rows.num_rows} "
                f"decisions of {decision.as_of:%Y-%m-%d %H:%M}, for example {rows['entity_id'][0].as_py()!r}. If it "
                f"asks business_days: that table has the years {first} to {last}"
            )
        return self.sound(decision, rows)

    def sound(self, decision: DecisionTime, rows: pa.Table) -> pa.Table:
        """Return the rows that the SQL gave, without those that nothing can be decided of; refuse an entity twice."""
        rows, refused = sound(rows)
        self.refused += [(decision.as_of, *each) for each in refused]
        ids = rows["entity_id"].combine_chunks()
        if len(ids) > 1 and pc.any(pc.equal(ids[1:], ids[:-1])).as_py():
            self._one_by_one()
        return rows.cast(self.schema)

    def _moves(self, sql: str) -> bool:
        """Return whether the SQL may give other rows at another decision time although the history is the same."""
        use = use_of(sql)
        return use.moving or not use.tables.isdisjoint(
            {"business_days", "place_days", *(table.name.lower() for table in self._usecase.daily)}
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
        """Return the decision time after this one, which is usually asked for next."""
        days = (decision.decision_date, self._usecase.next_decision_date(decision.decision_date))
        times = [time for day in days for time in self._usecase.decision_times(day)]
        return min((time for time in times if time.as_of > decision.as_of), key=lambda time: time.as_of)

    def statement(self, sql: Mapping[str, str], made: frozenset[str]) -> str:
        """Return the SQL of all features at once, of the files' SQL, with the tables that are not made yet."""
        stems = [stem for stem in ("decisions", *self._groups) if stem not in made]
        inner = ", ".join(f"{_table(stem)} AS ({sql[stem]}\n)" for stem in stems)
        joins = "".join(f" LEFT JOIN {_table(stem)} USING (entity_id)" for stem in self._groups)
        return f"{inner and f'WITH {inner} '}SELECT {self._columns} FROM decisions{joins} ORDER BY entity_id"

    def _decides_the_same(self, sql: str) -> bool:
        """Return whether the columns of the decisions that the SQL reads have the same values as before."""
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
            raise InputError(f"use case {self._usecase.name}: {stem}.sql failed: {in_words(error)}") from error

    def refuse_duplicates(self, stem: str, table: str) -> None:
        """Do nothing if the table that the SQL file `stem` gave has each entity once.

        Raises:
            ValueError: it has one twice.
        """
        twice = self.db.execute(
            f"SELECT entity_id FROM {table} GROUP BY entity_id HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if twice:
            raise InputError(
                f"use case {self._usecase.name}: {stem}.sql gives entity {twice[0]!r} more than once; "
                "it must give one row an entity"
            )

    def _refuse_undeclared(self) -> dict[str, str]:
        """Return which SQL file gives each declared feature."""
        declared = {f.name for f in self._usecase.features}
        spine = {column for column, *_ in self.db.execute("DESCRIBE decisions").fetchall()}
        found: dict[str, str] = dict.fromkeys(declared & (spine | {"slot"}), "decisions")
        for stem in self._groups:
            described = self.db.execute(f"DESCRIBE {_table(stem)}").fetchall()
            columns = [column for column, *_ in described if column != "entity_id"]
            if unknown := [column for column in columns if column not in declared]:
                raise InputError(
                    f"use case {self._usecase.name}: {stem}.sql gives {', '.join(map(repr, unknown))}, which "
                    "usecase.py does not declare",
                    to_do="declare a Feature for each, or leave it out of the SQL",
                )
            for column in columns:
                if column in found:
                    raise InputError(
                        f"use case {self._usecase.name}: {column!r} comes from {found[column]}.sql and {stem}.sql"
                    )
                found[column] = stem
        if missing := sorted(declared - set(found)):
            raise InputError(f"use case {self._usecase.name}: no SQL gives the declared features {', '.join(missing)}")
        return found
