"""The databases as they were at one moment: dumped and restored by pg_dump and pg_restore.

The server is one and the databases are several, and each dump has a snapshot of its own. What must agree across them
is who is champion: the ledger says so in one database, and the registry's alias in another. Each moves while the ledger
is held, so the snapshots are taken while it is held, which is a moment. Between a line and the move of the alias that
follows it they differ; the first caller after a restore moves the alias, as after a crash.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

import psycopg
from sqlalchemy import make_url

from ml_assets.database.logins import with_password
from ml_assets.database.promotions import hold_ledger
from ml_assets.errors import StateError

LEDGER: Final = "ml_assets"  # the database that has the ledger
_CHUNK = 1 << 20


@contextmanager
def snapshots(urls: Mapping[str, str], use_cases: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the id of an exported snapshot of each database, all of one moment; they end with the block.

    `urls` are SQLAlchemy URLs by database. No use case's champion changes between the first and the last snapshot.
    """
    with ExitStack() as held:
        opened = {name: held.enter_context(_connect(url)) for name, url in urls.items()}
        for connection in opened.values():
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
        with hold_ledger(urls[LEDGER], use_cases):
            ids = {name: _export(connection) for name, connection in opened.items()}
        yield ids


def present(urls: Mapping[str, str]) -> list[str]:
    """Return which of the databases exist, as the server of the first knows them."""
    with _connect(next(iter(urls.values()))) as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE datname = ANY(%s)", [list(urls)]).fetchall()
    return [name for name in urls if (name,) in rows]


def dump(url: str, snapshot: str, target: IO[bytes], programs: Path | None) -> tuple[int, str]:
    """Write a dump of a database in PostgreSQL's custom format; return its size in bytes and its SHA-256.

    `programs` is the folder of pg_dump; None: wherever the PATH finds it.

    Raises:
        RuntimeError: pg_dump is missing or failed; the message has its output.
    """
    command = [_program("pg_dump", programs), "--format=custom", f"--snapshot={snapshot}", f"--dbname={_libpq(url)}"]
    digest, size = hashlib.sha256(), 0
    with _started(command, url, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        while chunk := process.stdout.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            target.write(chunk)
        _wait(process, "pg_dump", url)
    return size, digest.hexdigest()


def load(url: str, dumped: Path, programs: Path | None) -> None:
    """Restore a dump into an empty database, with owners and rights, all or nothing.

    Raises:
        RuntimeError: pg_restore is missing or failed, for example since a role does not exist; with its output.
    """
    command = [
        _program("pg_restore", programs), "--exit-on-error", "--single-transaction", f"--dbname={_libpq(url)}",
        str(dumped),
    ]  # fmt: skip
    with _started(command, url) as process:
        _wait(process, "pg_restore", url)


def is_empty(url: str) -> bool:
    """Return whether a database has no tables yet.

    Raises:
        RuntimeError: it does not exist, or this login may not connect.
    """
    name = make_url(url).database
    try:
        with _connect(url) as connection:
            found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    except psycopg.OperationalError as error:
        raise StateError(f"nothing can be restored into the database {name}: {str(error).strip()}") from error
    return found == (0,)


# Where MLflow, when it is no server that keeps the artifacts itself, has written down their whole address.
_ADDRESSES: Final = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


def move_artifacts(url: str, before: str, now: str) -> None:
    """Let MLflow look for artifacts below another root, if it has written down the former one."""
    with _connect(url) as connection:
        there = set(
            connection.execute(
                "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            ).fetchall()
        )
        for table, column in _ADDRESSES:
            if (table, column) in there:
                connection.execute(
                    f"UPDATE {table} SET {column} = %s || substr({column}, %s) WHERE starts_with({column}, %s)",
                    [now, len(before) + 1, before],
                )


def _export(connection: psycopg.Connection) -> str:
    (exported,) = connection.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
    return str(exported)


def _connect(url: str) -> psycopg.Connection:
    return psycopg.connect(with_password(url).set(drivername="postgresql").render_as_string(hide_password=False))


def _libpq(url: str) -> str:
    """Return the URL for a command line, which everybody on a machine can read: without the password."""
    bare = with_password(url).set(drivername="postgresql")._replace(password=None)
    return bare.render_as_string(hide_password=False)


@contextmanager
def _started(command: list[str], url: str, stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    password = with_password(url).password
    environment = {**os.environ, **({"PGPASSWORD": password} if password else {})}
    try:
        process = subprocess.Popen(  # noqa: S603 - PostgreSQL's own program
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, env=environment
        )
    except FileNotFoundError as error:
        raise StateError(
            f"{command[0]} is not installed here: it comes with PostgreSQL's client package, of the server's version "
            "or newer"
        ) from error
    with process:
        yield process


def _wait(process: subprocess.Popen[bytes], program: str, url: str) -> None:
    assert process.stderr is not None  # noqa: S101 - asked for
    said = process.stderr.read().decode(errors="replace").strip()
    if process.wait():
        raise StateError(f"{program} of {make_url(url).database} failed: {said[-2000:]}")


def _program(name: str, programs: Path | None) -> str:
    return str(programs / name) if programs else name
