"""Sensor and schedule through the real daemon: what lands is asked for, run in its own process, and once."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.defs.resources import Platform
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.local.embedded.broker import temporary_broker
from ml_assets.local.embedded.environment import environment_for
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets.registry import CHAMPION
from ml_assets.settings import Settings
from ml_assets.spec import UseCase
from ml_assets_tests import late_payments
from ml_assets_tests.daemon import Daemon, daemon_of

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]

NAME = "watched"
DAYS = 20


@dataclass
class Station:
    usecase: UseCase
    platform: Platform
    kafka: KafkaConnection
    daemon: Daemon

    def land(self, messages: list) -> None:
        produce(self.kafka, messages)
        Lander(self.platform.lake, self.usecase.events, self.kafka, clock="replay").land_available()

    def materialized(self, asset: str) -> set[str]:
        key = dg.AssetKey([NAME, *asset.split("/")])
        return self.daemon.instance.get_materialized_partitions(key)


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory, postgres_server: EmbeddedPostgres) -> Iterator[Station]:
    """A workspace with one use case in a package of its own, and the daemon that watches it."""
    home = tmp_path_factory.mktemp("station")
    package = late_payments.make_package(home, NAME)
    postgres_server.create_databases("dagster", "mlflow", "ml_assets")
    with pytest.MonkeyPatch.context() as patch, temporary_broker(home) as bootstrap:
        patch.setenv("ML_ASSETS_HOME", str(home))
        patch.setenv("ML_ASSETS_POSTGRES_URL", postgres_server.url("postgres"))
        patch.setenv("ML_ASSETS_USECASE_PACKAGES", json.dumps([package]))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")]))
        settings = Settings()
        for name, value in environment_for(settings).items():
            patch.setenv(name, value)
        usecase = late_payments.usecase_of(package)
        ensure_topics(KafkaConnection(bootstrap), [event.topic for event in usecase.events])
        late_payments.write_reference(Path(settings.reference_uri), NAME)
        platform = Platform(home=str(home))
        with daemon_of("ml_assets.definitions") as daemon:
            station = Station(usecase, platform, KafkaConnection(bootstrap), daemon)
            yield station
        platform.close()


def test_from_landed_events_to_a_champion_and_late_data(station: Station) -> None:
    """Operations' day: events land, the sensor asks for their dates, the schedule retrains, one event comes late."""
    daemon = station.daemon
    days = list(late_payments.CALENDAR.between(late_payments.FIRST, date(2026, 3, 1)))[:DAYS]

    daemon.tick_sensors()
    assert daemon.last_tick(f"{NAME}_landed_data").skip_reason == "nothing has landed yet"

    station.land(list(late_payments.messages(DAYS, name=NAME)))
    daemon.tick_sensors()
    (run,) = daemon.run_queue()
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert run.tags["dagster/asset_partition_range_start"] == str(days[0])
    assert run.tags["dagster/asset_partition_range_end"] == str(days[-1])
    assert station.materialized("features") == {str(day) for day in days}

    daemon.tick_sensors()
    said = daemon.last_tick(f"{NAME}_landed_data").skip_reason
    assert said.startswith("nothing new has landed; "), "a replay has ended: its last outcomes wait"
    assert f"wait for topic {NAME}_payments, partition " in said

    daemon.tick_schedules(datetime.combine(late_payments.CALENDAR.next(days[-1]), time(22, 0, 30), tzinfo=UTC))
    (run,) = (run for run in daemon.run_queue() if run.job_name == f"{NAME}_retrain")
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert run.tags["dagster/partition"] == str(days[-1]), "trained as of the newest date that has features"
    champion = station.platform.registry.resolve(NAME, CHAMPION)
    assert champion is not None

    invoice = datetime.combine(days[3], time(10), tzinfo=UTC)
    late = late_payments.message(
        f"{NAME}_invoices", invoice, event_id="late", invoice_id="late", payer="P1", amount=10.0, due_date=days[5]
    )
    evening = datetime.combine(days[-1], time(20), tzinfo=UTC)
    station.land([late._replace(timestamp_ms=int(evening.timestamp() * 1000))])
    daemon.tick_sensors()
    (run,) = daemon.run_queue()
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert run.tags["dagster/partition"] == str(days[3]), "only the date of the late event"


def test_no_retraining_on_a_holiday(station: Station) -> None:
    good_friday = datetime(2026, 4, 3, 22, 0, 30, tzinfo=UTC)
    station.daemon.tick_schedules(good_friday)
    tick = station.daemon.last_tick(f"{NAME}_nightly_retraining")
    assert tick.skip_reason == "2026-04-03 is not a business day of ECB"
