"""Features of many past dates, some dates at a time: the rows are made by an engine, here or elsewhere.

Whatever the engine, the same code makes the rows of a date (`make_dates`), and the rows are written here. Parts of
daily tables that the lake lacks are made and written here too, in the order of their days and before the rows that see
them: so those who make the rows find all parts in the lake, and the same ones. A date that fails keeps the rows that it
had.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Protocol

import msgspec
import pyarrow as pa
from deltalake.exceptions import DeltaError

from ml_assets.errors import ActionableError
from ml_assets.features import features_schema
from ml_assets.lake import Batches, Lake, features_table, in_turn
from ml_assets.lifecycle.features import DecisionReport, Due, FeatureMaker, MadeDate, due_of, write_features
from ml_assets.spec import UseCase

# Dates that are made and written at a time, and at most lost if the process ends.
AT_ONCE = 20
# What a person can act on without a traceback.
_FORESEEN = (ActionableError, DeltaError, OSError)


class FailedDate(msgspec.Struct, frozen=True):
    """A date of which no rows could be made, and why: what the error says, with the SQL file and line if it has them.

    Of an error that is nobody's input, a bug, `why` is the traceback.
    """

    day: date
    why: str


@dataclass(frozen=True, slots=True)
class MadeRows:
    """What an engine made: what is to be said of each date, in order, and the rows of those that did not fail."""

    dates: Sequence[MadeDate | FailedDate]
    rows: pa.Table | Batches


class Engine(Protocol):
    """Where the rows of dates are made."""

    def make(self, lake: Lake, usecase: UseCase, due: Due) -> AbstractContextManager[MadeRows]:
        """Make the rows of all dates that are due; they can be read within the block."""


@dataclass(frozen=True, slots=True)
class Written:
    """Dates that were done: what was written of them, None if nothing, and which of them failed."""

    dates: tuple[date, ...]
    report: DecisionReport | None
    failed: tuple[FailedDate, ...]


def backfill(
    lake: Lake,
    usecase: UseCase,
    dates: Sequence[date],
    engine: Engine,
    *,
    at_once: int = AT_ONCE,
    until: datetime | None = None,
    threads: int = 0,
) -> Iterator[Written]:
    """Make the features of these dates, `at_once` of them at a time, in order; yield each time what was written.

    Decision times after `until` are left for later, as in `compute_features`. It ends early where all dates that were
    made at once have failed: what they lack the others will lack too.

    Raises:
        ValueError: the SQL of a daily table fails.
        PartitionBusyError: other runs made some of the dates each time while this one did; they have seen more.
    """
    days = sorted(set(dates))
    for start in range(0, len(days), at_once):
        some = tuple(days[start : start + at_once])
        # Where a run of somebody else makes some of them meanwhile, they are made again: it may have seen more.
        written = in_turn(
            partial(_make_some, lake, usecase, some, engine, until, threads),
            f"{features_table(usecase)}, {some[0]} to {some[-1]}",
        )
        yield written
        if written.report is None:
            return


def _make_some(
    lake: Lake, usecase: UseCase, dates: tuple[date, ...], engine: Engine, until: datetime | None, threads: int
) -> Written:
    due = due_of(lake, usecase, dates, until=until)
    with FeatureMaker(lake, usecase, due, threads=threads) as maker:
        daily_made = maker.keep_daily()
    with engine.make(lake, usecase, due) as made:
        good = [one for one in made.dates if isinstance(one, MadeDate)]
        failed = tuple(one for one in made.dates if isinstance(one, FailedDate))
        report = None
        if good:
            report = write_features(lake, usecase, due, good, made.rows, daily_made=daily_made)
    return Written(dates, report, failed)


def make_dates(
    lake: Lake, usecase: UseCase, due: Due, *, threads: int = 0
) -> Iterator[tuple[MadeDate | FailedDate, pa.Table]]:
    """Yield the rows of each date that is due and what is to be said of them; of a date that fails, none and why."""
    nothing = features_schema(usecase.features).empty_table()

    def failed(day: date, error: Exception) -> tuple[FailedDate, pa.Table]:
        why = str(error) if isinstance(error, _FORESEEN) else "".join(traceback.format_exception(error))
        return FailedDate(day, why.strip()), nothing

    try:
        maker = FeatureMaker(lake, usecase, due, threads=threads)
    except Exception as error:
        yield from (failed(day, error) for day in due.times)
        return
    with maker:
        for day in due.times:
            try:
                made: tuple[MadeDate | FailedDate, pa.Table] = maker.make(day)
            except Exception as error:
                made = failed(day, error)
            yield made


class LocalEngine:
    """Makes the rows in this process, one date after the other; each date on as many threads as there are."""

    def __init__(self, *, threads: int = 0, progress: Callable[[date], None] = lambda _: None) -> None:
        self._threads = threads
        self._progress = progress

    @contextmanager
    def make(self, lake: Lake, usecase: UseCase, due: Due) -> Iterator[MadeRows]:
        """Make the rows of all dates that are due."""
        said, parts = [], [features_schema(usecase.features).empty_table()]
        for one, rows in make_dates(lake, usecase, due, threads=self._threads):
            said.append(one)
            parts.append(rows)
            self._progress(one.day)
        yield MadeRows(said, pa.concat_tables(parts))
