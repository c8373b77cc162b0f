"""A demo that is cut while its events are produced or landed, and started again, has the rows of an uncut one."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml_assets.lake import Lake, landing_table
from ml_assets.landing.accounting import account
from ml_assets.local.demo_events import land_once, refuse_other_events
from ml_assets.local.embedded.broker import stop_broker
from ml_assets.local.simulation.market import MarketConfig, simulate
from ml_assets.settings import Settings
from ml_assets.usecases import discover

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]

CONFIG = MarketConfig(days=8, instructions_per_day=150, counterparties=10, securities=25)
PRODUCED, LANDED = "messages produced to Kafka", "messages landed in Delta Lake"
EVENTS = "a small market"


def usecase():
    return next(usecase for usecase in discover() if usecase.name == "settlement_fails")


def land(home: Path, cut: tuple[str, int] | None = None, events: str = EVENTS) -> bool:
    """Run the demo's landing; `cut` kills this process at a step, when progress is told so often (-1: at its end)."""
    settings = Settings(home=home)

    @contextlib.contextmanager
    def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
        told = 0

        def advance(steps: int) -> None:
            nonlocal told
            told += 1
            if cut == (what, told):
                os.kill(os.getpid(), signal.SIGKILL)

        yield advance
        if cut == (what, -1):
            os.kill(os.getpid(), signal.SIGKILL)

    return land_once(settings, Lake(settings.lake_uri), usecase(), simulate(CONFIG), events, bar)


def rows(home: Path) -> list[tuple]:
    """Return what is in the landing tables, without the names that brokers give to their topics."""
    lake, found = Lake(Settings(home=home).lake_uri), []
    for event in usecase().events:
        parts = account(lake, event)
        assert parts, event.topic
        assert all(part.is_right for part in parts)
        table = lake.table(landing_table(event.topic)).to_pyarrow_dataset().to_table()
        kept = table.select([name for name in table.column_names if name not in ("kafka_epoch", "landed_at")])
        found += [(event.topic, *map(repr, row.values())) for row in kept.to_pylist()]
    return sorted(found)


@pytest.fixture(scope="module")
def uncut() -> Iterator[list[tuple]]:
    with home_of_a_demo() as home:
        assert land(home)
        yield rows(home)


@contextlib.contextmanager
def home_of_a_demo() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="ml_assets_"))
    try:
        yield home
    finally:
        stop_broker(home)
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize(
    ("cut", "broker_ends"),
    [((PRODUCED, 1), False), ((PRODUCED, -1), True), ((LANDED, 1), False), ((LANDED, 3), True), ((LANDED, -1), False)],
)
def test_a_demo_cut_by_sigkill_and_started_again_has_the_rows_of_an_uncut_one(uncut, cut, broker_ends):
    """Guards the demo that said 'landed before and used again' and went on with a part of its events."""
    with home_of_a_demo() as home:
        demo = multiprocessing.get_context("spawn").Process(target=land, args=(home, cut))
        demo.start()
        demo.join(120)
        assert demo.exitcode == -signal.SIGKILL
        if broker_ends:
            stop_broker(home)
        assert land(home), "what was cut is not taken for complete"
        assert rows(home) == uncut
        assert not land(home), "what is complete is used again"
        assert rows(home) == uncut


def test_a_landing_table_that_was_taken_away_is_landed_again(uncut):
    """Guards: the mark was trusted although the rows were gone."""
    with home_of_a_demo() as home:
        land(home)
        shutil.rmtree(home / "lake" / landing_table(usecase().events[0].topic))
        assert land(home)
        assert rows(home) == uncut


def test_events_of_another_demo_are_neither_mixed_nor_taken_for_these():
    """Guards `demo --days 60` after `demo --days 40`, which went on with 40 and compared them with another truth."""
    with home_of_a_demo() as home:
        land(home)
        before = rows(home)
        with pytest.raises(ValueError, match=r"holds a demo of a small market; this demo is of another one.*--fresh"):
            land(home, events="another one")
        assert rows(home) == before


def test_events_that_somebody_landed_are_not_thrown_away():
    """Guards the events of a person who tried `ml-assets produce` and `land` before the demo."""
    with home_of_a_demo() as home:
        land(home)
        shutil.rmtree(home / "demo")
        settings = Settings(home=home)
        with pytest.raises(ValueError, match="that no demo has landed"):
            refuse_other_events(settings, Lake(settings.lake_uri), usecase(), EVENTS)


def test_a_broker_that_holds_messages_already_is_refused(monkeypatch):
    """Guards events that are there twice: those of a demo that was cut stay on a broker of one's own."""
    from ml_assets.landing.produce import ensure_topics, produce
    from ml_assets.local.embedded.environment import kafka_connection

    with home_of_a_demo() as home:
        kafka = kafka_connection(Settings(home=home))
        ensure_topics(kafka, simulate(CONFIG).topics)
        produce(kafka, [next(simulate(CONFIG).messages())])
        monkeypatch.setenv("ML_ASSETS_KAFKA_BOOTSTRAP", kafka.bootstrap)
        with pytest.raises(ValueError, match="holds 1 messages already"):
            land(home)
