"""The one way in which this project opens DuckDB: in memory, with a limit to it, and a place for what exceeds it.

By itself DuckDB takes four fifths of the machine, and spills to `.tmp` in the working folder. Here it takes two fifths
of what the process may use, since the rows that go in and come out, as Arrow, are beside it; and it spills to where the
settings say there is room. All is set before a configuration is locked, and nobody else calls `duckdb.connect`.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.memory import MIB, memory_allowed

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    import pyarrow.dataset as ds

    from ml_assets.settings import Settings

# DuckDB's share of what the process may use.
_SHARE = 0.4
# Less, and DuckDB cannot sort with two threads.
_LEAST = 64 * MIB


@dataclass(frozen=True, slots=True)
class Room:
    """What DuckDB may use: bytes of memory, a folder, and bytes of the files there (0: nine tenths of what is free).

    Each open database has as much memory, and as many files.
    """

    memory: int
    spill: Path
    spill_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Room:
        """Return what the settings give."""
        room = cls.within(memory_allowed(settings.memory_mib), Path(settings.spill_path))
        return replace(room, spill_bytes=settings.spill_mib * MIB)

    @classmethod
    def within(cls, allowed: int, spill: Path) -> Room:
        """Return DuckDB's share of the bytes that the process may use, with a folder for the rest."""
        return cls(_memory_of(allowed), spill)


def _memory_of(allowed: int) -> int:
    """Return the bytes that DuckDB gets of those that the process may use."""
    return max(_LEAST, int(allowed * _SHARE))


_room: Room | None = None
# The databases that `query_duckdb` keeps open, by process and threads, with their room: a fork has no threads of its
# parent's.
_kept: dict[tuple[int, int], tuple[Room, duckdb.DuckDBPyConnection]] = {}


def use_duckdb(room: Room) -> None:
    """Let what is opened from now on in this process have this room."""
    global _room
    _room = room


def spill_folder() -> Path:
    """Return the folder for what does not fit into memory, which others than DuckDB may use too; it is there."""
    room = _open_room()
    room.spill.mkdir(parents=True, exist_ok=True)
    return room.spill


def _open_room() -> Room:
    return _room or Room.within(memory_allowed(), Path(tempfile.gettempdir()) / "ml_assets-spill")


def open_duckdb(threads: int = 0) -> duckdb.DuckDBPyConnection:
    """Return an empty database in memory, whose clock is UTC; `threads` 0 means one per core."""
    import duckdb

    room = _open_room()
    config: dict[str, Any] = {"memory_limit": f"{room.memory}B", "temp_directory": str(room.spill)}
    if threads:
        config["threads"] = threads
    # It makes this folder when it spills, but none above it. It names files by process and database, and deletes them.
    room.spill.parent.mkdir(parents=True, exist_ok=True)
    db = duckdb.connect(":memory:", config=config)
    if room.spill_bytes:  # DuckDB 2.0.0 takes it in `config` too, and then knows no limit
        db.execute(f"SET GLOBAL max_temp_directory_size = '{room.spill_bytes}B'")
    db.execute("SET GLOBAL timezone = 'UTC'")
    return db


def query_duckdb(threads: int = 0) -> duckdb.DuckDBPyConnection:
    """Return a connection of its own to a database that stays open, for queries on registered rows: opening takes time.

    What is registered, and each temporary table, is the connection's own; make no other tables. All such connections
    share one limit of memory. Close it: it holds what is registered.
    """
    key, room = (os.getpid(), threads), _open_room()
    kept = _kept.get(key)
    if kept is None or kept[0] != room:
        kept = _kept[key] = (room, open_duckdb(threads))
    return kept[1].cursor()


def as_stream(rows: ds.Dataset | ds.Scanner) -> pa.RecordBatchReader:
    """Return rows of the lake as a stream, which DuckDB can read once; register this, never the dataset itself.

    DuckDB would ask the scanner for a reader (`to_reader`), and pyarrow 25 starts that scan without letting go of the
    GIL. The lake's files are opened by Python, so a thread of Arrow's that opens one waits for the GIL while it has the
    lock that the start of the scan waits for: the process hangs for ever. Seen once in some thousand queries, beside a
    thread of Python. Batches are asked for without the GIL.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    scanner = rows if isinstance(rows, ds.Scanner) else rows.scanner()
    return pa.RecordBatchReader.from_batches(scanner.projected_schema, scanner.to_batches())


def in_words(error: duckdb.Error) -> str:
    """Return what an error of DuckDB's says; where room was short, which settings give more instead of its advice."""
    import duckdb

    if not isinstance(error, duckdb.OutOfMemoryException):
        return str(error)
    return (
        f"{str(error).splitlines()[0]}. DuckDB gets {_SHARE:.0%} of ML_ASSETS_MEMORY_MIB, and ML_ASSETS_SPILL_MIB of "
        "files in ML_ASSETS_SPILL_ROOT: give it more, or the Job of the run a higher limit of memory"
    )
