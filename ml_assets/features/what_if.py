"""What decisions would be if more rows of events were known, at one time: made anew only as far as those rows reach.

DuckDB takes a hundred times longer to plan a use case's SQL than to run it for a few decisions, and views on views are
what it plans longest. So here are tables of what its views show at the time, statements are parsed once, and what does
not depend on the rows that are added is made once:

- A common table expression that reads none of the events that are added to, and no decisions, is **steady**.
- One that reads such an event, but no decisions, such as a counterparty's record, is made for each question and
  **compared** with what it is without added rows. Mostly it is the same, as of an instruction of tomorrow's date in the
  outcomes of the past, and then so is what is made of it alone.
- All else is made for each question, by the SQL of the files as they are.

Files are read by DuckDB's own parser (`features.parts`), and the rows are those that the SQL gives on a history with
the rows added: a property test compares them.
"""

from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import duckdb
import pyarrow as pa

from ml_assets.duck import in_words
from ml_assets.errors import InputError
from ml_assets.features.alone import decides_alone
from ml_assets.features.parts import Parts
from ml_assets.features.session import Session
from ml_assets.features.sql import use_of
from ml_assets.spec import DecisionTime, EventSpec, UseCase

# So many entities are looked for in each row while it is read, which DuckDB does earlier than to join them.
_FEW = 50


class _File:
    """A SQL file: which of its parts need not be made for each question, of those that are the same.

    `moved` are the tables that may be others at each question; the decisions always are.
    """

    def __init__(self, stem: str, sql: str, moved: frozenset[str], *, compare: bool = True) -> None:
        self.stem = stem
        self._parts = parts = Parts(sql)
        free = [n for n in parts.tables if "slot" not in parts.variables[n] and "decisions" not in parts.tables[n]]
        self._steady = frozenset(name for name in free if moved.isdisjoint(parts.tables[name]))
        moving = [name for name in free if name not in self._steady]
        self._follow = [name for name in moving if moved.isdisjoint(parts.direct[name])]
        before = frozenset[str]().union(*(parts.parts[name] for name in self._follow))
        # Of those that move by themselves: where something follows from them alone, it pays to compare them.
        self._compared = [name for name in moving if compare and name not in self._follow and name in before]
        # The tables of parts, by part; and of each compared one the SQL of what tells it from others, and what that is
        # without added rows.
        self._tables: dict[str, str] = {}
        self._telling: dict[str, str] = {}
        self._prints: dict[str, tuple[Any, ...]] = {}
        self._written: dict[frozenset[str], str] = {}

    @property
    def reads(self) -> frozenset[str]:
        """The tables that are read for each question."""
        made = (self._parts.direct[name] for name in self._parts.parts if name not in self._steady)
        return self._parts.outermost.union(*made)

    def make(self, ask: "_Asking") -> None:
        """Make the tables of the parts, as they are without added rows."""
        wanted = self._seen(self._steady) | self._seen(self._same(frozenset(self._compared)))
        for number, name in enumerate(one for one in self._parts.tables if one in wanted):
            table = f"part_{number}_of_{self.stem}"
            ask(f"CREATE TEMP TABLE {table} AS {self._parts.alone(name, self._tables)}")
            self._tables[name] = table
        steady = {name: table for name, table in self._tables.items() if name in self._steady}
        self._telling = {name: _told_apart(self._parts.alone(name, steady)) for name in self._compared}
        self._prints = {name: ask(sql)[0] for name, sql in self._telling.items()}

    def sql(self, ask: "_Asking") -> str:
        """Return the SQL for what the connection sees now."""
        same = frozenset(name for name, sql in self._telling.items() if ask(sql)[0] == self._prints[name])
        if same not in self._written:
            free = self._same(same)
            self._written[same] = self._parts.reading({n: table for n, table in self._tables.items() if n in free})
        return self._written[same]

    def _same(self, compared: frozenset[str]) -> frozenset[str]:
        """Return the parts that are the same if these of the compared ones are."""
        found = self._steady | compared
        for name in self._follow:
            if self._parts.parts[name] <= found:
                found |= {name}
        return found

    def _seen(self, same: frozenset[str]) -> frozenset[str]:
        """Return those of the same parts that anything else names."""
        others = (self._parts.parts[name] for name in self._parts.parts if name not in same)
        return same & self._parts.named.union(*others)


def _told_apart(rows: str) -> str:
    """Return the SQL of what tells rows from others, in whatever order they come: two sums of 64-bit hashes."""
    return f"SELECT count(*), sum(hash(now)), sum(hash(now, 1)) FROM ({rows}) AS now"


class _Asking:
    """A connection that parses each statement once: DuckDB's parser takes milliseconds where parentheses are nested."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self.db = db
        self._parsed: dict[str, duckdb.Statement] = {}

    def __call__(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.db.execute(self._statement(sql), list(parameters) or None).fetchall()

    def table(self, sql: str, *parameters: object) -> pa.Table:
        """Return the few rows of a SELECT; for Arrow from DuckDB itself it would be planned twice."""
        rows = self(sql, *parameters)
        names = [name for name, *_ in self.db.description]
        return pa.table([pa.array(column) for column in zip(*rows, strict=True)] or [[]] * len(names), names=names)

    def _statement(self, sql: str) -> duckdb.Statement:
        if sql not in self._parsed:
            (self._parsed[sql],) = self.db.extract_statements(sql)
        return self._parsed[sql]


class WhatIf:
    """A connection that stands at a time, and answers what decisions would be if rows of some events were added.

    Args:
        session: of a connection of its own, which stands nowhere yet; features have been made, so its SQL is sound.
        usecase: the use case.
        history: the schema of the history.
        decision: a decision time; questions may be about each slot of the same time and date.
        events: names of the events of which rows may be added.
    """

    def __init__(
        self, session: Session, usecase: UseCase, history: str, decision: DecisionTime, events: frozenset[str]
    ) -> None:
        self._session, self._usecase, self._db = session, usecase, session.db
        self._ask, self._turn = _Asking(session.db), Lock()
        self._added_to = [event for event in usecase.events if event.name in events]
        self._by_slot = any("slot" in use_of(sql).variables for sql in usecase.daily_sql.values())
        session.stand_at(decision.as_of, decision.decision_date, decision.slot)

        moved = {name.lower() for event in self._added_to for name in event.tables} | {"decisions"}
        if any(self._names_places(event) for event in self._added_to):
            moved.add("place_days")
        self._today = [_File(t.name, usecase.daily_sql[t.name], frozenset(moved), compare=False) for t in usecase.daily]
        self._today = [
            file
            for file in self._today
            if self._by_slot or not moved.isdisjoint(use_of(usecase.daily_sql[file.stem]).tables)
        ]
        moved |= {file.stem.lower() for file in self._today}
        self._files = {stem: _File(stem, sql, frozenset(moved)) for stem, sql in usecase.feature_sql.items()}

        self._reads = frozenset[str]().union(*(file.reads for file in (*self._today, *self._files.values())))
        self._open_history()
        for table in usecase.daily:
            self._open_daily(table.name, table.history.days, history)
        self._ask(f"CREATE TEMP TABLE decisions AS SELECT * FROM ({usecase.feature_sql['decisions']}\n) LIMIT 0")
        for file in (*self._today, *self._files.values()):
            file.make(self._ask)
        for file in self._today:
            self._ask(f"DELETE FROM today_{file.stem}")
        self._alone = all(decides_alone(sql) for stem, sql in usecase.feature_sql.items() if stem != "decisions")

    def _names_places(self, event: EventSpec) -> bool:
        places = self._usecase.places
        return places is not None and places.column in event.contract.__struct_fields__

    def _open_history(self) -> None:
        """Make tables of what the views show, of those that are read for each question."""
        self._columns: dict[str, set[str]] = {}
        views = {name for event in self._usecase.events for name in event.tables}
        views |= {reference.name for reference in self._usecase.references}
        for view in sorted(name for name in views if name.lower() in self._reads):
            self._ask(f"CREATE TEMP TABLE {view} AS FROM memory.main.{view}")
            self._columns[view] = {column for column, *_ in self._ask(f"DESCRIBE {view}")}
        self._keys: dict[str, frozenset[tuple[Any, ...]]] = {}
        for event in self._added_to:
            tables = [table for table in event.tables if table in self._columns]
            asked = (self._ask(f"SELECT {', '.join(event.key)} FROM {table}") for table in tables)
            self._keys[event.name] = frozenset[tuple[Any, ...]]().union(*asked)
        self._places = frozenset[str]()
        if "place_days" in self._reads:
            self._ask("CREATE TEMP TABLE days_of_places AS FROM place_days")
            self._ask("DROP VIEW place_days")
            self._ask("ALTER TABLE days_of_places RENAME TO place_days")
            self._places = frozenset(p for (p,) in self._ask("SELECT DISTINCT place FROM place_days"))

    def _open_daily(self, name: str, days: int, history: str) -> None:
        """Make what a daily table has of today, and the table of all days."""
        self._ask(f"CREATE TEMP TABLE today_{name} AS SELECT * FROM ({self._usecase.daily_sql[name]}\n)")
        self._ask(
            f"CREATE TEMP TABLE before_{name} AS FROM {history}.daily_{name} "
            "WHERE known_date < getvariable('decision_date')::DATE "
            f"AND known_date >= getvariable('decision_date')::DATE - {days}"
        )
        self._ask(
            f"CREATE TEMP VIEW {name} AS FROM before_{name} "
            f"UNION ALL SELECT getvariable('decision_date')::DATE AS known_date, * FROM today_{name}"
        )

    def close(self) -> None:
        """Close the connection."""
        with self._turn:
            self._db.close()

    def rows(
        self, decisions: Sequence[DecisionTime], added: Mapping[str, pa.Table], entities: Iterable[str]
    ) -> pa.Table:
        """Return the rows of entities, each by the first of the decision times that lists it, in `features_schema`.

        Raises:
            ValueError: the SQL fails.
            MemoryError: there is not enough memory for it.
        """
        left, parts = set(entities), [self._session.schema.empty_table()]
        with self._turn:
            self._db.begin()
            try:
                for event in self._added_to:
                    self._add(event, added[event.name])
                for decision in decisions if left else ():
                    self._session.stand_in(decision.slot)
                    if decision is decisions[0] or self._by_slot:
                        sql = self._look()
                    parts.append(self._made(sql, decision, sorted(left)))
                    left -= set(parts[-1]["entity_id"].to_pylist())
                    if not left:
                        break
            except duckdb.OutOfMemoryException as error:
                raise MemoryError(str(error)) from error
            except duckdb.Error as error:
                raise InputError(
                    f"use case {self._usecase.name}: the features' SQL failed: {in_words(error)}"
                ) from error
            finally:
                self._db.rollback()
        return pa.concat_tables(parts)

    def _add(self, event: EventSpec, rows: pa.Table) -> None:
        """Add rows of an event; one of a key that is there replaces it, and columns that they lack are empty."""
        same = " AND ".join(f"kept.{name} = incoming.{name}" for name in event.key)
        tables = [table for table in event.tables if table in self._columns]
        self._db.register("incoming", rows)
        if not self._keys[event.name].isdisjoint(zip(*(rows[name].to_pylist() for name in event.key), strict=True)):
            self._replace(event, tables, same)
        for table in tables:
            columns = ", ".join(f'"{name}"' for name in rows.column_names if name in self._columns[table])
            self._ask(f"INSERT INTO {table} BY NAME SELECT {columns} FROM incoming")
        self._db.unregister("incoming")
        if self._usecase.places and self._names_places(event) and "place_days" in self._reads:
            self._session.add_places(set(rows[self._usecase.places.column].to_pylist()) - self._places)

    def _replace(self, event: EventSpec, tables: Sequence[str], same: str) -> None:
        """Let the rows of keys that come again be older versions: one table has none of these, the other says when."""
        for table in tables:
            if table == event.name:
                self._ask(f"DELETE FROM {table} AS kept USING incoming WHERE {same}")
            else:
                key = ", ".join(event.key)
                self._ask(
                    f"UPDATE {table} AS kept SET replaced_at = least(kept.replaced_at, incoming.known_at) "
                    f"FROM (SELECT {key}, min(known_at) AS known_at FROM incoming GROUP BY {key}) AS incoming "
                    f"WHERE {same}"
                )

    def _look(self) -> dict[str, str]:
        """Make what today's parts are with the added rows; return the SQL of the files, by how far these reach."""
        for file in self._today:
            if self._by_slot:
                self._ask(f"DELETE FROM today_{file.stem}")
            self._ask(f"INSERT INTO today_{file.stem} {file.sql(self._ask)}")
        return {stem: file.sql(self._ask) for stem, file in self._files.items()}

    def _made(self, sql: Mapping[str, str], decision: DecisionTime, entities: Sequence[str]) -> pa.Table:
        """Return the rows of entities at one of the decision times; where decisions are compared, all are made."""
        wanted = "list_contains(?::VARCHAR[], entity_id)"
        if len(entities) > _FEW:
            wanted = "entity_id IN (SELECT unnest(?::VARCHAR[]))"
        asked = list(entities)
        self._ask("DELETE FROM decisions")
        listed = f"INSERT INTO decisions SELECT * FROM ({sql['decisions']}\n)"
        ((count,),) = self._ask(f"{listed} WHERE {wanted}", asked) if self._alone else self._ask(listed)
        if not count:
            return self._session.schema.empty_table()
        made = self._session.statement(sql, frozenset({"decisions"}))
        rows = self._ask.table(made) if self._alone else self._ask.table(f"FROM ({made}) WHERE {wanted}", asked)
        return self._session.sound(decision, rows.sort_by("entity_id"))
