"""The procedures of the operating guide, run as the page has them, on servers that ask for passwords and keys.

One site for all of them: PostgreSQL with a login for each role, everything else on an S3 server that checks keys, a
broker. The tests build on one another, in this order.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as dt_time
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from ml_assets.database.migrate import downgrade, require_newest
from ml_assets.database.promotions import LedgerEntry, history
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.local.embedded.postgres import EmbeddedPostgres, client_programs, server_for, stop_server
from ml_assets.local.simulation.messages import Message
from ml_assets_tests import late_payments
from ml_assets_tests.procedures import PAGE, ProcedureError, procedures, run, start
from ml_assets_tests.s3 import S3Keys, S3Server, s3_server

operating = pytest.mark.operating
NAME = "operated"
DAYS = 24
LOGINS = ("migrator", "scorer", "reader", "backup")


@dataclass
class Site:
    """Where the project runs: its servers, and the environment of those who operate it."""

    folder: Path
    postgres: EmbeddedPostgres
    key: S3Server
    bucket: str
    environment: dict[str, str]
    passwords: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, answers: tuple[str, ...] = (), **variables: str) -> str:
        """Run a procedure of the page."""
        return run(name, {**self.environment, **variables}, answers)

    def ml_assets(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command that is on no page."""
        return subprocess.run(
            ["ml-assets", *arguments], env={**self.environment, **variables}, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=900, check=False,
        )  # fmt: skip

    def url(self, login: str, database: str = "") -> str:
        """The URL of a login, or of the administrator."""
        user = f"{login}:{quote(self.passwords[login])}" if login in self.passwords else login
        return f"postgresql://{user}@/{database}?host={quote(str(self.postgres.socket_dir), safe='')}"

    def connect(self, login: str, database: str = "ml_assets") -> psycopg.Connection:
        return psycopg.connect(self.url(login, database))

    def install(self) -> None:
        self.passwords = {login: f"{login}-1" for login in LOGINS}
        self.run("install", tuple(self.passwords[login] for login in LOGINS for _ in range(2)))
        self.environment |= {
            "ADMIN_URL": self.url("postgres"),
            "MIGRATOR_URL": self.url("migrator"),
            "BACKUP_URL": self.url("backup"),
            "ML_ASSETS_POSTGRES_URL": self.url("scorer"),
        }

    @property
    def lake(self) -> Lake:
        return self.key.lake(f"{self.bucket}/lake")

    def landed(self) -> list[tuple[str, str]]:
        """What has landed, as content: each message by topic and id."""
        return sorted(
            (topic, row["event_id"])
            for topic in (f"{NAME}_invoices", f"{NAME}_payments")
            for row in self.lake.read(landing_table(topic)).to_pylist()
            if row["kind"] == "event"
        )

    def predictions(self) -> list[tuple]:
        with self.connect("reader") as connection:
            return connection.execute(
                "SELECT entity_id, decision_time, probability, model_version, mlflow_run_id FROM predictions "
                "ORDER BY 1, 2, 4"
            ).fetchall()

    def ledger(self) -> list[LedgerEntry]:
        return history(self.url("reader", "ml_assets").replace("postgresql:", "postgresql+psycopg:"), NAME)

    def dearest(self) -> str:
        with self.connect("reader") as connection:
            row = connection.execute("SELECT entity_id FROM work_list ORDER BY priority LIMIT 1").fetchone()
        assert row is not None
        return str(row[0])


def postgres_with_passwords(home: Path) -> EmbeddedPostgres:
    """An empty server below a folder, on which everybody but the administrator needs a password."""
    server = server_for(home)
    for database in ("dagster", "mlflow", "ml_assets"):
        server.drop_database(database)
    (server.data / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    with psycopg.connect(host=str(server.socket_dir), user="postgres", dbname="postgres") as administrator:
        administrator.execute("SELECT pg_reload_conf()")
    return server


def site_at(folder: Path, key: S3Server, bucket: str, broker: KafkaConnection, package: str, imports: Path) -> Site:
    server = postgres_with_passwords(folder / "server")  # not below the home: `ml-assets ui` would end it
    programs = [str(Path(sys.executable).parent), str(client_programs()), os.environ["PATH"]]
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("ML_ASSETS_", "AWS_", "DAGSTER_", "MLFLOW_"))}
    return Site(
        folder, server, key, bucket,
        {
            **inherited,
            "PATH": os.pathsep.join(programs),
            "PYTHONPATH": os.pathsep.join([str(imports), os.environ.get("PYTHONPATH", "")]),
            "COLUMNS": "250", "NO_COLOR": "1",
            "PGHOST": str(server.socket_dir), "PGUSER": "postgres", "PGDATABASE": "postgres",
            "ML_ASSETS_HOME": str(folder / "home"),
            "ML_ASSETS_LAKE_ROOT": f"{bucket}/lake",
            "ML_ASSETS_ARTIFACT_ROOT": f"{bucket}/artifacts",
            "ML_ASSETS_REFERENCE_ROOT": f"{bucket}/reference",
            "ML_ASSETS_MIGRATE_ON_CONNECT": "false",
            "ML_ASSETS_KAFKA_BOOTSTRAP": broker.bootstrap,
            "ML_ASSETS_LANDING_ASSIGNMENT": "all",
            "ML_ASSETS_LANDING_CLOCK": "replay",
            "ML_ASSETS_USECASE_PACKAGES": json.dumps([package]),
            "ML_ASSETS_THREADS": "1",
            **aws(key),
            "USE_CASE": NAME,
        },
    )  # fmt: skip


def aws(key: S3Server) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": key.endpoint, "AWS_REGION": key.region, "AWS_ACCESS_KEY_ID": key.access_key,
        "AWS_SECRET_ACCESS_KEY": key.secret_key,
    }  # fmt: skip


@pytest.fixture(scope="module")
def keys() -> Iterator[S3Keys]:
    """An S3 server that knows who may come in."""
    with s3_server() as server:
        for bucket in ("bank", "backups", "elsewhere"):
            server.create_bucket(bucket)
        yield server.require_keys()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The use case's package, and where it is imported from."""
    folder = tmp_path_factory.mktemp("operated")
    return late_payments.make_package(folder, NAME), folder


@pytest.fixture(scope="module")
def site(
    keys: S3Keys, package: tuple[str, Path], broker: KafkaConnection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The site after its first weeks: installed, landed, and with two champions one after the other."""
    home = Path(tmp_path_factory.mktemp("site", numbered=True))
    home.chmod(0o755)
    made = site_at(home, keys.first, "s3://bank", broker, package[0], package[1])
    try:
        made.install()
        made.run("migrate")
        drop_reference_files(made)
        ensure_topics(broker, [f"{NAME}_invoices", f"{NAME}_payments"])
        produce(broker, list(late_payments.messages(DAYS, name=NAME)))
        done(made.ml_assets("land"))
        first, last = days()[0], days()[-1]
        done(made.ml_assets("ingest", NAME, "--from", str(first), "--to", str(last)))
        for day in (days()[-2], last):
            done(made.ml_assets("retrain", NAME, "--date", str(day)))
        made.ml_assets("promote", NAME, "--override", "the second is wanted, for the tests")
        done(made.ml_assets("score", NAME, "--date", str(last)))
        yield made
    finally:
        stop_server(home / "server")


def drop_reference_files(site: Site) -> None:
    import fsspec

    late_payments.write_reference(site.folder / "files", NAME)
    store = fsspec.filesystem("s3", **site.key.filesystem_options)
    store.put(str(site.folder / "files") + "/", f"{site.bucket}/reference/", recursive=True)


def days() -> list[date]:
    return list(late_payments.CALENDAR.between(late_payments.FIRST, date(2026, 3, 31)))[:DAYS]


def done(command: subprocess.CompletedProcess[str]) -> str:
    assert command.returncode == 0, command.stdout
    return command.stdout


def test_every_procedure_is_run_by_a_test() -> None:
    """Guards a page that says what nobody has tried."""
    tried = set(re.findall(r'(?:run|start)\(\s*"([a-z-]+)"', Path(__file__).read_text()))
    assert set(procedures()) - tried == {"cluster"}, "the cluster's is made of targets, see below"
    assert tried <= set(procedures())


def test_what_is_done_on_a_cluster_is_made_of_targets_that_exist() -> None:
    makefile = (PAGE.parents[1] / "Makefile").read_text()
    words = [word for line in procedures()["cluster"].splitlines() for word in re.split(r"make | \|\| |\s", line)]
    targets = {word for word in words if word and "=" not in word}
    assert {"push", "sign", "verify", "deploy", "smoke", "rollback"} <= targets
    assert targets <= set(re.findall(r"^([a-z0-9-]+):", makefile, flags=re.MULTILINE))


@operating
def test_install(site: Site) -> None:
    """Each login may do its work and nothing else, and needs its password."""
    with site.connect("reader") as reader, pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("DELETE FROM predictions")
    with site.connect("scorer") as scorer, pytest.raises(psycopg.errors.InsufficientPrivilege):
        scorer.execute("CREATE TABLE mine (n int)")
    with site.connect("backup", "dagster") as backup:
        assert backup.execute("SELECT count(*) FROM runs").fetchone() > (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            backup.execute("DELETE FROM runs")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(site.url("scorer", "ml_assets").replace("scorer-1", "guessed"))
    assert {entry.to_version for entry in site.ledger()} == {1, 2}


@operating
def test_upgrade(site: Site) -> None:
    """New code on a former schema does nothing but say what to do; the migration keeps every row."""
    before = site.predictions()
    migrator = site.url("migrator", "ml_assets").replace("postgresql:", "postgresql+psycopg:")
    downgrade(migrator, "0002")
    refused = site.ml_assets("work-list", NAME)
    assert refused.returncode == 1
    assert "run `ml-assets migrate` with the role that migrates" in refused.stdout
    site.run("migrate")
    require_newest(migrator)
    assert site.predictions() == before


@operating
def test_read_an_alert(site: Site) -> None:
    """From a row of the work-list to its cause, what to do, and where the number comes from."""
    entity = site.dearest()
    said = site.run("read-alert", ENTITY=entity)
    row = next(line for line in said.splitlines() if entity in line)
    assert re.search(r"PAYER \+\d", row), "the cause, in log-odds"
    assert "remind the payer" in row
    with site.connect("reader") as connection:
        (probability,) = connection.execute(
            "SELECT probability FROM work_list WHERE entity_id = %s", [entity]
        ).fetchone() or (None,)
    again = re.search(r"made again, from the events\s*│ ([\d.]+)", said)
    assert again is not None
    assert float(again[1]) == pytest.approx(probability, abs=1e-6)
    assert re.search(rf"{NAME}_invoices\s*│ \d\s*│ \d+", said), "its events, by partition and offset"


@operating
def test_roll_back_a_model(site: Site) -> None:
    day = str(days()[-1])
    said = site.run("roll-back-model", REASON="it misses the fails of P3", DAY=day)
    assert "champion is version 1 again, instead of 2" in said
    assert "it misses the fails of P3" in said
    assert "alias and ledger agree on version 1" in said
    newest = site.ledger()[0]
    assert (newest.action, newest.from_version, newest.to_version) == ("rolled_back", 2, 1)
    with site.connect("reader") as connection:
        speaking = connection.execute("SELECT DISTINCT model_version FROM work_list").fetchall()
    assert speaking == [(1,)], "the work-list is the former champion's"


@operating
def test_backfill(site: Site) -> None:
    """Dates made again are the dates that were there; dates that were never scored get their predictions."""
    name = f"features/{NAME}"
    first, last = str(days()[-5]), str(days()[-2])
    before = sorted(map(repr, site.lake.read(name).to_pylist()))
    scored = site.predictions()
    site.run("backfill", FIRST=first, LAST=last)
    assert sorted(map(repr, site.lake.read(name).to_pylist())) == before
    version = site.lake.version(name)
    said = site.run("backfill-features", FIRST=first, LAST=last)
    assert f"backfill of {NAME}: 4 dates, {first} to {last}" in said
    assert site.lake.version(name) == version + 1
    assert sorted(map(repr, site.lake.read(name).to_pylist())) == before
    assert set(scored) < set(site.predictions())
    with site.connect("reader") as connection:
        dates = connection.execute("SELECT DISTINCT decision_time::date FROM predictions").fetchall()
    assert {day for (day,) in dates} == set(days()[-5:])


@operating
def test_replay(site: Site, package: tuple[str, Path], broker: KafkaConnection) -> None:
    """A feed leaves a field out; its contract is mended to allow that; each letter lands, once."""
    topic = f"{NAME}_invoices"
    day = days()[-1]
    bad = [
        late_payments.message(
            topic, datetime.combine(day, dt_time(10, number), tzinfo=UTC), event_id=f"bare-{number}",
            invoice_id=f"bare-{number}", payer="P1", amount=1.0,
        )
        for number in range(3)
    ]  # fmt: skip
    produce(broker, bad)
    before = site.landed()
    done(site.ml_assets("land"))
    said = site.run("look-at-dead-letters", TOPIC=topic)
    assert "missing required field `due_date`" in said
    assert f"3 dead letters of {topic} wait" in said
    contract = package[1] / package[0] / NAME / "contracts.py"
    contract.write_text(contract.read_text().replace("due_date: date", "due_date: date | None = None"))
    try:
        assert "3 dead letters of" in site.run("replay", TOPIC=topic)
        assert f"0 dead letters of {topic} have landed" in site.run("replay", TOPIC=topic)
    finally:
        contract.write_text(contract.read_text().replace("due_date: date | None = None", "due_date: date"))
    assert site.landed() == sorted([*before, *((topic, f"bare-{number}") for number in range(3))])


@operating
def test_scale_runs(site: Site, free_port: int) -> None:
    """The instance that the web server and the daemon open has the limit of the environment."""
    process = start("scale-runs", {**site.environment, "PORT": str(free_port)})
    query = "{ instance { runQueueConfig { maxConcurrentRuns } } }"
    try:
        queue = until(lambda: graphql(free_port, query))["instance"]["runQueueConfig"]
    finally:
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert queue["maxConcurrentRuns"] == 8, said
    assert graphql(free_port, query) is None, "nothing of it goes on"


@operating
def test_scale_landers(site: Site, broker: KafkaConnection) -> None:
    """Two replicas in a group land what comes, each message once, and both end when they are told to."""
    count = len(site.landed())
    process = start("scale-landers", {**site.environment, "ML_ASSETS_LANDING_FLUSH_SECONDS": "0.5"})
    try:
        produce(broker, invoices_of(1, "scaled"))
        until(lambda: len(site.landed()) >= count + 60)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    assert said.count("what was in memory is committed") == 2, said
    assert len(set(site.landed())) == len(site.landed()) == count + 60
    done(site.ml_assets("accounting"))


@operating
def test_back_up_and_restore(
    site: Site, keys: S3Keys, package: tuple[str, Path], broker: KafkaConnection, tmp_path: Path
) -> None:
    """Into an empty server and bucket: every number, the ledger as it was, and landing that goes on where it stood."""
    said = site.run("back-up", BACKUPS="s3://backups/bank")
    assert re.search(r"\d+ databases, \d+ tables", said)
    landed, predictions, ledger, entity = site.landed(), site.predictions(), site.ledger(), site.dearest()
    since = invoices_of(2, "since")
    produce(broker, since)
    done(site.ml_assets("land"))
    assert len(site.landed()) == len(landed) + len(since)

    tmp_path.chmod(0o755)
    other = site_at(tmp_path, keys.first, "s3://elsewhere", broker, *package)
    try:
        other.install()
        backups_at = {"BACKUPS": "s3://backups/bank", "ENTITY": entity}
        other.run("restore", **backups_at)
        assert (other.landed(), other.predictions(), other.ledger()) == (landed, predictions, ledger)
        with pytest.raises(ProcedureError, match="is not empty"):
            other.run("restore", **backups_at)
        said = other.run("after-restore", **backups_at)
        assert f"alias and ledger agree on version {ledger[0].to_version}" in said
        assert other.landed() == site.landed(), "what came since has landed, each message once"
        assert_rights(other)
        done(other.ml_assets("score", NAME, "--date", str(days()[-1])))
        assert other.predictions() == predictions
    finally:
        stop_server(tmp_path / "server")


def assert_rights(site: Site) -> None:
    """The ledger is append-only, even for its owner; each role may what it might before."""
    for statement in ("UPDATE promotions SET reason = 'other'", "DELETE FROM promotions", "TRUNCATE promotions"):
        with site.connect("migrator") as owner, pytest.raises(psycopg.errors.IntegrityError, match="append-only"):
            owner.execute(statement)
    with site.connect("scorer") as scorer, pytest.raises(psycopg.errors.InsufficientPrivilege):
        scorer.execute("DELETE FROM promotions")
    with site.connect("reader") as reader, pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("DELETE FROM predictions")


@operating
def test_a_second_backup_copies_what_is_new_and_old_ones_go(site: Site, keys: S3Keys) -> None:
    import fsspec

    store = fsspec.filesystem("s3", **site.key.filesystem_options)
    before = store.find("backups/bank/files", detail=True)
    environment = {"ML_ASSETS_POSTGRES_URL": site.url("backup")}
    done(site.ml_assets("backup", "s3://backups/bank", **environment))
    after = store.find("backups/bank/files", detail=True)
    assert set(before) < set(after)
    assert all(after[path]["LastModified"] == before[path]["LastModified"] for path in before)
    done(site.ml_assets("backup", "s3://backups/bank", "--keep", "1", **environment))
    said = done(site.ml_assets("backups", "s3://backups/bank"))
    assert said.count(" yes ") == 1
    store.rm(min(store.find("backups/bank/files")))
    broken = site.ml_assets("backups", "s3://backups/bank")
    assert broken.returncode == 1
    assert "lacks files/" in broken.stdout


@operating
def test_rotate_a_login(site: Site) -> None:
    """The old password is refused, who has the new one works, and no session of before is left."""
    old = site.url("scorer", "ml_assets")
    with psycopg.connect(old) as running:
        said = site.run("rotate-login", ("scorer-2", "scorer-2"), LOGIN="scorer")
        assert said.count(" t") >= 1
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            running.execute("SELECT 1")
    refused = site.ml_assets("work-list", NAME)
    assert refused.returncode == 1
    assert 'password authentication failed for user "scorer"' in refused.stdout
    assert not {"Traceback", "scorer-1"} & set(refused.stdout.split())
    site.passwords["scorer"] = "scorer-2"
    site.environment["ML_ASSETS_POSTGRES_URL"] = site.url("scorer")
    done(site.ml_assets("work-list", NAME))


@operating
def test_rotate_the_key_of_the_store(site: Site, keys: S3Keys) -> None:
    """Both keys work until the first is deleted; a process that has it is refused then, in words."""
    second = keys.make()
    variables = {"NEW_ACCESS_KEY_ID": second.access_key, "NEW_SECRET_ACCESS_KEY": second.secret_key}
    site.run("rotate-store-key", **variables)
    done(site.ml_assets("accounting"))
    keys.delete(keys.first, by=second)
    refused = site.ml_assets("accounting")
    assert refused.returncode == 1
    assert "necessary privileges" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert keys.first.secret_key not in refused.stdout
    site.environment |= aws(second)
    site.key = second
    done(site.ml_assets("accounting"))


@operating
def test_rotate_mlflow(site: Site, free_port: int) -> None:
    """A server with users: the new password opens it, the old one is refused."""
    site.postgres.create_databases("mlflow_auth")
    first, second = token_urlsafe(12), token_urlsafe(12)
    backend = site.url("postgres", "mlflow").replace("postgresql:", "postgresql+psycopg2:")
    config = site.folder / "basic_auth.ini"
    config.write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = {backend.replace('/mlflow?', '/mlflow_auth?').replace('%', '%%')}\n"
        f"admin_username = admin\nadmin_password = {first}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        **site.environment, "MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": token_urlsafe(12),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip
    server = subprocess.Popen(
        ["mlflow", "server", "--app-name=basic-auth", "--host=127.0.0.1", f"--port={free_port}", "--workers=1",
         f"--backend-store-uri={backend}", f"--artifacts-destination={site.bucket}/artifacts"],
        env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{free_port}"
    asked = {
        "ML_ASSETS_MLFLOW_URI": address, "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": first,
    }  # fmt: skip
    try:
        until(lambda: is_up(f"{address}/health"))
        assert "alias and ledger agree" in done(site.ml_assets("history", NAME, **asked))
        site.run("rotate-mlflow", NEW_PASSWORD=second, **asked)
        refused = site.ml_assets("history", NAME, **asked)
        assert refused.returncode == 1
        assert "not authenticated" in refused.stdout
        assert "Traceback" not in refused.stdout
        done(site.ml_assets("history", NAME, **{**asked, "MLFLOW_TRACKING_PASSWORD": second}))
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        site.postgres.drop_database("mlflow_auth")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def invoices_of(batch: int, name: str) -> list[Message]:
    """Sixty invoices that no other batch has, on the last day."""
    day = days()[-1]
    return [
        late_payments.message(
            f"{NAME}_invoices", datetime.combine(day, dt_time(11, number), tzinfo=UTC) + timedelta(hours=batch),
            event_id=f"{name}-{number}", invoice_id=f"{name}-{number}", payer=f"P{number % 12}", amount=100.0,
            due_date=late_payments.CALENDAR.add(day, 2),
        )
        for number in range(60)
    ]  # fmt: skip


def until(found: Callable[[], Any], seconds: float = 600) -> Any:
    """Wait until a function returns something true and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.5)
    raise TimeoutError(f"waited {seconds:.0f} s")


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def graphql(port: int, query: str) -> Any:
    """What the web server answers, or None while there is none."""
    headers = {"Content-Type": "application/json", "X-CSRF-Token": "test"}
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None
