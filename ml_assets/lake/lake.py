"""Read, replace a partition, append once: the three things that the lifecycle does to a Delta table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import repeat
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler

# By which the log of a table names the appender of a commit; and how far back it is looked for.
_APPEND, _NEWEST = "ml_assets.append", 100
_WRITER = WriterProperties(compression="ZSTD")
_PARQUET = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a table: its partition, and the range of `known_at` and the newest `landed_at` in it if it has them.

    `modified_at` is when the file was written, which compaction does anew; `landed_until` stays.
    """

    partition: date
    rows: int
    modified_at: datetime
    known_from: datetime | None
    known_until: datetime | None
    landed_until: datetime | None


class Lake:
    """Delta tables below one root, a folder or an `s3://` prefix."""

    def __init__(self, root: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = root.rstrip("/")
        self.options = dict(storage_options or {})
        self.writer = _WRITER

    def uri(self, table: str) -> str:
        """Return the address of a table."""
        return f"{self.root}/{table}"

    def table(self, name: str, version: int | None = None) -> DeltaTable | None:
        """Return the Delta table, or None if nothing has been written to it yet."""
        try:
            return DeltaTable(self.uri(name), version=version, storage_options=self.options)
        except TableNotFoundError:
            return None

    def version(self, name: str) -> int | None:
        """Return the newest version of a table, or None if it does not exist."""
        table = self.table(name)
        return None if table is None else int(table.version())

    def dataset(self, name: str, version: int | None = None) -> ds.Dataset | None:
        """Return a table as an Arrow dataset that pushes filters down, or None if it does not exist.

        Files are chosen by their partition, and row groups by their statistics once a file is open. The table's own
        statistics are left out: to make expressions of them costs milliseconds a file, of all history, at each reading.
        """
        table = self.table(name, version)
        if table is None:
            return None
        protocol = table.protocol()
        if protocol.min_reader_version > 1:  # column mapping, deletion vectors: what deltalake itself can read
            return table.to_pyarrow_dataset()
        schema = pa.schema(table.schema().to_arrow())
        actions = pa.table(table.get_add_actions(flatten=True))
        files = [unquote(path) for path in actions["path"].to_pylist()]
        sizes = dict(zip(files, actions["size_bytes"].to_pylist(), strict=True))
        filesystem = pa.fs.PyFileSystem(DeltaStorageHandler(self.uri(name), self.options, sizes))
        columns = table.metadata().partition_columns
        values = zip(*(actions[f"partition.{column}"].to_pylist() for column in columns), strict=True)
        fragments = [
            _PARQUET.make_fragment(file, filesystem=filesystem, partition_expression=_partition(schema, columns, at))
            for file, at in zip(files, values if columns else repeat(()), strict=bool(columns))
        ]
        return ds.FileSystemDataset(fragments, schema, _PARQUET, filesystem)

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

    def replace(self, name: str, rows: pa.Table, partition_column: str, partitions: Iterable[date]) -> int:
        """Replace whole partitions in one atomic commit, also by nothing, and return the new version.

        `rows` must lie within `partitions`; partitions without rows end up empty.

        Raises:
            ValueError: a row lies outside the partitions.
        """
        days = sorted(set(partitions))
        present = set(rows.column(partition_column).unique().to_pylist())
        if stray := sorted(present - set(days)):
            raise ValueError(f"{name}: rows of {partition_column} {stray[0]} do not belong to the replaced partitions")
        table = self.table(name) or self.create(name, rows.schema, [partition_column])
        if days:
            listed = ", ".join(f"'{day.isoformat()}'" for day in days)
            write_deltalake(
                table,
                rows,
                mode="overwrite",
                predicate=f"{partition_column} IN ({listed})",
                schema_mode="merge",
                writer_properties=_WRITER,
            )
        version = self.version(name)
        if version is None:  # pragma: no cover - it has just been written
            raise RuntimeError(f"{name} was written but cannot be read back")
        return version

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
        """Replace a whole unpartitioned table in one atomic commit and return the new version."""
        write_deltalake(
            self.uri(name),
            rows,
            mode="overwrite",
            schema_mode="overwrite",
            storage_options=self.options,
            writer_properties=_WRITER,
        )
        table = self.table(name)
        assert table is not None  # noqa: S101 - it has just been written
        return int(table.version())

    def appender(self, name: str, partition_by: Sequence[str]) -> Appender:
        """Return a writer that appends to a table each row once; see `Appender`."""
        return Appender(self, name, partition_by)

    def file_names(self, name: str, partition_column: str | None = None) -> dict[date | None, list[str]]:
        """Return the names of a table's files by partition (all below None if no column is given), from the log alone.

        A file never changes: the same names are the same rows.
        """
        table = self.table(name)
        found: dict[date | None, list[str]] = {}
        if table is not None:
            actions = pa.table(table.get_add_actions(flatten=True))
            paths = actions["path"].to_pylist()
            days = actions[f"partition.{partition_column}"].to_pylist() if partition_column else [None] * len(paths)
            for day, path in zip(days, paths, strict=True):
                found.setdefault(day, []).append(path)
        return found

    def files(self, name: str, partition_column: str, **where: str) -> list[DataFile]:
        """Return the files of a table, from the log alone; empty if there is no table.

        `where` chooses by the values of other partition columns.
        """
        table = self.table(name)
        if table is None:
            return []
        actions = pa.table(table.get_add_actions(flatten=True))
        for column, value in where.items():
            actions = actions.filter(pc.equal(actions[f"partition.{column}"], value))
        nothing: list[Any] = [None] * len(actions)
        days, rows, modified, known_from, known_until, landed_until = (
            actions[column].to_pylist() if column in actions.column_names else nothing
            for column in (
                f"partition.{partition_column}",
                "num_records",
                "modification_time",
                "min.known_at",
                "max.known_at",
                "max.landed_at",
            )
        )
        written = (datetime.fromtimestamp(milliseconds / 1000, tz=UTC) for milliseconds in modified)
        return [
            DataFile(*file) for file in zip(days, rows, written, known_from, known_until, landed_until, strict=True)
        ]


class PositionMovedError(RuntimeError):
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
        self._id = uuid4().hex

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
        properties = CommitProperties(
            app_transactions=[Transaction(app_id, position) for app_id, position in sorted(end.items())],
            custom_metadata={_APPEND: self._mark(end)},
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
        """Return whether the commit that moved the positions to `end` bears our mark; it is among the newest."""
        assert self._table is not None  # noqa: S101 - it has been looked at
        return any(commit.get(_APPEND) == self._mark(end) for commit in self._table.history(_NEWEST))

    def _mark(self, end: Mapping[str, int]) -> str:
        return f"{self._id} {json.dumps(end, sort_keys=True)}"

    def _position(self, app_id: str) -> int:
        return 0 if self._table is None else int(self._table.transaction_version(app_id) or 0)


def _partition(schema: pa.Schema, columns: Sequence[str], values: Sequence[Any]) -> ds.Expression:
    """Return what holds for all rows of a file: the values of its partition columns."""
    holds = ds.scalar(True)
    for column, value in zip(columns, values, strict=True):
        field = ds.field(column)
        equal = field.is_null() if value is None else field == pa.scalar(value, schema.field(column).type)
        holds = holds & equal
    return holds
