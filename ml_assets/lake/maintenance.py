"""Housekeeping of Delta tables: fewer, larger files, and only those old versions that somebody may want to read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from ml_assets.lake.lake import Lake


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What was done to a table. `pinned` are old versions that stay readable."""

    table: str
    version: int
    files_before: int
    files_after: int
    removed_files: int
    pinned: tuple[int, ...]


def maintain(
    lake: Lake,
    tables: Iterable[str],
    *,
    keep_hours: int,
    pinned: Mapping[str, Collection[int]] | None = None,
    at_step: Callable[[str], None] = lambda _: None,
) -> list[MaintenanceReport]:
    """Compact the tables and remove files that only old versions need; tables that do not exist are left out.

    A compaction changes no row, and a reader of an older version goes on undisturbed: its files stay for `keep_hours`.
    Files of the versions that `pinned` names by table stay for good. Appends meanwhile do not conflict.

    Raises:
        deltalake.exceptions.DeltaError: a table cannot be compacted, for example since another compaction was faster.
    """
    reports = []
    for name in tables:
        table = lake.table(name)
        if table is None:
            continue
        before = len(table.file_uris())
        at_step("before_compaction")
        table.optimize.compact(writer_properties=lake.writer)
        at_step("during_compaction")
        kept = sorted({version for version in (pinned or {}).get(name, ()) if version <= table.version()})
        removed = table.vacuum(
            retention_hours=keep_hours, dry_run=False, enforce_retention_duration=False, keep_versions=kept or None
        )
        reports.append(
            MaintenanceReport(
                table=name,
                version=int(table.version()),
                files_before=before,
                files_after=len(table.file_uris()),
                removed_files=len(removed),
                pinned=tuple(kept),
            )
        )
    return reports
