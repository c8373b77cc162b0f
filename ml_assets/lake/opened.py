"""A Delta table that stays open: what its newest version holds, without reading its whole log at each look.

A kept table is stale in two ways. Commits may have been added: `catch_up` reads those that are missing. And the table
may be another one by now, removed and made again, or restored from a backup: its log is then no continuation of what
was read. So before the log is followed, the commit file at which the table stands is looked at: it never changes in the
life of a table, and if it is not the same any more, all is read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler

_PARQUET = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))
# Modification time and size of a commit file.
_Stamp = tuple[int | None, int | None]


@dataclass(frozen=True)
class Snapshot:
    """What one version of a table holds; it never changes.

    `actions` has one row per file, flattened, as the log gives it. Files of `dataset` are chosen by their partition,
    and row groups by their statistics once a file is open. The table's own statistics are left out: making expressions
    of them costs milliseconds per file, for all history.
    """

    version: int
    partition_columns: tuple[str, ...]
    actions: pa.Table
    dataset: ds.Dataset
    fragments: Mapping[str, ds.Fragment]

    def fragment(self, path: str) -> ds.Fragment:
        """Return a file of the dataset by its path in `actions`."""
        return self.fragments[unquote(path)]


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
        columns = tuple(table.metadata().partition_columns)
        actions = pa.table(table.get_add_actions(flatten=True))
        if table.protocol().min_reader_version > 1:  # of another writer, with a feature that deltalake itself can read
            foreign = table.to_pyarrow_dataset()
            found = {unquote(fragment.path): fragment for fragment in foreign.get_fragments()}
            return Snapshot(self.version, columns, actions, foreign, found)
        schema = pa.schema(table.schema().to_arrow())
        files = [unquote(path) for path in actions["path"].to_pylist()]
        sizes = dict(zip(files, actions["size_bytes"].to_pylist(), strict=True))
        filesystem = pa.fs.PyFileSystem(DeltaStorageHandler(self._uri, self._options, sizes))
        values = [actions[f"partition.{column}"].to_pylist() for column in columns]
        known = before.fragments if before is not None and before.dataset.schema.equals(schema) else {}
        fragments = {
            file: known.get(file)
            or _PARQUET.make_fragment(
                file, filesystem=filesystem, partition_expression=_partition(schema, columns, [v[at] for v in values])
            )
            for at, file in enumerate(files)
        }
        dataset = ds.FileSystemDataset(list(fragments.values()), schema, _PARQUET, filesystem)
        return Snapshot(self.version, columns, actions, dataset, fragments)

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


def _partition(schema: pa.Schema, columns: Sequence[str], values: Sequence[Any]) -> ds.Expression:
    """Return what holds for all rows of a file: the values of its partition columns."""
    holds = ds.scalar(True)
    for column, value in zip(columns, values, strict=True):
        field = ds.field(column)
        equal = field.is_null() if value is None else field == pa.scalar(value, schema.field(column).type)
        holds = holds & equal
    return holds
