"""The lists in memory. A reader has a snapshot, which does not move; the newest list is read again beside it."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy import Engine

from ml_assets.database.work_list import work_list
from ml_assets.desk.pages import Drawn, drawn_rows
from ml_assets.desk.rows import Row, fingerprint, rows_of
from ml_assets.spec import DeskColumn, UseCase

# Rows of a list that are shown. Beyond the team's capacity nobody reads so many.
MOST_ROWS: Final = 2_000
# Snapshots that are kept: those of a day's scorings, for a few use cases.
_KEPT: Final = 40
# A list so old in seconds, since nobody looked at it, is not shown while it is read anew.
_OLD: Final = 1800.0
# How often it is asked what of a list has been closed since its scoring.
_CLOSED_SECONDS: Final = 60.0
# What has been closed since the scoring, and when that was known.
Closed = Mapping[str, datetime]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A list as it was read: `id` tells it from others of the outcome date. `drawn` has the parts of its rows."""

    id: str
    columns: tuple[DeskColumn, ...]
    rows: tuple[Row, ...]
    read_at: datetime
    drawn: Mapping[str, Drawn]

    @property
    def scored_at(self) -> datetime | None:
        """The newest decision time on it."""
        return max((row.decision_time for row in self.rows), default=None)

    def row(self, entity_id: str) -> Row | None:
        """Return the row of an entity."""
        return next((row for row in self.rows if row.entity_id == entity_id), None)


class Lists:
    """Reads lists, each at most every few seconds however many ask, and keeps what readers look at.

    A list that is there is given at once, and read anew in a thread if it is old: only the first reader waits. In a
    thread it is also asked what has been closed since the scoring, at most once a minute.

    Args:
        engine: the application's database.
        clock: the desk's time.
        closing: says which rows of a list have been closed since they were scored, and when that was known.
        every_seconds: how old the newest list may be before it is read again; 0: it is read each time, while one waits.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        clock: Callable[[], datetime],
        closing: Callable[[UseCase, Sequence[Row]], Closed],
        *,
        every_seconds: float = 15.0,
    ) -> None:
        self._engine, self._clock, self._closing, self._every = engine, clock, closing, every_seconds
        self._closed: dict[tuple[str, date], tuple[float, Closed]] = {}
        self._kept: OrderedDict[tuple[str, date, str], Snapshot] = OrderedDict()
        self._newest: dict[tuple[str, date], tuple[float, Snapshot]] = {}
        self._reading: set[tuple[str, date]] = set()
        self._lock = threading.Lock()

    def newest(self, usecase: UseCase, day: date) -> Snapshot:
        """Return the newest list of an outcome date, as it was read last."""
        key = (usecase.name, day)
        with self._lock:
            read_at, known = self._newest.get(key, (0.0, None))
            age = time.monotonic() - read_at
            old = age > self._every
            if known is None or age > _OLD or not self._every:
                known = None
            elif old and key not in self._reading:
                self._reading.add(key)
                threading.Thread(target=self._again, args=(usecase, day), daemon=True).start()
        if known is not None:
            return known
        made = self._read(usecase, day)
        if self._every:
            threading.Thread(target=self._ask_what_is_closed, args=(usecase, day, made), daemon=True).start()
        else:
            self._ask_what_is_closed(usecase, day, made)
        return made

    def closed(self, usecase: UseCase, day: date) -> Closed:
        """Return which rows of the newest list are open no more, and when that was known; as it was asked last."""
        with self._lock:
            return self._closed.get((usecase.name, day), (0.0, {}))[1]

    def snapshot(self, usecase: UseCase, day: date, snapshot_id: str) -> Snapshot | None:
        """Return the list that a reader had; None if it is no longer kept, as after a restart."""
        with self._lock:
            found = self._kept.get((usecase.name, day, snapshot_id))
            if found is not None:
                self._kept.move_to_end((usecase.name, day, snapshot_id))
            return found

    def _again(self, usecase: UseCase, day: date) -> None:
        try:
            self._ask_what_is_closed(usecase, day, self._read(usecase, day))
        except Exception as error:
            # Who asks next is told, if it is so still.
            _LOG.error("%s: the list of %s cannot be read anew: %s", usecase.name, day, error)
        finally:
            with self._lock:
                self._reading.discard((usecase.name, day))

    def _ask_what_is_closed(self, usecase: UseCase, day: date, newest: Snapshot) -> None:
        with self._lock:
            asked, known = self._closed.get((usecase.name, day), (0.0, {}))
            if self._every and asked and time.monotonic() - asked < _CLOSED_SECONDS:
                return
            self._closed[usecase.name, day] = (time.monotonic(), known)
        try:
            found = self._closing(usecase, newest.rows)
        except Exception as error:
            # The list is good without: it is as of its scoring.
            _LOG.error("%s: what of the list of %s has been closed cannot be told: %s", usecase.name, day, error)
            return
        with self._lock:
            self._closed[usecase.name, day] = (time.monotonic(), found)

    def _read(self, usecase: UseCase, day: date) -> Snapshot:
        columns, rows = rows_of(usecase, work_list(self._engine(), usecase.name, day, MOST_ROWS))
        name = fingerprint(rows)
        key = (usecase.name, day, name)
        made = self.snapshot(usecase, day, name)
        if made is None:
            made = Snapshot(name, columns, rows, self._clock(), drawn_rows(rows, f"/{usecase.name}/{day}", name))
        with self._lock:
            made = self._kept.setdefault(key, made)
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            self._newest[usecase.name, day] = (time.monotonic(), made)
        return made
