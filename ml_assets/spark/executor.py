"""What an executor runs: the rows of a few dates, made of its own look at the lake."""

from __future__ import annotations

import os
import platform
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

import msgspec
import pyarrow as pa

import ml_assets
from ml_assets.code_version import digest_of
from ml_assets.duck import Room, use_duckdb
from ml_assets.features import features_schema
from ml_assets.lake import Lake
from ml_assets.lifecycle.backfill import FailedDate, make_dates
from ml_assets.lifecycle.features import Due, MadeDate
from ml_assets.memory import MIB, memory_allowed
from ml_assets.spec import UseCase

# One row per date: `said` is a `Said` as JSON, `rows` is an Arrow stream, empty where the date failed.
SCHEMA = "said string, rows binary"
_ARROW = pa.schema([pa.field("said", pa.string()), pa.field("rows", pa.binary())])
# Of these, another version may give another last digit.
_LIBRARIES = ("deltalake", "duckdb", "numpy", "pyarrow")


class Said(msgspec.Struct, frozen=True):
    """What an executor says of a date: that it was made, or why it failed."""

    made: MadeDate | None = None
    failed: FailedDate | None = None


@dataclass(frozen=True)
class Slices:
    """Dates to be made, by slice, and all that it takes. It crosses to the executors whole; nothing of it is shown.

    `options` may hold keys of an object store. `software` is what the driver runs. Of an executor's memory a task may
    use one of `tasks` parts, and `threads` cores.
    """

    root: str
    options: Mapping[str, str] = field(repr=False)
    usecase: UseCase = field(repr=False)
    slices: Sequence[Due]
    software: Mapping[str, str]
    tasks: int = 1
    threads: int = 1

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield a row per date of the slices whose numbers come in, in `SCHEMA`."""
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from self._make(self.slices[number])

    def _make(self, due: Due) -> Iterator[pa.RecordBatch]:
        here = software()
        if here != dict(self.software):
            differs = ", ".join(
                f"{name} {here.get(name)} for {of_driver}"
                for name, of_driver in self.software.items()
                if here.get(name) != of_driver
            )
            why = (
                f"the executor on {socket.gethostname()} has {differs}: its rows could differ. Give the executors what "
                "the driver has: the same image, or PYSPARK_PYTHON and an archive of its environment"
            )
            yield from (_row(Said(failed=FailedDate(day, why)), None) for day in due.times)
            return
        use_duckdb(_room(self.tasks))
        lake = Lake(self.root, self.options)
        for said, rows in make_dates(lake, self.usecase, due, threads=self.threads):
            if isinstance(said, MadeDate):
                yield _row(Said(made=said), rows)
            else:
                yield _row(Said(failed=said), None)


def rows_of(usecase: UseCase, content: bytes) -> pa.Table:
    """Return the rows of a date as the executor made them, to the last bit."""
    with pa.ipc.open_stream(content) as stream:
        rows: pa.Table = stream.read_all()
    schema = features_schema(usecase.features)
    assert rows.schema.equals(schema), f"an executor gave {rows.schema}"  # noqa: S101 - it runs the same code
    return rows


@cache
def software() -> Mapping[str, str]:
    """Return what decides what is made here, beside the lake and the use case: versions, and a digest of this code."""
    code = digest_of(Path(ml_assets.__file__).parent, "*.py")
    python = ".".join(platform.python_version_tuple()[:2])
    return {"ml_assets": code, "python": python, **{name: version(name) for name in _LIBRARIES}}


def _row(said: Said, rows: pa.Table | None) -> pa.RecordBatch:
    content = b""
    if rows is not None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
            stream.write_table(rows)
        content = sink.getvalue().to_pybytes()
    text = msgspec.json.encode(said).decode()
    return pa.RecordBatch.from_arrays([pa.array([text], pa.string()), pa.array([content], pa.binary())], schema=_ARROW)


def _room(tasks: int) -> Room:
    """Return what DuckDB may use of this executor, whose tasks share its memory; Spark may have divided it already."""
    limit = int(os.environ.get("PYSPARK_EXECUTOR_MEMORY_MB") or 0) * MIB
    local = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0] or tempfile.gettempdir()
    return Room.within(limit or memory_allowed() // tasks, Path(local) / "ml_assets-spill")
