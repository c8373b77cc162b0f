"""What tests share: a real PostgreSQL and an S3 server for the session; a database, bucket and lake for each test.

A module that names a `MARKET` (a `MarketConfig`) has its simulated market, its curated events and its reference data.
"""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest
from hypothesis import settings

from ml_assets.database.migrate import migrate
from ml_assets.lake import Lake
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.local.embedded.broker import temporary_broker
from ml_assets.local.embedded.postgres import EmbeddedPostgres, server_for, stop_server
from ml_assets.local.simulation.market import Market, MarketConfig, simulate
from ml_assets_tests.gcs.server import GcsServer, gcs_server
from ml_assets_tests.gcs.server import missing_tools as missing_go
from ml_assets_tests.kafka.apache import ApacheKafka, apache_kafka, missing_tools
from ml_assets_tests.s3 import S3Server, s3_server
from ml_assets_tests.usecases.settlement import curated_market, references


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of landing run on either broker, and the fault campaign as long as one likes."""
    parser.addoption(
        "--broker",
        choices=["embedded", "apache"],
        default="embedded",
        help="the broker of the tests that take one: embedded, from a wheel; apache, on this machine's Java",
    )
    parser.addoption(
        "--store",
        choices=["folder", "s3", "gcs"],
        default="folder",
        help="where the lake of the tests that take one lies: a folder, the S3 server or a GCS server built here",
    )
    parser.addoption("--rounds", type=int, default=27, help="rounds of the fault campaign")
    parser.addoption("--kills", type=int, default=4, help="how often the sender of alerts is killed")
    parser.addoption("--seed", type=int, default=1, help="seed of the first round of the fault campaign")


def pytest_configure(config: pytest.Config) -> None:
    """Say at once why a suite on Apache Kafka or GCS cannot run here; and see to it that SIGTERM ends a process."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So it is behind a script's `&`. Whenever Dagster runs a job, it gives SIGTERM what SIGINT has (its
        # _utils/interrupts.py): SIGTERM would be ignored too, here and in every process that a test starts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--broker") == "apache" and (lacking := missing_tools()):
        raise pytest.UsageError(lacking)
    if config.getoption("--store") == "gcs" and (lacking := missing_go()):
        raise pytest.UsageError(lacking)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long modules first, so that at the end no worker waits for another one's."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


# How long an example takes depends on what else the machine does; a slow one is no defect.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


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
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """An empty lake, where `--store` says."""
    store = request.config.getoption("--store")
    if store == "folder":
        return Lake(str(tmp_path / "lake"))
    found: Lake = request.getfixturevalue(f"{store}_lake")
    return found


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """The Apache Kafka of the session; whoever stops it starts it again."""
    with apache_kafka(tmp_path_factory.mktemp("kafka")) as node:
        yield node


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaConnection]:
    """How to reach the session's broker, as `--broker` chooses it; Apache Kafka through TLS and with a password."""
    if request.config.getoption("--broker") == "apache":
        yield request.getfixturevalue("kafka").secure
        return
    with temporary_broker(tmp_path_factory.mktemp("broker")) as bootstrap:
        yield KafkaConnection(bootstrap)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """The S3 server of the session."""
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """The `s3://` address of an empty bucket."""
    return s3.create_bucket(f"test-{uuid4().hex[:12]}")


@pytest.fixture
def s3_lake(s3: S3Server, bucket: str) -> Lake:
    """An empty lake on S3."""
    return s3.lake(f"{bucket}/lake")


@pytest.fixture(scope="session")
def gcs() -> Iterator[GcsServer]:
    """The GCS server of the session."""
    with gcs_server() as running:
        yield running


@pytest.fixture
def gcs_bucket(gcs: GcsServer) -> str:
    """The `gs://` address of an empty bucket."""
    return gcs.create_bucket(f"test-{uuid4().hex[:12]}")


@pytest.fixture
def gcs_lake(gcs: GcsServer, gcs_bucket: str) -> Lake:
    """An empty lake on GCS."""
    return gcs.lake(gcs_bucket)


@pytest.fixture(scope="module")
def market(request: pytest.FixtureRequest) -> Market:
    """The simulated market of the module's `MARKET`."""
    return simulate(request.module.MARKET)


@pytest.fixture(scope="module")
def events(market: Market) -> dict[str, pa.Table]:
    """The curated events of the module's market, by name."""
    return curated_market(market)


@pytest.fixture(scope="module")
def market_references(market: Market, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    """The reference data of the module's market, by name."""
    return references(market, tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="session")
def reference_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    """The reference data of a few counterparties and securities, by name: for events that are written by hand."""
    few = simulate(MarketConfig(days=1, instructions_per_day=1, counterparties=3, securities=8, dirty=0))
    return references(few, tmp_path_factory.mktemp("reference"))
