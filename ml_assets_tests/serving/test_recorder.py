import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pyarrow.compute as pc
import pytest

from ml_assets.answers import SERVED_SCORES
from ml_assets.lake import landing_table
from ml_assets.landing.accounting import account
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics
from ml_assets.local.embedded.broker import temporary_broker
from ml_assets.serving.recorder import Recorder
from ml_assets_tests.landing.front import front_of_a_cluster
from ml_assets_tests.serving.answers import answer


@pytest.fixture
def kafka(tmp_path):
    """A broker of the test's own: the topic of the answers has one name only."""
    with temporary_broker(tmp_path / "broker") as bootstrap:
        yield KafkaConnection(bootstrap)


def recorder_on(kafka, **options) -> Recorder:
    return Recorder(kafka, make_topics=True, idempotent=False, **options)


def record(recorder, event, settled=None) -> bool:
    return recorder.record(SERVED_SCORES.topic, event.entity_id, event, settled)


def landed(lake, kafka) -> Counter:
    Lander(lake, [SERVED_SCORES], kafka).land_available()
    if lake.table(landing_table(SERVED_SCORES.topic)) is None:
        return Counter()
    rows = lake.read(landing_table(SERVED_SCORES.topic), where=pc.field("kind") == "event")
    return Counter(rows["event_id"].to_pylist())


def dropped(recorder, why: str, topic: str = SERVED_SCORES.topic) -> float:
    return recorder.metrics.registry.get_sample_value("serving_record_dropped_total", {"topic": topic, "why": why})


def test_every_answer_lands_once_by_the_client_s_own_record(lake, kafka):
    recorder = recorder_on(kafka)
    recorder.start()
    given: list[str] = []
    settled: list[bool] = []

    def client(name: int) -> None:
        for n in range(300):
            event = answer(f"{name}-{n}")
            assert record(recorder, event, settled.append)
            given.append(event.event_id)

    clients = [threading.Thread(target=client, args=(name,)) for name in range(3)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    assert recorder.close(30) == 0
    assert landed(lake, kafka) == Counter(given)
    assert settled == [True] * 900
    assert recorder.metrics.registry.get_sample_value("serving_recorded_total", {"topic": SERVED_SCORES.topic}) == 900
    assert all(part.is_right for part in account(lake, SERVED_SCORES, threads=1))


def test_a_full_queue_drops_at_once_and_counts(tmp_path):
    """Guards the answer: a broker that is away must cost neither time nor memory."""
    recorder = Recorder(KafkaConnection("127.0.0.1:1"), capacity=50, timeout_seconds=60, idempotent=False)
    recorder.start()
    taken, settled = [], []
    longest = 0.0
    for n in range(500):
        started = time.thread_time()
        taken.append(record(recorder, answer(str(n)), settled.append))
        longest = max(longest, time.thread_time() - started)
    assert taken == [True] * 50 + [False] * 450
    assert dropped(recorder, "queue full") == 450
    assert settled == [False] * 450
    assert longest < 0.05
    assert recorder.close(0.2) == 50
    assert dropped(recorder, "shutdown", "any") == 50
    assert not record(recorder, answer("late"))
    assert dropped(recorder, "shutdown") == 1


def test_what_the_broker_does_not_take_in_time_is_counted(tmp_path):
    recorder = Recorder(KafkaConnection("127.0.0.1:1"), capacity=5, timeout_seconds=0.2, idempotent=False)
    recorder.start()
    told: list[bool] = []
    for n in range(5):
        record(recorder, answer(str(n)), told.append)
    assert recorder.close(20) == 0, "each was given up for itself"
    assert dropped(recorder, "broker") == 5
    assert told == [False] * 5


def test_a_producer_that_was_told_of_no_brokers_is_made_anew(lake, kafka, monkeypatch):
    """Guards the record after a restart of the broker: the client had forgotten every address, and all was dropped."""
    monkeypatch.setattr("ml_assets.landing.kafka.TIMEOUT", 0.5)
    monkeypatch.setattr("ml_assets.serving.recorder._LOOK_SECONDS", 0.1)
    ensure_topics(kafka, [SERVED_SCORES.topic])
    with front_of_a_cluster() as front:
        host, port = front.server_address
        recorder = Recorder(KafkaConnection(f"{host}:{port}"), idempotent=False, stand_seconds=0.5)
        recorder.start()
        given = [answer(str(n)) for n in range(20)]
        for event in given[:10]:
            record(recorder, event)
        wait(lambda: front.told > 1)
        front.counts = False
        time.sleep(4)  # by then it has been told, and asks no more
        front.lead_to(kafka.bootstrap)
        for event in given[10:]:
            record(recorder, event)
        wait(lambda: recorder.waiting == 0)
        assert recorder.close(5) == 0
        assert dropped(recorder, "broker") == 0
        assert recorder.metrics.registry.get_sample_value("serving_record_renewed_total") >= 1
    assert landed(lake, kafka) == Counter(event.event_id for event in given)


def wait(until, seconds: float = 25) -> None:
    ends = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_killed_process_loses_at_most_what_waited_and_the_next_says_so(lake, kafka, tmp_path):
    """Guards the record: SIGKILL must not lose what the broker had, nor pass in silence."""
    counts = tmp_path / "counts"
    command = [sys.executable, "-m", "ml_assets_tests.serving.recorded", kafka.bootstrap, str(counts), "400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(301)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().split("\n")
    assert lines[0] == "lost 0"
    accepted = [line for line in lines[1:] if line]
    found = landed(lake, kafka)
    assert set(found.values()) == {1}, "some were recorded, each once"
    after = recorder_on(kafka, counts=counts)
    lost = after.start()
    assert len(set(accepted) - set(found)) <= lost <= len(accepted) + 1
    assert dropped(after, "killed", "any") == lost
    assert record(after, answer("after"))
    assert after.close(20) == 0
    again = recorder_on(kafka, counts=counts)
    assert again.start() == 0, "a clean end leaves nothing to say"
    again.close(5)
    assert "after" in landed(lake, kafka)
