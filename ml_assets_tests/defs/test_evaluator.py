"""The evaluator that stays: rounds without a run each, the asset told of them, and a database that goes away."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.database import alerts as ledger
from ml_assets.database.migrate import downgrade, migrate
from ml_assets.defs.assets.alerts import ALERTS
from ml_assets.defs.evaluator import Evaluator
from ml_assets.defs.jobs.alerts import alerts_schedules
from ml_assets.platform import Platform, open_platform
from ml_assets.settings import Settings


class Clock:
    """A clock that a test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def platform(tmp_path: Path, application_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A platform on a database of the test's own."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr("ml_assets.platform.database_url", lambda *_: application_url)
    made = open_platform(Settings(home=home))
    yield made
    made.close()


@pytest.fixture
def evaluator(platform: Platform) -> Iterator[Evaluator]:
    """An evaluator of the platform's own rules, of which none asks MLflow or the lake."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Evaluator(instance, platform, [], {}, clock=Clock())


def told(evaluator: Evaluator) -> int:
    """How often the asset was told of a round."""
    found = evaluator.instance.fetch_materializations(ALERTS, limit=100)
    return len(found.records)


def test_a_round_shows_on_the_asset_when_something_has_changed_and_else_now_and_then(evaluator: Evaluator) -> None:
    """Guards an asset that is not fresh though somebody looks, and an event log that grows by each quiet round."""
    assert evaluator.ready() == (False, "no round was begun for half an hour")
    made = evaluator.turn()
    assert made is not None
    assert ledger.last_heartbeat(evaluator.platform.engine) is not None
    assert told(evaluator) == 1
    evaluator.clock.now += 300
    evaluator.turn()
    assert told(evaluator) == 1, "nothing has changed"
    evaluator.clock.now += 900
    evaluator.turn()
    assert told(evaluator) == 2
    newest = evaluator.instance.get_latest_materialization_event(ALERTS)
    assert newest is not None
    assert newest.asset_materialization is not None
    assert {"open alerts", "states", "rules not run"} <= set(newest.asset_materialization.metadata)
    assert evaluator.ready() == (True, "looking")
    assert evaluator.metrics.registry.get_sample_value("alerts_rounds_total") == 3.0


def test_after_an_outage_of_the_database_rounds_go_on(evaluator: Evaluator) -> None:
    downgrade(evaluator.platform.engine, "0009")
    assert evaluator.turn() is None
    assert evaluator.ready()[0] is False
    assert evaluator.live()[0] is True, "a restart would change nothing"
    assert evaluator.metrics.registry.get_sample_value("alerts_rounds_failed_total") == 1.0
    migrate(evaluator.platform.engine)
    assert evaluator.turn() is not None
    assert evaluator.ready()[0] is True


def test_a_round_that_hangs_is_seen_and_a_stop_is_heard(evaluator: Evaluator) -> None:
    evaluator.turn()
    evaluator.clock.now += 1801
    assert evaluator.live() == (False, "no round was begun for half an hour")
    stop = threading.Event()
    stop.set()
    evaluator.run(timedelta(minutes=5), stop)


def test_where_an_evaluator_stays_there_is_no_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one.name for one in alerts_schedules()] == ["alerts_every_five_minutes"]
    monkeypatch.setenv("ML_ASSETS_ALERT_CRON", "")
    assert alerts_schedules() == []
