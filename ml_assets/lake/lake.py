"""Read, replace a partition, append once: the three things that the lifecycle does to a Delta table."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from ml_assets.duck import spill_folder
from ml_assets.errors import InputError, StateError
from ml_assets.lake.opened import Opened, Snapshot

if TYPE_CHECKING:
    import pyarrow.dataset as ds

# A reader holds some row groups in memory; a million rows each, as by default, would be too many.
_WRITER = WriterProperties(compression="ZSTD", max_row_group_size=131_072)
# Of rows on their way to the writer: made and read once, so fast comes before small.
_SPILLED = pa.ipc.IpcWriteOptions(compression="lz4")
# Features of other writers that deltalake reads.
_READ_FEATURES = {"timestampNtz"}
# In Spark's SQL, what must come before a feature can be dropped.
_BEFORE_DROP = {
    "columnMapping": ("ALTER TABLE {where} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'none')",),
    "deletionVectors": (
        "ALTER TABLE {where} SET TBLPROPERTIES ('delta.enableDeletionVectors' = false)",
        "REORG TABLE {where} APPLY (PURGE)",
    ),
}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a table: its partition, and the range of `known_at` and the newest `landed_at` in it if it has them.

    `modified_at` is when the file was written; compaction changes it, but not `landed_until`.
    """

    partition: date
    rows: int
    modified_at: datetime
    known_from: datetime | None
    known_until: datetime | None
    landed_until: datetime | None


@dataclass(frozen=True, slots=True)
class RangedFile:
    """A file of a table: the values of its partition columns, and the least and largest value of other columns.

    A column of which the log keeps no range is not in `ranges`. Ranges of times are cut to milliseconds.
    """

    values: Mapping[str, Any]
    rows: int
    ranges: Mapping[str, tuple[Any, Any]]
    path: str
    filesystem: pa.fs.FileSystem
    schema: pa.Schema

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of its rows, without partition columns; one that was added to the table later is null."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path, filesystem=self.filesystem, pre_buffer=True) as file:
            there = frozenset(file.schema_arrow.names)
            rows = file.read(columns=[name for name in columns if name in there])
        schema = pa.schema([self.schema.field(name) for name in columns])
        return pa.Table.from_arrays(
            [rows[f.name].cast(f.type) if f.name in there else pa.nulls(self.rows, f.type) for f in schema],
            schema=schema,
        )


@dataclass(frozen=True, slots=True)
class Batches:
    """Rows of a schema that are made some at a time: `make` begins anew at each call."""

    schema: pa.Schema
    make: Callable[[], Iterable[pa.Table]]

    @contextmanager
    def at_hand(self) -> Iterator[Callable[[], pa.RecordBatchReader]]:
        """Make the rows, into a file where there is room, and give what reads them from there as a stream.

        The writer would make them on the threads with which deltalake speaks to the store. What they are made of comes
        from the same store: on one core nobody is left to read it, and it hangs.
        """
        with tempfile.NamedTemporaryFile(dir=spill_folder(), suffix=".arrow") as file:
            with pa.ipc.new_stream(file.name, self.schema, options=_SPILLED) as stream:
                for rows in self.make():
                    stream.write_table(rows)
            yield lambda: pa.ipc.open_stream(pa.OSFile(file.name))


@contextmanager
def _checked(
    rows: pa.Table | Batches, check: Callable[[pa.Table], pa.Table]
) -> Iterator[Callable[[], pa.Table | pa.RecordBatchReader]]:
    """Give what hands out the rows, which passed the check, as often as they are to be written."""
    if isinstance(rows, Batches):
        with Batches(rows.schema, lambda: map(check, rows.make())).at_hand() as reader:
            yield reader
    else:
        checked = check(rows)
        yield lambda: checked


class Lake:
    """Delta tables below one root, a folder or an `s3://` prefix. Threads may share it.

    A table that has been read is kept open (`lake.opened`), and only commits since then are read from its log: opening
    it takes several times as long as finding that there are none. Whoever reads gets the newest version all the same.
    """

    def __init__(self, root: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = root.rstrip("/")
        self.options = dict(storage_options or {})
        self.writer = _WRITER
        self._opened: dict[str, Opened] = {}

    def uri(self, table: str) -> str:
        """Return the address of a table."""
        return f"{self.root}/{table}"

    def table(self, name: str, version: int | None = None) -> DeltaTable | None:
        """Return the Delta table, opened for the caller alone, or None if nothing has been written to it yet.

        Raises:
            ForeignTableError: somebody else has given it a feature that we cannot read.
        """
        try:
            table = DeltaTable(self.uri(name), version=version, storage_options=self.options)
        except TableNotFoundError:
            return None
        _refuse_foreign_features(name, table)
        return table

    @contextmanager
    def _newest(self, name: str) -> Iterator[Opened | None]:
        """Yield a table at its newest version, None if there is none; it is kept unless the block fails.

        While one thread has it another opens its own: a handle moves, and who moves it must be alone.
        """
        opened = self._opened.pop(name, None)
        if opened is None or not opened.catch_up():
            table = self.table(name)
            opened = None if table is None else Opened(table, self.uri(name), self.options)
        if opened is not None:
            _refuse_foreign_features(name, opened.table)
        before = opened and opened.version
        yield opened
        if opened is not None:
            if opened.version != before:
                opened.note()
            self._opened[name] = opened

    def _snapshot(self, name: str, version: int | None = None) -> Snapshot | None:
        """Return what a version of a table holds, by default the newest; None if there is no table."""
        try:
            with self._newest(name) as opened:
                if opened is None or version in (None, opened.version):
                    return None if opened is None else opened.snapshot()
        except ForeignTableError:
            if version is None:  # what was before the newest may be readable
                raise
        table = self.table(name, version)
        return None if table is None else Opened(table, self.uri(name), self.options).snapshot()

    def version(self, name: str) -> int | None:
        """Return the newest version of a table, or None if it does not exist."""
        with self._newest(name) as opened:
            return None if opened is None else opened.version

    def versions(self, names: Iterable[str]) -> dict[str, int]:
        """Return the newest version of each of these tables that exists."""
        return {name: version for name in names if (version := self.version(name)) is not None}

    def positions(self, name: str, app_ids: Iterable[str]) -> dict[str, int]:
        """Return the position of each application in a table's log; 0 for one never seen."""
        with self._newest(name) as opened:
            return {one: 0 if opened is None else int(opened.table.transaction_version(one) or 0) for one in app_ids}

    def dataset(self, name: str, version: int | None = None) -> ds.Dataset | None:
        """Return a table as an Arrow dataset that pushes filters down, or None if it does not exist."""
        snapshot = self._snapshot(name, version)
        return None if snapshot is None else snapshot.dataset

    def files_with_ranges(self, name: str, columns: Iterable[str]) -> list[RangedFile]:
        """Return the files of a table with the ranges of these columns, from the log alone; empty if there is no table.

        So the files to read can be chosen before any file is opened.
        """
        snapshot = self._snapshot(name)
        if snapshot is None:
            return []
        wanted, partitions = list(columns), snapshot.partition_columns
        logged = snapshot.logged(
            [
                *("path", "num_records"),
                *(f"partition.{column}" for column in partitions),
                *(f"{end}.{column}" for column in wanted for end in ("min", "max")),
            ]
        )
        found = []
        for file in logged:
            ends = {column: (file[f"min.{column}"], file[f"max.{column}"]) for column in wanted}
            found.append(
                RangedFile(
                    values={column: file[f"partition.{column}"] for column in partitions},
                    rows=int(file["num_records"]),
                    ranges={column: of for column, of in ends.items() if None not in of},
                    path=unquote(file["path"]),
                    filesystem=snapshot.filesystem,
                    schema=snapshot.schema,
                )
            )
        return found

    def read(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        where: ds.Expression | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Return rows of a table.

        Raises:
            FileNotFoundError: nothing has been written to the table yet.
        """
        dataset = self.dataset(name, version)
        if dataset is None:
            raise FileNotFoundError(
                f"the lake has no table {self.uri(name)}; materialize the asset that writes it first"
            )
        return dataset.to_table(columns=list(columns) if columns is not None else None, filter=where)

    def files_without(
        self, name: str, columns: Iterable[str], *, where: ds.Expression | None = None, version: int | None = None
    ) -> list[tuple[str, frozenset[str]]]:
        """Return the data files that lack some of these columns, each with what it lacks.

        They were written before the columns were added; Delta reads nulls there. Partition columns are in no file and
        must not be among `columns`.
        """
        dataset = self.dataset(name, version)
        wanted = frozenset(columns)
        found = []
        for fragment in () if dataset is None else dataset.get_fragments(where):
            if lacking := wanted.difference(fragment.physical_schema.names):
                found.append((str(fragment.path), lacking))
        return sorted(found)

    def stand(self, name: str) -> int:
        """Return the version at which a table stands, for `since` of `replace`; 0 if it has not been made."""
        return self.version(name) or 0

    def replace(
        self,
        name: str,
        rows: pa.Table | Batches,
        partition_column: str,
        partitions: Iterable[date],
        *,
        since: int | None = None,
    ) -> int:
        """Replace whole partitions in one atomic commit, also by nothing, and return the new version.

        `rows` must lie within `partitions`; partitions without rows end up empty. Of `Batches` some are in memory, and
        all of them on the disk, for a while.

        If another writer of the same partitions is faster, this waits and writes everything again: the last one stays.
        With `since`, what `stand` said before anything was read of which the rows are made, it gives up instead: the
        other one may have seen more. Whoever made the rows makes them again (`in_turn`). Writers of other partitions
        are in nobody's way.

        Raises:
            ValueError: a row lies outside the partitions.
            PartitionBusyError: other writers were faster each time; nothing was written.
            CommitFailedError: some of the partitions have been replaced after `since`; nothing was written.
            ForeignTableError: somebody else has changed the table so that it cannot be written.
        """
        days = sorted(set(partitions))

        def within(part: pa.Table) -> pa.Table:
            present = set(part.column(partition_column).unique().to_pylist())
            if stray := sorted(present - set(days)):
                raise InputError(
                    f"{name}: rows of {partition_column} {stray[0]} do not belong to the replaced partitions"
                )
            return part

        listed = ", ".join(f"'{day.isoformat()}'" for day in days)

        def write(given: Callable[[], pa.Table | pa.RecordBatchReader]) -> int:
            with self._newest(name) as opened:
                table = opened.table if opened else self.create(name, rows.schema, [partition_column])
                if since is not None and since != table.version():
                    # The format's own check of conflicts begins at the version of the table that is written to.
                    table = DeltaTable(self.uri(name), version=since, storage_options=self.options)
                _refuse_foreign_columns(name, table, rows.schema)
                write_deltalake(
                    table,
                    given(),
                    mode="overwrite",
                    predicate=f"{partition_column} IN ({listed})",
                    schema_mode="merge",
                    writer_properties=_WRITER,
                )
                return int(table.version())  # it stands at this very commit

        with _checked(rows, within) as given:
            if not days:
                return int(self.create(name, rows.schema, [partition_column]).version())
            if since is not None:
                return write(given)
            what = f"{name}, {partition_column} {days[0]}{f' to {days[-1]}' if days[1:] else ''}"
            return in_turn(lambda: write(given), what)

    def create(self, name: str, schema: pa.Schema, partition_by: Sequence[str]) -> DeltaTable:
        """Return a table, made without rows unless it is there.

        Rows that came with the table's first commit would be checked against nothing: of two writers that make it at
        once the later one's commit is moved to version 1 and not refused.
        """
        DeltaTable.create(
            self.uri(name), schema, mode="ignore", partition_by=list(partition_by), storage_options=self.options
        )
        return DeltaTable(self.uri(name), storage_options=self.options)

    def overwrite(self, name: str, rows: pa.Table) -> int:
        """Replace a whole unpartitioned table in one atomic commit and return the new version.

        Raises:
            PartitionBusyError: other writers were faster each time; nothing was written.
        """

        def write() -> None:
            write_deltalake(
                self.uri(name),
                rows,
                mode="overwrite",
                schema_mode="overwrite",
                storage_options=self.options,
                writer_properties=_WRITER,
            )

        in_turn(write, name)
        version = self.version(name)
        assert version is not None  # noqa: S101 - it has just been written
        return version

    def empty(self, name: str, set_back: Iterable[str] = ()) -> None:
        """Remove all rows of a table in one commit, if it exists; its older versions stay readable.

        The positions of the applications `set_back` become 0 in the same commit.

        Raises:
            deltalake.exceptions.CommitFailedError: another writer has appended meanwhile; nothing was taken out.
        """
        if (table := self.table(name)) is not None:
            positions = [Transaction(app_id, 0) for app_id in sorted(set_back)]
            table.delete(commit_properties=CommitProperties(app_transactions=positions))

    def appender(self, name: str, partition_by: Sequence[str]) -> Appender:
        """Return a writer that appends to a table each row once; see `Appender`."""
        return Appender(self, name, partition_by)

    def file_names(
        self, name: str, partition_column: str | None = None, *, version: int | None = None
    ) -> dict[date | None, list[str]]:
        """Return the names of a table's files by partition (all below None if no column is given), from the log alone.

        A file never changes: the same names are the same rows.
        """
        snapshot = self._snapshot(name, version)
        columns = [f"partition.{partition_column}"] if partition_column else []
        found: dict[date | None, list[str]] = {}
        for file in () if snapshot is None else snapshot.logged(["path", *columns]):
            found.setdefault(file[columns[0]] if columns else None, []).append(file["path"])
        return found

    def files(self, name: str, partition_column: str, **where: str) -> list[DataFile]:
        """Return the files of a table, from the log alone; empty if there is no table.

        `where` chooses by the values of other partition columns.
        """
        snapshot = self._snapshot(name)
        if snapshot is None:
            return []
        column, times = f"partition.{partition_column}", ("min.known_at", "max.known_at", "max.landed_at")
        chosen = {f"partition.{name}": value for name, value in where.items()}
        return [
            DataFile(
                file[column],
                file["num_records"],
                datetime.fromtimestamp(file["modification_time"] / 1000, tz=UTC),
                *(file[time] for time in times),
            )
            for file in snapshot.logged([column, "num_records", "modification_time", *times, *chosen])
            if all(file[name] == value for name, value in chosen.items())
        ]


class ForeignTableError(DeltaError):
    """Somebody else has changed a table so that we cannot read or write it; the message says what to do about it."""


def _refuse_foreign_features(name: str, table: DeltaTable) -> None:
    """Do nothing if we can read and write all that a table's log asks for.

    Raises:
        ForeignTableError: a feature is on that we cannot; deltalake would misread some and refuse others late.
    """
    protocol, settings = table.protocol(), table.metadata().configuration
    features = {*(protocol.reader_features or ())} - _READ_FEATURES
    if settings.get("delta.columnMapping.mode", "none") != "none":
        features.add("columnMapping")
    if not features:
        return
    where = f"delta.`{table.table_uri}`"
    steps = []
    for feature in sorted(features):
        steps += [
            *(step.format(where=where) for step in _BEFORE_DROP.get(feature, ())),
            f"ALTER TABLE {where} DROP FEATURE {feature} TRUNCATE HISTORY",
        ]
    raise ForeignTableError(
        f"the table {name} has {', '.join(sorted(features))}, which another writer turned on and we cannot read. In "
        f"the engine that did it, as Spark: {'; '.join(steps)}. TRUNCATE HISTORY ends time travel to versions before"
    )


def _refuse_foreign_columns(name: str, table: DeltaTable, schema: pa.Schema) -> None:
    """Do nothing if rows of a schema may be written to a table.

    Raises:
        ForeignTableError: the table wants values in a column that our rows do not have.
    """
    wanted = [field.name for field in table.schema().fields if not field.nullable and field.name not in schema.names]
    if wanted:
        where = f"delta.`{table.table_uri}`"
        steps = "; ".join(f"ALTER TABLE {where} ALTER COLUMN {column} DROP NOT NULL" for column in wanted)
        raise ForeignTableError(
            f"the table {name} has NOT NULL columns that our rows do not have: {', '.join(wanted)}. Another writer "
            f"added them; in the engine that did it, as Spark: {steps}"
        )


class PartitionBusyError(StateError):
    """Other writers of the same partition were faster, again and again: nothing was written."""


def in_turn(write: Callable[[], _T], what: str) -> _T:
    """Write, and return what that returns; where another writer was faster, wait a moment and write again.

    A stage that passes `since` to `Lake.replace` is such a writer as a whole: it reads again too.

    Raises:
        PartitionBusyError: that was so each time.
    """
    for wait in (0.2, 0.5, 1.0, 2.0, 4.0, None):
        try:
            return write()
        except CommitFailedError as error:
            if wait is None:
                raise PartitionBusyError(
                    f"{what}: other runs write the same at the same time, and were faster six times. Nothing was "
                    "written; start this run again when they are done, `ml-assets ui` shows them"
                ) from error
            time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - so that two do not meet again
    raise AssertionError  # pragma: no cover - the last one returns or raises


class PositionMovedError(StateError):
    """Another writer has moved a position meanwhile: what was to be appended may be in the table already."""


class Appender:
    """Appends rows to a table together with the positions of the applications that they come from.

    A position is a number that only grows, kept in the Delta log by application. An append names the positions from
    which it starts (0: never seen); it only goes through if the table still stands there. The format's own conflict
    check covers the moment between looking and committing, so of two writers that started from the same state the
    later one fails, whether it was slow, paused or thought dead.
    """

    def __init__(self, lake: Lake, name: str, partition_by: Sequence[str]) -> None:
        self._lake = lake
        self._name = name
        self._partition_by = list(partition_by)
        self._table: DeltaTable | None = None
        # In the log this appender is an application too, whose position counts its appends.
        self._id = f"ml_assets.append {uuid4().hex}"
        self._appends, self._last = 0, dict[str, int]()

    def positions(self, app_ids: Iterable[str]) -> dict[str, int]:
        """Return the position of each application as the table has it now; 0 for one never seen."""
        self._table = self._lake.table(self._name)
        return {app_id: self._position(app_id) for app_id in app_ids}

    def append(self, rows: pa.Table, start: Mapping[str, int], end: Mapping[str, int]) -> bool:
        """Append rows and move positions from `start` to `end` in one commit, and return whether it is ours.

        A commit whose answer was lost, in this call or in an earlier one with the same positions, counts as done, and
        as ours. One of another writer that moved the positions in the same way counts as done.

        Raises:
            PositionMovedError: the table does not stand at `start`.
            OSError, deltalake.exceptions.DeltaError: the store failed; it is not known whether the commit happened,
                and the same call may be made again.
        """
        self._table = (
            self._table
            or self._lake.table(self._name)
            or self._lake.create(self._name, rows.schema, self._partition_by)
        )
        if self._is_done(start, end):
            return self._is_ours(end)
        _refuse_foreign_columns(self._name, self._table, rows.schema)
        properties = CommitProperties(
            app_transactions=[
                *(Transaction(app_id, position) for app_id, position in sorted(end.items())),
                Transaction(self._id, self._number(end)),
            ],
        )
        try:
            # The table that was looked at is passed on, so that the conflict check begins at that version.
            write_deltalake(
                self._table,
                rows,
                mode="append",
                schema_mode="merge",
                writer_properties=_WRITER,
                commit_properties=properties,
            )
        except DeltaError:  # a conflict: look what stands there now
            self._table = self._lake.table(self._name)
            if not self._is_done(start, end):
                raise
            return self._is_ours(end)
        except BaseException:
            self._table = None  # what it knows may be old
            raise
        return True

    def _is_done(self, start: Mapping[str, int], end: Mapping[str, int]) -> bool:
        """Return whether the table stands at `end` already.

        Raises:
            PositionMovedError: it stands neither there nor at `start`.
        """
        recorded = {app_id: self._position(app_id) for app_id in end}
        if recorded == dict(end):
            return True
        if moved := sorted(app_id for app_id in end if recorded[app_id] != start[app_id]):
            raise PositionMovedError(
                f"{self._name}: {moved[0]} stands at {recorded[moved[0]]}, not at {start[moved[0]]}: another writer "
                "moved it"
            )
        return False

    def _is_ours(self, end: Mapping[str, int]) -> bool:
        """Return whether it was our commit that moved the positions to `end`: then the log has our number for it.

        `DeltaTable.history` would tell too. But while it waits for the store no other thread of the process runs.
        """
        return self._position(self._id) == self._number(end)

    def _number(self, end: Mapping[str, int]) -> int:
        """Return the number of an append of ours; tried again, it keeps its own."""
        if self._last != (tried := dict(end)):
            self._last, self._appends = tried, self._appends + 1
        return self._appends

    def _position(self, app_id: str) -> int:
        return 0 if self._table is None else int(self._table.transaction_version(app_id) or 0)
