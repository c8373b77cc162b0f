"""Read, replace a partition, append once: the three things that the lifecycle does to a Delta table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

_WRITER = WriterProperties(compression="ZSTD")


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a table: its partition, and the earliest and latest `known_at` in it if the table has that column."""

    partition: date
    rows: int
    modified_at: datetime
    known_from: datetime | None
    known_until: datetime | None


class Lake:
    """Delta tables below one root, a folder or an `s3://` prefix."""

    def __init__(self, root: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = root.rstrip("/")
        self._options = dict(storage_options or {})

    def uri(self, table: str) -> str:
        """Return the address of a table."""
        return f"{self.root}/{table}"

    def table(self, name: str, version: int | None = None) -> DeltaTable | None:
        """Return the Delta table, or None if nothing has been written to it yet."""
        try:
            return DeltaTable(self.uri(name), version=version, storage_options=self._options)
        except TableNotFoundError:
            return None

    def version(self, name: str) -> int | None:
        """Return the newest version of a table, or None if it does not exist."""
        table = self.table(name)
        return None if table is None else int(table.version())

    def dataset(self, name: str, version: int | None = None) -> ds.Dataset | None:
        """Return a table as an Arrow dataset that pushes filters down, or None if it does not exist."""
        table = self.table(name, version)
        return None if table is None else table.to_pyarrow_dataset()

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
        table = self.table(name)
        if table is None:
            write_deltalake(
                self.uri(name),
                rows,
                partition_by=[partition_column],
                storage_options=self._options,
                writer_properties=_WRITER,
            )
        elif days:
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

    def overwrite(self, name: str, rows: pa.Table) -> int:
        """Replace a whole unpartitioned table in one atomic commit and return the new version."""
        write_deltalake(
            self.uri(name),
            rows,
            mode="overwrite",
            schema_mode="overwrite",
            storage_options=self._options,
            writer_properties=_WRITER,
        )
        table = self.table(name)
        assert table is not None  # noqa: S101 - it has just been written
        return int(table.version())

    def positions(self, name: str, app_ids: Iterable[str]) -> dict[str, int]:
        """Return the last version that each application recorded in the table; applications never seen are absent."""
        table = self.table(name)
        if table is None:
            return {}
        recorded = {app_id: table.transaction_version(app_id) for app_id in app_ids}
        return {app_id: version for app_id, version in recorded.items() if version is not None}

    def append_once(
        self,
        name: str,
        rows: pa.Table,
        partition_column: str,
        positions: Mapping[str, int],
        *,
        expected: Mapping[str, int],
    ) -> None:
        """Append rows and record the applications' positions in the same commit.

        The commit only goes through if the table still stands at the `expected` positions (0: never seen): of two
        writers that started from the same state the later one fails, whether it was slow or paused.

        Raises:
            deltalake.exceptions.CommitFailedError: another writer has moved one of the positions meanwhile.
        """
        table = self.table(name)
        for app_id, position in expected.items():
            recorded = 0 if table is None else table.transaction_version(app_id) or 0
            if recorded != position:
                raise CommitFailedError(
                    f"{name}: {app_id} stands at {recorded}, not at {position}: another writer moved it"
                )
        properties = CommitProperties(
            app_transactions=[Transaction(app_id, version) for app_id, version in positions.items()]
        )
        # The checked table is passed on, so that the format's own conflict check covers the check above.
        write_deltalake(
            table or self.uri(name),
            rows,
            mode="append" if table else "error",
            partition_by=[partition_column],
            schema_mode="merge" if table else None,
            storage_options=self._options,
            writer_properties=_WRITER,
            commit_properties=properties,
        )

    def files(self, name: str, partition_column: str) -> list[DataFile]:
        """Return the files of a table, from the log alone; empty if there is no table."""
        table = self.table(name)
        if table is None:
            return []
        actions = pa.table(table.get_add_actions(flatten=True))
        nothing: list[Any] = [None] * len(actions)
        days, rows, modified, known_from, known_until = (
            actions[column].to_pylist() if column in actions.column_names else nothing
            for column in (
                f"partition.{partition_column}",
                "num_records",
                "modification_time",
                "min.known_at",
                "max.known_at",
            )
        )
        written = (datetime.fromtimestamp(milliseconds / 1000, tz=UTC) for milliseconds in modified)
        return [DataFile(*file) for file in zip(days, rows, written, known_from, known_until, strict=True)]
