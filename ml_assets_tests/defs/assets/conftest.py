"""A small use case on real servers: landed once for all tests here, then ingested, trained and scored by Dagster."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest

from ml_assets.cli.local_runs import LocalRuns
from ml_assets.defs.resources import Platform
from ml_assets.lake import Lake
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.local.embedded.environment import database_url
from ml_assets.local.embedded.postgres import Driver, EmbeddedPostgres
from ml_assets.local.simulation.messages import Message
from ml_assets.settings import Settings
from ml_assets.spec import UseCase
from ml_assets_tests import late_payments

DAYS = 24


@dataclass
class Bank:
    """A use case on its own lake, databases and broker, and the Dagster instance that runs it."""

    usecase: UseCase
    platform: Platform
    instance: dg.DagsterInstance
    kafka: KafkaConnection
    days: list[date] = field(default_factory=list)

    @property
    def lake(self) -> Lake:
        return self.platform.lake

    @property
    def runs(self) -> LocalRuns:
        return LocalRuns(self.instance, self.usecase, self.platform)

    def land(self, messages: Sequence[Message]) -> None:
        produce(self.kafka, messages)
        Lander(self.lake, self.usecase.events, self.kafka, clock="replay").land_available()

    def latest(self, *names: str) -> dict[str, Any]:
        """Metadata of the newest materialization of an asset, as plain values."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey([self.usecase.name, *names]))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.fixture(scope="session")
def make_bank(
    broker: KafkaConnection, postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A function that makes a bank; the events of the given number of days have landed."""
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        platforms: list[Platform] = []
        databases: dict[Path, dict[str, str]] = {}

        def url(settings: Settings, database: str, driver: Driver) -> str:
            """The database of the bank with these settings; a run asks anew, and other tests have no bank."""
            if settings.home_path not in databases:
                return database_url(settings, database, driver)
            return postgres_server.url(databases[settings.home_path][database], driver)

        patch.setattr("ml_assets.platform.database_url", url)

        def make(name: str, length: int = DAYS) -> Bank:
            home = tmp_path_factory.mktemp(name)
            usecase = late_payments.usecase_of(late_payments.make_package(home, name))
            platform = Platform(home=str(home))
            platforms.append(platform)
            own = {kind: f"{kind}_{uuid4().hex[:8]}" for kind in ("ml_assets", "mlflow")}
            postgres_server.create_databases(*own.values())
            databases[platform.settings.home_path] = own
            days = list(late_payments.CALENDAR.between(late_payments.FIRST, date(2026, 3, 31)))[:length]
            bank = Bank(usecase, platform, instance, broker, days)
            ensure_topics(broker, [event.topic for event in usecase.events])
            late_payments.write_reference(Path(platform.settings.reference_uri), name)
            bank.land(list(late_payments.messages(length, name=name)))
            return bank

        yield make
        for platform in platforms:
            platform.close()


@pytest.fixture(scope="session")
def bank(make_bank: Any) -> Bank:
    """A bank that has been through the whole lifecycle once. Tests here read it, or make what is there again."""
    bank: Bank = make_bank("late_payments")
    bank.runs.run("ingest", bank.days)
    bank.runs.run("retrain", [bank.days[-1]])
    bank.runs.run("score", bank.days[-2:])
    return bank
