"""What tests share: one real PostgreSQL for the session, a fresh database and a fresh lake for each test."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from ml_assets.database import migrate
from ml_assets.embedded.postgres import EmbeddedPostgres, server_for, stop_server
from ml_assets.lake import Lake


@pytest.fixture(scope="session")
def postgres_home() -> Iterator[Path]:
    """A home with a running server.

    It is not below pytest's own temporary folder: as root the server runs as another user, who must get there,
    and pytest closes its folder to others at the start of every session.
    """
    home = Path(tempfile.mkdtemp(prefix="ml_assets_"))
    server_for(home)
    yield home
    stop_server(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(postgres_home: Path) -> EmbeddedPostgres:
    """The server of the session."""
    return server_for(postgres_home)


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"test_{uuid4().hex[:12]}"
    postgres_server.create_databases(name)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def application_url(database_url: str) -> str:
    """The URL of a database with the application's tables and views."""
    migrate(database_url)
    return database_url


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(str(tmp_path / "lake"))
