"""A Delta table that stays open: what its newest version holds, without reading its whole log at each look.

A kept table is stale in two ways. Commits may have been added: `catch_up` reads those that are missing. And the table
may be another one by now, removed and made again, or restored from a backup: its log is then no continuation of what
was read. So before the log is followed, the commit file at which the table stands is looked at: it never changes in the
life of a table, and if it is not the same any more, all is read again.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler

from ml_assets.lake.at_rest import before_the_end

if TYPE_CHECKING:
    import pyarrow.dataset as ds

# Of a scan that is read as a stream: a few ten thousand rows are in memory, where Arrow's default are millions.
FEW_AT_ONCE = {"batch_size": 65_536, "batch_readahead": 4, "fragment_readahead": 2}
atexit.register(before_the_end)
# Modification time and size of a commit file.
_Stamp = tuple[int | None, int | None]


@dataclass(frozen=True)
class Snapshot:
    """What one version of a table holds; it never changes.

    `actions` has one row per file, flattened, as the log gives it, in deltalake's own kind of Arrow table. `known` are
    fragments that an earlier snapshot has made. `foreign` is the dataset of a table that another writer has made.

    PyArrow imports pandas, which takes half a second, with its datasets, and where it makes an Arrow value of a Python
    value or a Python value of a time. `ml-assets status` has no need of that: so the dataset is made when somebody asks
    for it, and the log is read without PyArrow.
    """

    version: int
    partition_columns: tuple[str, ...]
    schema: pa.Schema
    filesystem: pa.fs.FileSystem
    actions: Any
    known: Mapping[str, ds.Fragment]
    foreign: ds.Dataset | None = None

    def logged(self, columns: Iterable[str]) -> list[dict[str, Any]]:
        """Return columns of the log, one mapping per file; a column that the log does not have is None."""
        there, nothing = frozenset(self.actions.column_names), [None] * self.actions.num_rows
        found = {name: list(self.actions[name].to_pylist()) if name in there else nothing for name in columns}
        return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]

    @cached_property
    def dataset(self) -> ds.Dataset:
        """The table as an Arrow dataset.

        Files are chosen by their partition, and row groups by their statistics once a file is open. The table's own
        statistics are left out: making expressions of them costs milliseconds per file, for all history.
        """
        if self.foreign is not None:
            return self.foreign
        import pyarrow.dataset as ds

        return ds.FileSystemDataset(list(self._fragments.values()), self.schema, _parquet(), self.filesystem)

    @property
    def made(self) -> Mapping[str, ds.Fragment]:
        """The fragments that have been made so far; with each stays what has been read of its file."""
        return self._fragments if "_fragments" in vars(self) else self.known

    @cached_property
    def _fragments(self) -> Mapping[str, ds.Fragment]:
        columns = {f"partition.{column}": column for column in self.partition_columns}
        made = {}
        for file in self.logged(["path", *columns]):
            path = unquote(file["path"])
            made[path] = self.known.get(path) or _parquet().make_fragment(
                path,
                filesystem=self.filesystem,
                partition_expression=_partition(self.schema, {columns[name]: file[name] for name in columns}),
            )
        return made


class Opened:
    """A table and its snapshot. One thread at a time may use it; snapshots may go anywhere."""

    def __init__(self, table: DeltaTable, uri: str, options: Mapping[str, str]) -> None:
        self.table = table
        self._uri = uri
        self._options = dict(options)
        self._snapshot: Snapshot | None = None
        self._stood_at = -1
        self._stamp: _Stamp | None = None
        self.note()

    @property
    def version(self) -> int:
        """The version at which the table stands."""
        return int(self.table.version())

    def note(self) -> None:
        """Note where the table stands, once it has been moved by reading or by writing."""
        self._stood_at = self.version
        self._stamp = self._seen()

    def catch_up(self) -> bool:
        """Read the commits since the last look; return False if the table has to be opened again."""
        if self._stamp is None or self._stamp != self._seen():
            return False
        try:
            self.table.update_incremental()
        except DeltaError:  # what lies between is gone from the log
            return False
        if self.version != self._stood_at:
            self.note()
        return True

    def snapshot(self) -> Snapshot:
        """Return what the table holds at this version."""
        if self._snapshot is None or self._snapshot.version != self.version:
            self._snapshot = self._read(self._snapshot)
        return self._snapshot

    def _read(self, before: Snapshot | None) -> Snapshot:
        """Make the snapshot; a file that was in the one before keeps what has been read of it."""
        table = self.table
        schema, actions = pa.schema(table.schema().to_arrow()), table.get_add_actions(flatten=True)
        paths = [unquote(path) for path in actions["path"].to_pylist()]
        sizes = dict(zip(paths, actions["size_bytes"].to_pylist(), strict=True))
        # Of another writer, with a feature that deltalake itself can read.
        is_foreign = table.protocol().min_reader_version > 1
        return Snapshot(
            version=self.version,
            partition_columns=tuple(table.metadata().partition_columns),
            schema=schema,
            filesystem=pa.fs.PyFileSystem(DeltaStorageHandler(self._uri, self._options, sizes)),
            actions=actions,
            known=before.made if before is not None and before.schema.equals(schema) else {},
            foreign=table.to_pyarrow_dataset() if is_foreign else None,
        )

    def _seen(self) -> _Stamp | None:
        """Return what tells the commit file of this version from any other; None if it is gone, or cannot be seen."""
        name = f"_delta_log/{self._stood_at:020d}.json"
        if "://" not in self._uri:
            try:
                file = (Path(self._uri) / name).stat()
            except OSError:
                return None
            return file.st_mtime_ns, file.st_size
        (info,) = pa.fs.PyFileSystem(DeltaStorageHandler(self._uri, self._options)).get_file_info([name])
        return None if info.type != pa.fs.FileType.File else (info.mtime_ns, info.size)


@cache
def _parquet() -> ds.ParquetFileFormat:
    """Return how datasets read their files."""
    import pyarrow.dataset as ds

    return ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))


def _partition(schema: pa.Schema, values: Mapping[str, Any]) -> pc.Expression:
    """Return what holds for all rows of a file: the values of its partition columns."""
    holds = pc.scalar(True)
    for column, value in values.items():
        field = pc.field(column)
        equal = field.is_null() if value is None else field == pa.scalar(value, schema.field(column).type)
        holds = holds & equal
    return holds
