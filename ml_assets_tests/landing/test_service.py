"""The lander as a service: it lands within seconds, waits for a store that fails, and leaves nothing behind."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from ml_assets.lake import Lake, landing_table
from ml_assets.landing.accounting import account
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.lander import Lander
from ml_assets.landing.metrics import Health, LanderMetrics
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.landing.session import FlushLimits
from ml_assets.local.embedded.broker import temporary_broker
from ml_assets_tests.landing.messages import Message, body

_PATIENCE = 30.0


class Service:
    """A lander that runs in a thread of the test."""

    def __init__(self, lake, event, broker, **options):
        self.lake, self.event, self.broker = lake, event, broker
        self.metrics, self.health, self.stop = LanderMetrics(), Health(), threading.Event()
        self.lander = Lander(lake, [event], broker, metrics=self.metrics, health=self.health, **options)
        self.failed: list[BaseException] = []
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self.lander.run(self.stop)
        except BaseException as error:
            self.failed.append(error)

    def send(self, *numbers):
        produce(self.broker, [Message(self.event.topic, b"k", body(number)) for number in numbers])

    def landed(self):
        return sum(part.landed for part in account(self.lake, self.event))

    def metric(self, name):
        return self.metrics.registry.get_sample_value(name, {"topic": self.event.topic})


@contextmanager
def running(lake, event, broker, **options) -> Iterator[Service]:
    ensure_topics(broker, [event.topic])
    service = Service(lake, event, broker, **options)
    service.thread.start()
    try:
        yield service
    finally:
        service.stop.set()
        service.thread.join(20)
        assert not service.thread.is_alive()
        assert service.failed == []


def wait_until(condition, what):
    until = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < until, f"waited {_PATIENCE:.0f} s for: {what}"
        time.sleep(0.1)


def test_what_is_sent_is_landed_and_measured(lake, event, broker):
    with running(lake, event, broker, limits=FlushLimits(seconds=0.5)) as service:
        service.send(*range(100))
        wait_until(lambda: service.landed() == 100, "100 messages landed")
        service.send(*range(100, 150))
        wait_until(lambda: service.landed() == 150, "150 messages landed")
        wait_until(service.health.ready, "readiness")
        assert service.metric("lander_rows_total") == 150
        assert service.metric("lander_last_commit_timestamp_seconds") > 0
    assert all(part.is_right for part in account(lake, event))


def test_an_end_commits_what_is_in_memory(lake, event, broker):
    """Guards SIGTERM: the age and size limits are far away, so only the end itself can have landed these."""
    with running(lake, event, broker, limits=FlushLimits(seconds=3600)) as service:
        service.send(*range(20))
        gauge = service.metrics.registry
        wait_until(lambda: (gauge.get_sample_value("lander_buffered_bytes") or 0) > 0, "messages in memory")
        time.sleep(0.5)
        assert service.landed() == 0
    assert service.landed() == 20


def test_a_topic_that_appears_later_is_landed(lake, event, broker, monkeypatch):
    monkeypatch.setattr("ml_assets.landing.session._LOOK_SECONDS", 0.5)
    service = Service(lake, event, broker, limits=FlushLimits(seconds=0.2))
    service.thread.start()
    try:
        time.sleep(1)
        ensure_topics(broker, [event.topic])
        service.send(1, 2)
        wait_until(lambda: service.landed() == 2, "the new topic landed")
    finally:
        service.stop.set()
        service.thread.join(20)


class FailingLake(Lake):
    """A lake whose store refuses writes as long as the test says."""

    broken = True

    def appender(self, name, partition_by):
        appender, append = super().appender(name, partition_by), super().appender(name, partition_by).append

        def refuse(*args):
            if self.broken:
                raise OSError("no space left on device")
            append(*args)

        appender.append = refuse
        return appender


def test_a_store_that_fails_means_lag_and_no_loss(tmp_path, event, broker):
    lake = FailingLake(str(tmp_path / "lake"))
    with running(lake, event, broker, limits=FlushLimits(rows=10, bytes=20_000, seconds=0.2)) as service:
        service.send(*range(300))
        wait_until(lambda: (service.metric("lander_store_errors_total") or 0) > 1, "commits that fail")
        ready, why = service.health.ready()
        assert not ready
        assert "no space left on device" in why
        assert service.health.live()[0]
        time.sleep(1)
        held = service.metrics.registry.get_sample_value("lander_buffered_bytes")
        assert held < 3_000_000, "what is held in memory is bounded by one fetch beyond the limit"
        assert service.landed() == 0
        lake.broken = False
        wait_until(lambda: service.landed() == 300, "everything landed after the outage")
        wait_until(lambda: service.health.ready()[0], "readiness")
    assert all(part.is_right for part in account(lake, event))


def test_an_end_while_the_store_fails_comes_in_time_and_loses_nothing(tmp_path, event, broker):
    lake = FailingLake(str(tmp_path / "lake"))
    with running(lake, event, broker, limits=FlushLimits(seconds=0.2)) as service:
        service.send(*range(10))
        wait_until(lambda: (service.metric("lander_store_errors_total") or 0) > 0, "a commit that fails")
        started = time.monotonic()
        service.stop.set()
        service.thread.join(20)
        assert time.monotonic() - started < 12
    lake.broken = False
    (report,) = Lander(lake, [event], broker).land_available()
    assert report.landed == 10
    assert lake.version(landing_table(event.topic)) is not None


@pytest.mark.parametrize("landers", [2])
def test_landers_that_all_take_everything_land_each_message_once(lake, event, broker, landers):
    """Guards the worst assignment there can be: every lander reads every partition at the same time."""
    limits = FlushLimits(rows=40, seconds=0.1)
    with running(lake, event, broker, limits=limits) as one, running(lake, event, broker, limits=limits):
        for start in range(0, 1000, 100):
            one.send(*range(start, start + 100))
        wait_until(lambda: one.landed() == 1000, "all landed")
    parts = account(lake, event)
    assert sum(part.landed for part in parts) == 1000
    assert all(part.is_right for part in parts)


def test_landing_once_gives_up_on_a_store_that_stays_away(tmp_path, event, broker, monkeypatch):
    """Guards: a command that only lands what is there must end with the store's error, and not wait for ever."""
    monkeypatch.setattr("ml_assets.landing.lander._PATIENCE", 0.5)
    ensure_topics(broker, [event.topic])
    produce(broker, [Message(event.topic, b"k", body(1))])
    with pytest.raises(OSError, match="no space left on device"):
        Lander(FailingLake(str(tmp_path / "lake")), [event], broker).land_available()


class SilentLake(Lake):
    """A lake whose store keeps whoever asks it for positions waiting as long as the test says."""

    def __init__(self, root):
        super().__init__(root)
        self.answers, self.asked = threading.Event(), threading.Event()

    def appender(self, name, partition_by):
        appender = super().appender(name, partition_by)
        positions = appender.positions

        def wait(app_ids):
            self.asked.set()
            self.answers.wait(60)
            return positions(app_ids)

        appender.positions = wait
        return appender


def seconds_to_leave(service):
    """Stop a lander and return how long it took to leave."""
    started = time.monotonic()
    service.stop.set()
    service.thread.join(30)
    assert not service.thread.is_alive()
    return time.monotonic() - started


def test_an_end_while_the_store_does_not_answer_comes_in_time(tmp_path, event, broker):
    """Guards SIGTERM of a lander that waits for its position: it used to wait for the store's answer first."""
    lake = SilentLake(str(tmp_path / "lake"))
    with running(lake, event, broker) as service:
        assert lake.asked.wait(_PATIENCE)
        assert seconds_to_leave(service) < 5
        lake.answers.set()


def test_an_end_while_the_broker_does_not_answer_comes_in_time(lake, event, tmp_path, monkeypatch):
    """Guards SIGTERM of a lander whose broker hangs: it used to wait 10 s for each of several answers."""
    monkeypatch.setattr("ml_assets.landing.session._LOOK_SECONDS", 0.5)
    with temporary_broker(tmp_path / "broker") as bootstrap:
        pid = msgspec.json.decode((tmp_path / "broker" / "broker.json").read_bytes())["pid"]
        with running(lake, event, KafkaConnection(bootstrap)) as service:
            service.send(1, 2)
            wait_until(lambda: service.landed() == 2, "two messages landed")
            os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(1.5)  # by now it asks and gets no answer
                assert seconds_to_leave(service) < 6
            finally:
                os.kill(pid, signal.SIGCONT)
