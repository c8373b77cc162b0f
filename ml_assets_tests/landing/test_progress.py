"""A lander never says 'landing' when it is not: each partition advances, or it is said and mended."""

import time

import pytest

import ml_assets.landing.lander as module
from ml_assets.landing.accounting import account
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.landing.progress import Progress
from ml_assets.landing.session import FlushLimits
from ml_assets_tests.landing.messages import Message, body
from ml_assets_tests.landing.test_service import running, wait_until

HERE, THERE = ("trades", 0), ("trades", 1)


@pytest.fixture
def now():
    return [1_000.0]


@pytest.fixture
def progress(now):
    return Progress(60, lambda: now[0])


def test_who_is_behind_and_does_not_move_stands(progress, now):
    for seconds in (0, 30, 59):
        now[0] = 1_000.0 + seconds
        progress.look({HERE: 5, THERE: seconds})
        assert progress.standing() == {}
    now[0] = 1_061.0
    progress.look({HERE: 5, THERE: 61})
    assert progress.standing() == {HERE: 61.0}


def test_who_moved_caught_up_or_could_not_move_begins_anew(progress, now):
    progress.look({HERE: 5, THERE: 5})
    now[0] += 59
    progress.look({HERE: 6})
    now[0] += 59
    progress.look({HERE: 6, THERE: 5})
    assert progress.standing() == {}
    now[0] += 2
    assert progress.standing() == {HERE: 61.0}
    progress.forget()
    progress.look({HERE: 6, THERE: 5})
    assert progress.standing() == {}


def test_a_consumer_that_stands_is_told_and_made_anew(lake, event, broker, monkeypatch):
    """Guards: two partitions stood still for minutes within the client, and /ready said 'landing'."""
    made, deaf = [], []

    class Standing(module.Consumer):
        """The first of them takes nothing any more when told so."""

        def consume(self, *args, **options):
            return [] if deaf and deaf[0] is self else super().consume(*args, **options)

    def make(config):
        made.append(Standing(config))
        return made[-1]

    monkeypatch.setattr(module, "Consumer", make)
    options = {"limits": FlushLimits(seconds=0.2), "stand_seconds": 3.0}
    with running(lake, event, broker, **options) as service:
        service.send(*range(10))
        wait_until(lambda: service.landed() == 10, "10 messages landed")
        rebuilt_before = len(made) - 1  # on a machine that stands still itself
        said, tell = [], service.health.trouble

        def told(what, why=""):  # a busy machine can miss the moment between the finding and its cure
            tell(what, why)
            said.append(service.health.ready())

        monkeypatch.setattr(service.health, "trouble", told)
        deaf.append(made[-1])
        time.sleep(0.5)  # the call under way still takes what comes
        for number in range(10, 30):  # one by one: the embedded broker counts a batch as one
            service.send(number)
        wait_until(lambda: not all(ready for ready, _ in said), "that it is not ready")
        why = next(why for ready, why in said if not ready)
        assert f"{event.topic}/" in why
        assert "has not advanced for" in why
        wait_until(lambda: service.landed() == 30, "all messages landed by another consumer")
        wait_until(lambda: service.health.ready()[0], "readiness")
        assert service.metrics.registry.get_sample_value("lander_consumers_rebuilt_total") > rebuilt_before
        wait_until(lambda: lag(service) == 0, "no lag")
    assert all(part.is_right for part in account(lake, event))


def test_lag_is_told_of_a_consumer_that_hears_nothing(lake, event, broker, monkeypatch):
    """Guards: lag came from what the client last heard, so one that hears nothing had none."""
    deaf = []

    class Deaf(module.Consumer):
        def consume(self, *args, **options):
            return [] if deaf else super().consume(*args, **options)

        def get_watermark_offsets(self, *args, **options):
            return (0, 0) if deaf and options.get("cached") else super().get_watermark_offsets(*args, **options)

    monkeypatch.setattr(module, "Consumer", Deaf)
    with running(lake, event, broker, stand_seconds=4.0, limits=FlushLimits(seconds=0.2)) as service:
        service.send(*range(10))
        wait_until(lambda: service.landed() == 10, "10 messages landed")
        deaf.append(True)
        time.sleep(0.5)  # the call under way still takes what comes
        service.send(*range(10, 30))
        wait_until(lambda: lag(service) > 0, "a lag")  # the embedded broker counts a batch as one
        deaf.clear()
        wait_until(lambda: service.landed() == 30, "all messages landed")


def lag(service):
    (found,) = (metric for metric in service.metrics.registry.collect() if metric.name == "lander_lag_messages")
    return sum(sample.value for sample in found.samples)


def test_the_ends_of_partitions_are_asked_together(broker, event):
    ensure_topics(broker, [event.topic])
    for number in range(3):
        produce(broker, [Message(event.topic, b"k", body(number))])
    ends = broker.admin().ends([(event.topic, 0), (event.topic, 1)])
    assert sorted(ends.values()) == [0, 3]
    assert broker.admin().ends([]) == {}
