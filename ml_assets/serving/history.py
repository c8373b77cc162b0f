"""The history from which the live table is made, kept in memory and updated from the logs of the lake.

It has the rows that a batch would read if it ran now. A business date with landed rows that are not in the curated
table yet is curated here, by the function that curates it for the lake, and so is each date that lands from now on.
Only business dates that have changed are read again. If reading fails halfway, all is forgotten and read anew: what was
noted of a change before it was read would hide it for ever.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.features import AsOfDatabase, DailyParts, columns_read, daily_days
from ml_assets.features.days import day_of
from ml_assets.lake import Lake, curated_table, landing_table, reference_table
from ml_assets.landing.curate import curate, read_events
from ml_assets.landing.landed import DateState, Landed, look
from ml_assets.landing.schemas import COORDINATES, DEAD_LETTERS, curated_schema
from ml_assets.lifecycle.daily import CLOCKS_AHEAD, PartInputs, look_for_parts
from ml_assets.lifecycle.features import in_reach
from ml_assets.spec import EventSpec, UseCase

# A curated date is used as it is if it was written this long after its newest row landed: that row is in it then,
# because the clocks of two machines differ by less.
_SETTLED = timedelta(minutes=5)


class LiveHistory:
    """The rows of a use case that decisions from now on can see. It is not thread-safe."""

    def __init__(self, lake: Lake, usecase: UseCase, *, threads: int = 1) -> None:
        self._lake, self._usecase, self._threads = lake, usecase, threads
        self._forget()

    def _forget(self) -> None:
        self._versions: dict[str, int | None] = {}
        self._landed: dict[str, Landed] = {}
        self._curated: dict[str, dict[date, list[str]]] = {}
        self._events: dict[str, dict[date, pa.Table]] = {event.name: {} for event in self._usecase.events}
        self._references: dict[str, pa.Table] = {}
        self._first: date | None = None
        self._parts = DailyParts()
        self._open: AsOfDatabase | None = None
        self._day: date | None = None

    def look(self, day: date) -> bool:
        """Load what has changed, for decisions of `day`; return whether a database opened before is out of date."""
        with self._all_or_nothing():
            return self._look(day)

    def database(self) -> AsOfDatabase:
        """Return the history as a database; it is the same one until something has changed."""
        with self._all_or_nothing():
            return self._database()

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._forget()
            raise

    def _look(self, day: date) -> bool:
        begun = self._first is not None
        if day != self._day:
            self._begin(day)
        moved = [self._look_at(event) for event in self._usecase.events]
        moved += [self._look_at_reference(reference.name) for reference in self._usecase.references]
        if any(moved) or not begun:
            self._open = None
        return self._open is None

    def _database(self) -> AsOfDatabase:
        assert self._day is not None and self._first is not None  # noqa: S101, PT018 - `look` comes first
        if self._open is None:
            days = daily_days(self._usecase, [self._day]) if self._usecase.daily else []
            missing = [each for each in days if each not in self._parts.days]
            first = min([self._day, *missing])
            if first < self._first:
                self._first = first
                for event in self._usecase.events:
                    self._load(event)
            self._open = AsOfDatabase(
                self._usecase,
                {
                    event.name: table
                    for event in self._usecase.events
                    if (table := self._rows(event, first)) is not None
                },
                self._references,
                daily=self._parts,
                threads=self._threads,
            )
            if self._usecase.daily:
                self._open.make_daily(missing)
                self._parts = self._open.daily_parts(days)
        return self._open

    @property
    def newest(self) -> datetime | None:
        """When the newest of the rows was known; None if there are none."""
        known = [pc.max(rows["known_at"]).as_py() for of in self._events.values() for rows in of.values() if len(rows)]
        return max(known, default=None)

    @property
    def landed_until(self) -> datetime | None:
        """When the newest of what has landed did, by the lander's clock; None if nothing has."""
        states = (state for event in self._usecase.events for state in self._states(event).values())
        return max((state.landed_until for state in states), default=None)

    def _begin(self, day: date) -> None:
        """Take up a decision date: the parts of daily tables that the lake keeps still count."""
        self._open, self._day = None, day
        self._first = min(day, self._first or day)
        if self._usecase.daily and not self._parts.days:
            kept = look_for_parts(self._lake, self._usecase, PartInputs(self._lake, self._usecase), [day])
            self._parts = kept.parts
        self._first = min([self._first, *self._missing(day)])
        for event in self._usecase.events:
            self._load(event)
            # The parts that the lake keeps were made without rows that have landed and are not curated in the lake.
            states = self._states(event)
            for at in self._from_landing(event):
                files = self._lake.files(landing_table(event.topic), "business_date", kind="event")
                known = [f.known_from for f in files if f.partition == at and f.known_from is not None]
                self._forget_parts(min(known, default=None) if states[at].rows else None)

    def _missing(self, day: date) -> list[date]:
        if not self._usecase.daily:
            return []
        return [each for each in daily_days(self._usecase, [day]) if each not in self._parts.days]

    def _states(self, event: EventSpec) -> Mapping[date, DateState]:
        return self._landed.get(event.name, Landed()).landed.get(event.topic, {})

    def _reach(self, event: EventSpec, at: date) -> bool:
        assert self._first is not None and self._day is not None  # noqa: S101, PT018
        return self._first - event.history <= at <= self._day + CLOCKS_AHEAD

    def _load(self, event: EventSpec) -> None:
        """Read the business dates in reach that are not in memory yet."""
        assert self._first is not None and self._day is not None  # noqa: S101, PT018
        if event.name not in self._landed:
            self._note(event)
            self._landed[event.name], _ = look(self._lake, [event])
            self._curated[event.name] = self._curated_files(event)
        here = self._events[event.name]
        stale = self._from_landing(event)
        wanted = [at for at in {*self._curated[event.name], *self._states(event)} if self._reach(event, at)]
        absent = [at for at in wanted if at not in here]
        settled = [at for at in absent if at not in stale]
        dataset = self._lake.dataset(curated_table(self._usecase, event))
        if settled and dataset is not None:
            names = [name for name in self._columns(event) if name in dataset.schema.names]
            reach = in_reach(event.history, self._first, self._day)
            rows = dataset.to_table(columns=names, filter=reach)
            for at in settled:
                here[at] = rows.filter(pc.equal(rows["business_date"], pa.scalar(at, pa.date32())))
        self._curate(event, [at for at in absent if at in stale])

    def _from_landing(self, event: EventSpec) -> set[date]:
        """Return the dates whose curated partition may lack rows that have landed."""
        written: dict[date, datetime] = {}
        for file in self._lake.files(curated_table(self._usecase, event), "business_date"):
            written[file.partition] = max(file.modified_at, written.get(file.partition, file.modified_at))
        return {
            at
            for at, state in self._states(event).items()
            if state.rows
            and self._reach(event, at)
            and (at not in written or written[at] < state.landed_until + _SETTLED)
        }

    def _curate(self, event: EventSpec, dates: list[date]) -> None:
        if not dates:
            return
        landed = read_events(self._lake, event, dates)
        rows = curate(event, landed, DEAD_LETTERS.empty_table(), threads=self._threads).curated
        names = [name for name in self._columns(event) if name in rows.column_names]
        for at in dates:
            mine = rows.filter(pc.equal(rows["business_date"], pa.scalar(at, pa.date32())))
            self._events[event.name][at] = mine.select(names)

    def _columns(self, event: EventSpec) -> list[str]:
        there = set(curated_schema(event).names)
        return [name for name in columns_read(self._usecase, event) if name in there or name not in COORDINATES.names]

    def _look_at(self, event: EventSpec) -> bool:
        """Load the dates of an event that have changed; return whether any has."""
        if not self._note(event):
            return False
        before = self._landed[event.name]
        self._landed[event.name], change = look(self._lake, [event], before)
        dates = [at for at in change.dates if self._reach(event, at) and at in self._states(event)]
        if dates:
            self._curate(event, dates)
            self._forget_parts(change.known_from)
        curated, files = self._curated[event.name], self._curated_files(event)
        rewritten = {at for at in {*curated, *files} if curated.get(at) != files.get(at)}
        # Dates with landed rows are in memory already; a date without landed rows is read from the curated table.
        dates += (written := [at for at in rewritten if self._reach(event, at) and at not in self._states(event)])
        self._curated[event.name] = files
        for at in written:
            old = self._events[event.name].pop(at, None)
            self._load(event)
            new = self._events[event.name].get(at)
            known = [pc.min(rows["known_at"]).as_py() for rows in (old, new) if rows is not None and len(rows)]
            self._forget_parts(min(known, default=None))
        return bool(dates)

    def _look_at_reference(self, name: str) -> bool:
        spec = next(one for one in self._usecase.references if one.name == name)
        table = reference_table(self._usecase, spec)
        version = self._lake.version(table)
        if name in self._references and self._versions.get(table) == version:
            return False
        self._versions[table] = version
        if version is None:
            return False
        before, now = self._references.get(name), self._lake.read(table, version=version)
        self._references[name] = now
        if before is not None and not before.equals(now):
            self._forget_parts(min(pc.min(rows["known_at"]).as_py() for rows in (before, now) if len(rows)))
        return True

    def _note(self, event: EventSpec) -> bool:
        """Store the versions of an event's tables; return whether they have changed."""
        tables = (landing_table(event.topic), curated_table(self._usecase, event))
        now = {table: self._lake.version(table) for table in tables}
        moved = any(self._versions.get(table, -1) != version for table, version in now.items())
        self._versions |= now
        return moved

    def _curated_files(self, event: EventSpec) -> dict[date, list[str]]:
        found = self._lake.file_names(curated_table(self._usecase, event), "business_date")
        return {at: sorted(names) for at, names in found.items() if at is not None}

    def _forget_parts(self, known: datetime | None) -> None:
        """Forget the daily parts of the days that could see a row known at the time `known`."""
        if known is None or not self._parts.days:
            return
        days = frozenset(each for each in self._parts.days if each < day_of(known))
        if days != self._parts.days:
            wanted = pa.array(sorted(days), pa.date32())
            tables = {
                name: rows.filter(pc.is_in(rows["known_date"], wanted)) for name, rows in self._parts.tables.items()
            }
            self._parts = DailyParts(days, tables)

    def _rows(self, event: EventSpec, first: date) -> pa.Table | None:
        here = [rows for at, rows in sorted(self._events[event.name].items()) if at >= first - event.history]
        return pa.concat_tables(here, promote_options="default") if here else None
