"""A migrated database for each module of the desk's tests, and for each test a desk on empty ledgers."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from ml_assets.database.connect import begin
from ml_assets.database.migrate import migrate
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets_tests.desk.made import Made, made_desk


@pytest.fixture(scope="module")
def desk_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a database with the application's tables."""
    name = f"test_{uuid4().hex[:12]}"
    postgres_server.create_databases(name)
    migrate(postgres_server.url(name))
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def desk(desk_url: str, tmp_path: Path) -> Iterator[Made]:
    """A desk behind a login proxy, whose lists and ledgers are empty."""
    with begin(desk_url) as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # the ledger refuses it otherwise
        for table in ("feedback", "predictions", "scorings"):
            connection.execute(text(f"DELETE FROM {table}"))
    with made_desk(desk_url, tmp_path) as made:
        yield made
