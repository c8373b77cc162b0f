from datetime import UTC, datetime

import msgspec
import pyarrow.compute as pc
import pytest

from ml_assets.lake import landing_table
from ml_assets.landing.accounting import account
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.landing.schemas import LETTER_COLUMNS
from ml_assets.landing.session import FlushLimits
from ml_assets_tests.kafka.topics import delete_topic
from ml_assets_tests.landing.conftest import MONDAY
from ml_assets_tests.landing.messages import NINE, Message, body

GOOD = body(1)


def message(event, number, **changes):
    body = {"event_id": str(number), "event_time": NINE, "isin": "US0378331005", "side": "DELI", "quantity": 5}
    return Message(event.topic, str(number).encode(), msgspec.json.encode({**body, **changes}))


def send(broker, event, messages):
    ensure_topics(broker, [event.topic])
    produce(broker, messages)


def land(lake, event, broker, **options):
    (report,) = Lander(lake, [event], broker, clock="replay", **options).land_available()
    return report


def events(lake, event):
    return lake.read(landing_table(event.topic), where=pc.field("kind") == "event")


def dead_letters(lake, event):
    rows = lake.read(landing_table(event.topic), where=pc.field("kind") == "dead_letter")
    return rows.select([*LETTER_COLUMNS.values()]).rename_columns([*LETTER_COLUMNS])


def ids(lake, event):
    return sorted(int(i) for i in events(lake, event)["event_id"].to_pylist())


def test_each_message_lands_once_and_the_next_run_goes_on_from_there(lake, event, broker):
    send(broker, event, [message(event, n) for n in range(700)])
    assert land(lake, event, broker).landed == 700
    send(broker, event, [message(event, n) for n in range(700, 1000)])
    assert land(lake, event, broker).landed == 300
    assert land(lake, event, broker).consumed == 0
    assert ids(lake, event) == list(range(1000))


def test_small_batches_land_the_same(lake, event, broker):
    send(broker, event, [message(event, n) for n in range(100)])
    land(lake, event, broker, limits=FlushLimits(rows=7))
    assert ids(lake, event) == list(range(100))


def test_rows_carry_where_and_when_they_came_from(lake, event, broker):
    send(broker, event, [message(event, 1)])
    land(lake, event, broker)
    (row,) = lake.read(landing_table(event.topic)).to_pylist()
    assert row["known_at"] == row["broker_time"] == NINE
    assert row["business_date"] == MONDAY
    assert row["kafka_offset"] == 0
    assert len(row["kafka_epoch"]) > 10


def test_on_the_live_clock_nothing_is_known_before_it_landed(lake, event, broker):
    before = datetime.now(UTC)
    send(broker, event, [message(event, 1)])
    Lander(lake, [event], broker, clock="live").land_available()
    (row,) = lake.read(landing_table(event.topic)).to_pylist()
    assert row["broker_time"] == NINE
    assert (row["known_at"] - before).total_seconds() >= -0.001


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"event_id": "1", ', "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"", "truncated"),
        (msgspec.json.encode({"event_id": "1", "event_time": NINE}), "missing required field"),
        (
            msgspec.json.encode({"event_id": "1", "event_time": NINE, "isin": "x", "side": "DELI", "quantity": "many"}),
            "Expected `int`",
        ),
        (
            msgspec.json.encode({"event_id": "1", "event_time": NINE, "isin": "x", "side": "LEFT", "quantity": 1}),
            "Invalid enum value",
        ),
        (GOOD[:-1] + b', "more": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "recursion"),
        (GOOD.replace(b'"quantity":5', b'"quantity":%d' % 2**70), "64 bits"),
        (GOOD.replace(b"2026-01-05T09:00:00Z", b"0001-01-01T00:00:00+10:00"), "years 1 to 9999"),
        (GOOD.replace(b"2026-01-05T09:00:00Z", b"9999-12-31T23:00:00-10:00"), "years 1 to 9999"),
    ],
    ids=[
        "cut",
        "not_utf8",
        "empty",
        "field_missing",
        "wrong_type",
        "unknown_side",
        "deeper_than_the_stack",
        "larger_than_the_column",
        "before_time",
        "after_time",
    ],
)
def test_what_cannot_be_decoded_is_a_dead_letter_and_the_good_ones_land(lake, event, broker, value, reason):
    send(broker, event, [message(event, 1), Message(event.topic, b"bad", value), message(event, 2)])
    report = land(lake, event, broker)
    assert (report.consumed, report.landed, report.dead_lettered) == (3, 2, 1)
    assert ids(lake, event) == [1, 2]
    (letter,) = dead_letters(lake, event).to_pylist()
    assert letter["value"] == value
    assert reason.lower() in letter["reason"].lower()


class Crash(BaseException):
    """The lander's end at a step."""


def crash_at(step):
    def at_step(name):
        if name == step:
            raise Crash(step)

    return at_step


@pytest.mark.parametrize("step", ["before_write", "after_commit"])
def test_a_crash_at_any_step_doubles_and_loses_nothing(lake, event, broker, step):
    """Guards: events, dead letters and offsets are one commit, so the next lander finds all of them or none."""
    send(broker, event, [message(event, 1), Message(event.topic, b"bad", b"{"), message(event, 2)])
    with pytest.raises(Crash):
        land(lake, event, broker, at_step=crash_at(step))
    send(broker, event, [Message(event.topic, b"bad", b"]"), message(event, 3)])
    land(lake, event, broker)
    assert ids(lake, event) == [1, 2, 3]
    assert sorted(dead_letters(lake, event)["value"].to_pylist()) == [b"]", b"{"]
    assert all(partition.is_right for partition in account(lake, event))


def land_overtaken(lake, event, broker, **options):
    """Land 50 messages while another lander lands them and 10 more, and 5 more come: the reports of both."""
    send(broker, event, [message(event, n) for n in range(50)])
    overtaken = []

    def overtake(step):
        if step == "before_write" and not overtaken:
            send(broker, event, [message(event, n) for n in range(50, 60)])
            overtaken.append(land(lake, event, broker))
            send(broker, event, [message(event, n) for n in range(60, 65)])

    report = land(lake, event, broker, at_step=overtake, **options)
    return overtaken[0], report


def test_a_lander_that_was_overtaken_takes_up_the_new_position(lake, event, broker):
    """Guards against two landers on one topic: the stale one is fenced, reloads and lands only what is left."""
    other, report = land_overtaken(lake, event, broker)
    assert other.landed == 60
    assert report.landed == 5
    assert ids(lake, event) == list(range(65))
    assert all(partition.is_right for partition in account(lake, event))


def test_a_lander_that_was_overtaken_while_its_memory_was_full_goes_on(lake, event, broker, monkeypatch):
    """Guards against partitions that stay paused: librdkafka keeps a pause over unassigning and assigning."""
    monkeypatch.setattr("ml_assets.landing.session._PAUSE_AFTER_SECONDS", 0.0)  # a commit is too short to pause for
    _, report = land_overtaken(lake, event, broker, limits=FlushLimits(bytes=1_000))
    assert report.landed == 5
    assert ids(lake, event) == list(range(65))


def test_a_new_life_of_a_topic_is_landed_from_its_start(lake, event, broker):
    """Guards against a recreated topic whose offsets start at 0 again: its messages are new, not landed ones."""
    for life in (0, 1):
        delete_topic(broker, event.topic)
        send(broker, event, [message(event, life * 10 + n) for n in range(3)])
        land(lake, event, broker)
    assert ids(lake, event) == [0, 1, 2, 10, 11, 12]
    assert len(set(lake.read(landing_table(event.topic))["kafka_epoch"].to_pylist())) == 2


def test_a_topic_that_does_not_exist_yet_is_nothing_to_land(lake, event, broker):
    assert Lander(lake, [event], broker).land_available() == []
