"""PostgreSQL, logged in to with a role's token: a server that asks for the password, and one that gives tokens."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from ml_assets.database.logins import with_password
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets_tests.cloud.metadata import MetadataServer, metadata_server


@dataclass(frozen=True)
class User:
    server: EmbeddedPostgres
    name: str

    def set_password(self, password: str) -> None:
        self.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(self.name), sql.Literal(password)))

    def execute(self, *statements: sql.Composable) -> None:
        with psycopg.connect(host=str(self.server.socket_dir), user="postgres", dbname="postgres") as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture
def user(postgres_server: EmbeddedPostgres) -> Iterator[User]:
    """A user that the session's server asks for a password."""
    made = User(postgres_server, f"ml-assets-{uuid4().hex[:8]}@bank.iam")
    rules = postgres_server.data / "pg_hba.conf"
    before = rules.read_text()
    reload = sql.SQL("SELECT pg_reload_conf()")
    rules.write_text(f'local all "{made.name}" scram-sha-256\n{before}')
    made.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(made.name)), reload)
    yield made
    rules.write_text(before)
    made.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(made.name)), reload)


@pytest.fixture
def google(user: User) -> Iterator[MetadataServer]:
    """The metadata server of a pod that is this user."""
    with metadata_server(f"{user.name}.gserviceaccount.com") as server:
        yield server


# Dagster and MLflow open their databases so; each line that it reads is one more connection.
_PROCESS = """
import sys
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from ml_assets.database.logins import with_password

engines = [create_engine(url, poolclass=NullPool) for url in sys.argv[1:]]
for line in sys.stdin:
    for engine in engines:
        with engine.connect() as connection:
            print(connection.execute(text("SELECT current_user")).scalar_one(), flush=True)
print(with_password(sys.argv[1]).password, flush=True)
"""


def test_each_new_connection_logs_in_with_a_fresh_token(user: User, google: MetadataServer) -> None:
    """Guards a token that is fetched once: after an hour no connection would be opened any more."""
    bare = f"/postgres?host={user.server.socket_dir}&plugin=gcp_iam"
    urls = [f"postgresql+{driver}://{bare}" for driver in ("psycopg", "psycopg2")]
    no_other = {"GOOGLE_APPLICATION_CREDENTIALS": "", "CLOUDSDK_CONFIG": os.devnull}
    environment = {**os.environ, **google.environment, **no_other}
    user.set_password(google.token)
    with subprocess.Popen(
        [sys.executable, "-c", _PROCESS, *urls],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for token in ("token-1", "token-2"):
            google.token = token
            user.set_password(token)
            process.stdin.write("connect\n")
            process.stdin.flush()
            assert [process.stdout.readline().strip() for _ in urls] == [user.name] * len(urls)
        process.stdin.close()
        assert process.stdout.read().strip() == "token-2"
    assert process.returncode == 0
    assert all("sqlservice.login" in asked for asked in google.scopes)


def test_a_url_without_a_plugin_stays_as_it_is() -> None:
    url = "postgresql://scorer@db.bank.example:5432/ml_assets?sslmode=verify-full"
    assert with_password(url) == make_url(url)


def test_another_plugin_is_no_login() -> None:
    with pytest.raises(ValueError, match="none of aws_iam, gcp_iam"):
        with_password("postgresql://db.bank.example/ml_assets?plugin=other")
