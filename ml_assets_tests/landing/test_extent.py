"""How far a topic has landed: by its slowest partition, by what the lander saw, and never by a clock that is ahead."""

from datetime import UTC, datetime, timedelta

import pytest

from ml_assets.lake import landing_table
from ml_assets.landing.extent import least, topic_progress
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets_tests.kafka.topics import create_topic_of_any_time, delete_topic
from ml_assets_tests.landing.conftest import append_events, moved
from ml_assets_tests.landing.messages import NINE, Message, Taken, body, land_taken
from ml_assets_tests.landing.test_curate import EVENT, an_event, landed

HOUR = timedelta(hours=1)
FAR = datetime(2099, 1, 1, tzinfo=UTC)


def at(moment: datetime, number: int, event, key: bytes = b"k") -> Message:
    return Message(event.topic, key, body(number), int(moment.timestamp() * 1000))


def keys_of_two_partitions(lake, event, broker) -> tuple[bytes, bytes]:
    """Land a message of each of many keys at nine and return two that lie in different partitions."""
    create_topic_of_any_time(broker, event.topic, partitions=2)
    produce(broker, [at(NINE, n, event, f"k{n}".encode()) for n in range(20)])
    Lander(lake, [event], broker, clock="replay").land_available()
    rows = lake.read(landing_table(event.topic)).to_pylist()
    by_partition = {row["kafka_partition"]: f"k{row['event_id']}".encode() for row in rows}
    return by_partition[0], by_partition[1]


def test_of_a_topic_that_never_landed_nothing_is_known(lake):
    assert topic_progress(lake, EVENT).until is None
    assert str(topic_progress(lake, EVENT)) == "topic moved: nothing has landed"


def test_a_stuck_partition_holds_its_topic_back(lake, event, broker):
    """Guards against the largest time over partitions: the other one is hours ahead."""
    _, second = keys_of_two_partitions(lake, event, broker)
    produce(broker, [at(NINE + 5 * HOUR, 100 + n, event, second) for n in range(3)])
    Lander(lake, [event], broker, clock="replay").land_available()
    progress = topic_progress(lake, event)
    assert progress.until == NINE
    assert progress.partitions == {0: NINE, 1: NINE + 5 * HOUR}
    assert str(progress) == f"topic {event.topic}, partition 0: landed until 2026-01-05 09:00 UTC"


def test_a_compaction_changes_nothing(lake, event, broker):
    """Guards against ranges of files that hold all partitions, and against times that Delta cuts to milliseconds."""
    first, second = keys_of_two_partitions(lake, event, broker)
    for hours, key in ((1, first), (2, second), (3, first)):
        produce(broker, [at(NINE + hours * HOUR, 100 * hours, event, key)])
        Lander(lake, [event], broker, clock="replay").land_available()
    before = topic_progress(lake, event)
    lake.table(landing_table(event.topic)).optimize.compact()
    assert topic_progress(lake, event) == before
    assert before.until == NINE + 2 * HOUR


@pytest.mark.parametrize("compacted", [False, True])
def test_a_producers_clock_that_is_ahead_advances_nothing(lake, event, broker, compacted):
    """Guards against one record of 2099: neither its file nor one that it was compacted into says more."""
    first, second = keys_of_two_partitions(lake, event, broker)
    produce(broker, [at(NINE + HOUR, 50, event, first), at(FAR, 51, event, first), at(FAR, 52, event, second)])
    Lander(lake, [event], broker, clock="replay").land_available()
    if compacted:
        lake.table(landing_table(event.topic)).optimize.compact()
    assert topic_progress(lake, event).partitions == {0: NINE + HOUR, 1: NINE}


def test_a_partition_of_which_only_the_future_is_known_is_not_known(lake):
    land_taken(lake, EVENT, [Taken(0, body(1))])
    assert topic_progress(lake, EVENT, now=NINE - HOUR).until is None


def test_a_quiet_topic_has_landed_up_to_the_time_at_which_the_lander_saw_its_end(lake, event, broker):
    """Guards against labels that wait for ever for a topic on which nothing happens, and for one that is empty."""
    ensure_topics(broker, [event.topic], partitions=2)
    before = datetime.now(UTC)
    Lander(lake, [event], broker, clock="live").land_available()
    progress = topic_progress(lake, event)
    assert set(progress.partitions) == {0, 1}, "empty partitions count too"
    assert before <= progress.until <= datetime.now(UTC)
    produce(broker, [at(NINE, 1, event)])
    Lander(lake, [event], broker, clock="live").land_available()
    assert topic_progress(lake, event).until > progress.until
    assert lake.read(landing_table(event.topic)).num_rows == 1, "a heartbeat has no rows"


def test_what_lands_late_on_the_live_clock_counts_by_its_publication(lake, event, broker):
    """Guards against a lander that catches up: what it lands now tells of yesterday, and not of now."""
    first, second = keys_of_two_partitions(lake, event, broker)
    appended = [at(NINE + HOUR, 60, event, first), at(NINE + 2 * HOUR, 61, event, second)]
    produce(broker, appended)
    lander = Lander(lake, [event], broker, clock="live")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml_assets.landing.heartbeat.Heartbeats.note", lambda *_: False)
        lander.land_available()
    assert max(lake.read(landing_table(event.topic))["known_at"].to_pylist()) > NINE + 30 * HOUR
    assert topic_progress(lake, event).until == NINE + HOUR


def test_a_replay_notes_nothing(lake, event, broker):
    """On the replay clock time is that of the records: at its end the newest record is all that is known."""
    keys_of_two_partitions(lake, event, broker)
    assert topic_progress(lake, event).until == NINE


def test_a_topic_made_anew_counts_by_its_present_life(lake, event, broker):
    keys_of_two_partitions(lake, event, broker)
    delete_topic(broker, event.topic)
    ensure_topics(broker, [event.topic], partitions=1)
    produce(broker, [at(NINE + 3 * HOUR, 70, event)])
    Lander(lake, [event], broker, clock="replay").land_available()
    assert topic_progress(lake, event).partitions == {0: NINE + 3 * HOUR}


def test_of_several_topics_the_least_counts(lake):
    other = moved("other")
    append_events(lake, EVENT, landed((an_event(1), 60)))
    append_events(lake, other, landed((an_event(1), 5), event=other))
    slowest = least([topic_progress(lake, EVENT), topic_progress(lake, other)])
    assert (slowest.topic, slowest.until) == ("other", NINE + timedelta(minutes=5))
    assert least([]) is None


def test_a_lander_that_runs_notes_what_stays_quiet(lake, event, broker, monkeypatch):
    """The whole way of a running lander: two looks at the same end make a heartbeat, of the time of the first."""
    import threading
    import time

    monkeypatch.setattr("ml_assets.landing.session._LOOK_SECONDS", 0.3)
    ensure_topics(broker, [event.topic], partitions=2)
    produce(broker, [at(NINE, 1, event)])
    stop, started = threading.Event(), datetime.now(UTC)
    lander = Lander(lake, [event], broker, clock="live", heartbeat=timedelta(seconds=1))
    thread = threading.Thread(target=lander.run, args=(stop,))
    thread.start()
    try:
        seen: list[datetime] = []
        deadline = time.monotonic() + 30
        while len(seen) < 3 and time.monotonic() < deadline:
            until = topic_progress(lake, event).until
            if until is not None and until > started and until not in seen:
                seen.append(until)
            time.sleep(0.2)
    finally:
        stop.set()
        thread.join()
    assert len(seen) == 3, "it advances while nothing comes"
    assert seen == sorted(seen)
    assert lake.version(landing_table(event.topic)) < 40, "at most one commit per heartbeat"
