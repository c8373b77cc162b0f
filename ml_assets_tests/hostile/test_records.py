"""Whatever a record holds, the lander goes on: the record lands as a dead letter, the good ones beside it as events.

Records reach a real broker byte for byte, through a producer that refuses nothing.
"""

import gc
import json
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Literal
from uuid import uuid4

import msgspec
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.contracts import Event
from ml_assets.lake import landing_table
from ml_assets.lake.counts import most_frequent
from ml_assets.landing.accounting import account
from ml_assets.landing.batch import AHEAD, MOST_PARTITIONS, Gap, landing_rows, portions
from ml_assets.landing.dead_letters import replay, waiting_dead_letters
from ml_assets.landing.decode import Decoder, RefusedError, in_short
from ml_assets.landing.extent import topic_progress
from ml_assets.landing.lander import Lander
from ml_assets.landing.metrics import LanderMetrics
from ml_assets.landing.session import FlushLimits
from ml_assets.spec import EventSpec
from ml_assets_tests.hostile.raw_producer import RawProducer
from ml_assets_tests.kafka.topics import create_topic_of_any_time
from ml_assets_tests.landing.messages import EPOCH, NINE, Taken, land_taken

pytestmark = [pytest.mark.hostile, pytest.mark.long]

MILLISECONDS = int(NINE.timestamp() * 1000)


class Priced(Event, frozen=True, kw_only=True):
    """An event with a field of each type that a column can have."""

    isin: str
    side: Literal["DELI", "RECE"]
    quantity: int
    price: float
    settled: bool | None = None
    value_date: date | None = None
    cut_off: datetime | None = None
    note: str | None = None


def priced(number, **changes):
    fields = {"event_id": str(number), "event_time": NINE.isoformat(), "isin": "US0378331005", "side": "DELI"}
    return json.dumps({**fields, "quantity": 5, "price": 1.5, **changes}).encode()


@pytest.fixture
def event(broker):
    """An event on a topic of the test's own, one partition, that takes any timestamp."""
    return topic_of(broker)


def topic_of(broker, contract=Priced, partitions=1):
    name = f"hostile-{uuid4().hex[:10]}"
    create_topic_of_any_time(broker, name, partitions)
    return EventSpec(name, name, contract, "Something was priced.")


def send(broker, event, *records, **config):
    """Send records, keyword arguments of `RawProducer.send` or values, and return the numbers of those refused."""
    producer = RawProducer(broker, **config)
    for record in records:
        fields = record if isinstance(record, dict) else {"value": record}
        producer.send(event.topic, **{"timestamp_ms": MILLISECONDS, **fields})
    return producer.close()


def land(lake, event, broker, **options):
    (report,) = Lander(lake, [event], broker, **{"clock": "replay", **options}).land_available()
    assert report.consumed == report.landed + report.dead_lettered
    wrong = [part for part in account(lake, event) if not part.is_right]
    assert wrong == []
    return report


def rows_of(lake, event, kind):
    return lake.read(landing_table(event.topic), where=pc.field("kind") == kind).to_pylist()


def ids(lake, event):
    return {row["event_id"] for row in rows_of(lake, event, "event")}


def version(digits):
    return {"headers": [(b"schema-version", digits)]}


RECORDS = {
    "version_of_11_digits": (version(b"9" * 11), "schema-version"),
    "version_of_5000_digits": (version(b"9" * 5_000), "schema-version"),
    "version_above_32_bits": (version(b"2147483648"), "schema-version"),
    "versions_that_differ": ({"headers": [(b"schema-version", b"1"), (b"schema-version", b"2")]}, "several headers"),
    "header_name_not_utf8": ({"headers": [(b"\xff\xfe", b"1"), (b"b", b"2")]}, "not UTF-8"),
    "time_of_2_to_the_62": ({"timestamp_ms": 2**62}, "ahead of the lander's clock"),
    "time_in_the_year_10000": ({"timestamp_ms": 253_402_300_800_000}, "ahead of the lander's clock"),
    "time_in_2099": ({"timestamp_ms": 4_070_908_800_000}, "ahead of the lander's clock"),
    "time_in_nanoseconds": ({"timestamp_ms": MILLISECONDS * 1_000_000}, "ahead of the lander's clock"),
    "time_in_microseconds": ({"timestamp_ms": MILLISECONDS * 1_000}, "ahead of the lander's clock"),
    "time_in_seconds": ({"timestamp_ms": MILLISECONDS // 1_000}, "before 1971"),
    "time_before_the_year_1": ({"timestamp_ms": -62_135_596_800_001}, "before 1971"),
    "time_of_minus_2_to_the_62": ({"timestamp_ms": -(2**62)}, "before 1971"),
    "time_negative": ({"timestamp_ms": -5}, "before 1971"),
    "enum_of_900_kb": ({"value": priced("bad", side="x" * 900_000)}, "enum value"),
    "unknown_fields_by_the_thousand": ({"value": priced("bad", **{f"f{n}": n for n in range(20_000)})}, "rename"),
    "number_of_5000_digits": ({"value": priced("bad").replace(b'"quantity": 5', b'"quantity": ' + b"9" * 5_000)}, ""),
}
"""Records that once ended a lander or poisoned what comes after it, and the reason that each must carry."""


@pytest.mark.parametrize("clock", ["live", "replay"])
def test_records_that_ended_the_lander_are_dead_letters_with_a_reason(lake, broker, event, clock):
    """Guards: a header of many digits or a time no calendar has ended the lander, all topics, at each restart."""
    hostile = [{"value": priced(name), **record} for name, (record, _) in RECORDS.items()]
    refused = {list(RECORDS)[n - 1] for n in send(broker, event, priced("first"), *hostile, priced("last"))}
    assert refused <= {name for name in RECORDS if "negative" in name or "minus" in name or "before" in name}
    land(lake, event, broker, clock=clock)
    assert ids(lake, event) == {"first", "last"}
    letters = rows_of(lake, event, "dead_letter")
    wanted = [reason for name, (_, reason) in RECORDS.items() if name not in refused]
    for letter, reason in zip(sorted(letters, key=lambda row: row["kafka_offset"]), wanted, strict=True):
        assert reason in letter["letter_reason"]
        assert len(letter["letter_reason"]) <= 300
        assert letter["known_at"] <= datetime.now(UTC)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"schema-version", None)],
        [(b"schema-version", b"four")],
        [(b"schema-version", b"\xff")],
        [(b"schema-version", b"")],
        [(b"schema-version", b"1"), (b"schema-version", b"1")],
        [(b"trace", b"x" * 500_000)],
        [(b"n" * 30_000, b"")],
        [(b"", b"")],
        [(b"h", None)] * 200,
    ],
    ids=lambda headers: f"{headers[0][0][:20]!r}x{len(headers)}",
)
def test_odd_headers_that_say_nothing_wrong_take_no_event_away(lake, broker, event, headers):
    send(broker, event, {"value": priced(1), "headers": headers}, priced(2))
    assert land(lake, event, broker).landed == 2


@pytest.mark.parametrize("clock", ["live", "replay"])
def test_no_time_of_a_record_moves_what_is_known_into_the_future(lake, broker, event, clock):
    """Guards: one record of 2099 moved the watermark to 2099, and every label matured without an outcome."""
    soon = datetime.now(UTC) + AHEAD / 2
    send(broker, event, priced(1), {"value": priced(2), "timestamp_ms": 4_070_908_800_000})
    send(broker, event, {"value": priced(3), "timestamp_ms": int(soon.timestamp() * 1000)})
    land(lake, event, broker, clock=clock)
    assert ids(lake, event) == {"1", "3"}
    assert (topic_progress(lake, event).until or NINE) <= datetime.now(UTC)
    assert replay(lake, event).landed == 1, "a person may take it all the same: it is known from then on"
    assert (topic_progress(lake, event).until or NINE) <= datetime.now(UTC)


def test_a_broker_without_times_lands_dead_letters():
    """Guards: the oldest message formats have no time, and -1 is none to know anything by."""

    class Timeless(Taken):
        def timestamp(self):
            return (0, -1)

    event = EventSpec("timeless", "timeless", Priced, "Something was priced.")
    rows = landing_rows(event, Decoder(Priced), EPOCH, [Timeless(0, priced(1)), Taken(1, priced(2))])
    assert (rows.events, rows.dead_letters, rows.not_understood) == (1, 1, 0)


def test_header_names_that_are_no_text_do_not_end_the_process(lake, broker, event):
    """Guards: the client makes holes of them, and a garbage collection in between hid the error: a segfault."""
    names = [b"\xff\xfe", b"\xc3\x28", b"\x80"]
    bad = [{"value": priced(n), "headers": [(b"ok", None), (names[n % 3], b"1"), (b"b", b"2")]} for n in range(600)]
    send(broker, event, priced("first"), *bad, priced("last"))
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        report = land(lake, event, broker, limits=FlushLimits(rows=50))
    finally:
        gc.set_threshold(*thresholds)
    assert (report.landed, report.dead_lettered) == (2, 600)


# ---- whole records, drawn


_KEYS = st.none() | st.binary(max_size=50) | st.sampled_from([b"k" * 100_000])
_NAMES = st.sampled_from([b"schema-version", b"trace", b"\xff", b"\xc3\x28", "häder".encode()]) | st.binary(max_size=9)
_NUMBERS = st.integers(-(10**12), 10**12).map(lambda number: str(number).encode())
_HEADERS = st.lists(
    st.tuples(
        _NAMES.map(lambda name: name.replace(b"\0", b"")),
        st.none() | st.binary(max_size=20) | _NUMBERS | st.sampled_from([b"9" * 11, b"9" * 5_000, b"0" * 40, b"1"]),
    ),
    max_size=4,
)
_TIMES = (
    st.integers(-(2**63), 2**63 - 1)
    | st.integers(MILLISECONDS - 10**11, MILLISECONDS)
    | st.sampled_from([1, -1, 2**62, -(2**62), 253_402_300_799_999, 253_402_300_800_000, -62_135_596_800_001])
).filter(bool)  # 0 is "now" to the producer
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
_DATES = st.datetimes(timezones=st.sampled_from([UTC])).map(lambda moment: moment.isoformat())
_FIELDS = st.sampled_from(
    ["event_id", "event_time", "isin", "side", "quantity", "price", "settled", "value_date", "cut_off", "note", "more"]
)
_CHANGED = st.dictionaries(
    _FIELDS,
    _JSON
    | _DATES
    | st.sampled_from([2**63, -(2**70), 1e308, 10**400, "0001-01-01T00:00:00+14:00", "9999-12-31", "\0", "x" * 4_000]),
    max_size=3,
).map(lambda changes: priced("drawn", **changes))
_VALUES = (
    st.none()
    | st.binary(max_size=80)
    | st.binary(max_size=40).map(lambda tail: b"\0" + tail)
    | _JSON.map(lambda value: json.dumps(value).encode())
    | _CHANGED
    | st.tuples(_CHANGED, st.integers(0, 200)).map(lambda cut: cut[0][: cut[1]])
    | st.tuples(_CHANGED, st.integers(0, 100), st.binary(min_size=1, max_size=3)).map(
        lambda put: put[0][: put[1]] + put[2] + put[0][put[1] :]
    )
    | st.sampled_from([b"[" * 50_000, b'{"a":' * 50_000, priced("big", note="n" * 700_000), b"x" * 700_000])
)
_RECORDS = st.fixed_dictionaries({"value": _VALUES, "key": _KEYS, "headers": _HEADERS, "timestamp_ms": _TIMES})


@pytest.mark.parametrize("clock", ["live", "replay"])
def test_no_record_stops_the_lander_or_takes_others_along(lake, broker, clock):
    """Guards: whatever value, key, headers, timestamp, size and codec a record has, good ones beside it land."""
    event = topic_of(broker, partitions=2)
    sent = set()

    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(st.lists(_RECORDS, min_size=1, max_size=12), st.sampled_from(["none", "gzip", "snappy", "lz4", "zstd"]))
    def drawn(records, codec):
        before, after = uuid4().hex, uuid4().hex
        refused = send(broker, event, priced(before), *records, priced(after), **{"compression.codec": codec})
        assert not refused & {0, len(records) + 1}
        sent.update([before, after])
        land(lake, event, broker, clock=clock, limits=FlushLimits(rows=5))
        assert sent <= ids(lake, event)
        assert (topic_progress(lake, event).until or NINE) <= datetime.now(UTC)
        assert all(len(row["letter_reason"]) <= 300 for row in rows_of(lake, event, "dead_letter"))

    drawn()


# ---- what nobody foresaw


class Fragile(Event, frozen=True, kw_only=True):
    """A contract whose own code fails on some values, each in another place."""

    what: str

    def __post_init__(self) -> None:
        if self.what == "when decoded":
            raise KeyError("nobody foresaw this")

    @property
    def business_date(self) -> date:
        if self.what == "when dated":
            raise ZeroDivisionError("nor this")
        return date(2026, 1, 5)


def fragile(number, what="nothing"):
    return msgspec.json.encode({"event_id": str(number), "event_time": NINE, "what": what})


def test_what_nobody_foresaw_is_a_dead_letter_logged_and_counted(lake, broker, caplog):
    """Guards: the next defect of this kind must cost one record and be seen, and not end all topics."""
    event, metrics = topic_of(broker, Fragile), LanderMetrics()
    send(broker, event, fragile(1), fragile(2, "when decoded"), fragile(3), fragile(4, "when dated"), fragile(5))
    report = land(lake, event, broker, metrics=metrics)
    assert (report.landed, report.dead_lettered) == (3, 2)
    assert metrics.registry.get_sample_value("lander_not_understood_total", {"topic": event.topic}) == 2
    reasons = sorted(row["letter_reason"] for row in rows_of(lake, event, "dead_letter"))
    assert reasons == ["not understood: KeyError: 'nobody foresaw this'", "not understood: ZeroDivisionError: nor this"]
    assert sum(record.exc_info is not None for record in caplog.records) == 2
    assert sum(replay(lake, event).refused.values()) == 2


def test_a_registry_that_is_down_makes_no_dead_letters():
    """Guards the net from catching too much: what waiting mends must be waited for."""

    class Down:
        def read(self, value):
            raise OSError("the registry does not answer")

    event = EventSpec("priced", "priced", Priced, "Something was priced.")
    with pytest.raises(OSError, match="does not answer"):
        landing_rows(event, Decoder(Priced, Down()), EPOCH, [Taken(0, b"\0\0\0\0\1"), Taken(1, priced(1))])


# ---- how much


def files_by_commit(lake, event):
    """How many files each commit added; the tables of these tests are only appended to."""
    name = landing_table(event.topic)
    files = [len(lake.table(name, version).file_uris()) for version in range(lake.version(name) + 1)]
    return [later - before for before, later in pairwise(files) if later > before]


def on_day(number, start=date(2020, 1, 1)):
    return f"{start + timedelta(days=number)}T09:00:00Z"


def test_thousands_of_dates_are_landed_in_commits_of_few(lake, broker, event):
    """Guards: one commit of 6,000 dates, 1.9 MB of messages, took 3.9 GiB, since each date is a file held open."""
    days = 3 * MOST_PARTITIONS + 7
    send(broker, event, *(priced(number, event_time=on_day(number)) for number in range(days)), b"{", priced("last"))
    report = land(lake, event, broker)
    assert (report.consumed, report.landed) == (days + 2, days + 1)
    added = files_by_commit(lake, event)
    assert max(added) <= MOST_PARTITIONS
    assert len(added) >= 3
    assert land(lake, event, broker).consumed == 0


def test_letters_of_thousands_of_dates_are_replayed_in_commits_of_few(lake):
    """Guards the same for a replay; and that letters which stay refused do not hold up those behind them."""
    event = EventSpec("priced", "priced", Priced, "Something was priced.")
    days = 2 * MOST_PARTITIONS + 5
    bad = [Taken(n, priced(n, event_time=on_day(n)), head=[("schema-version", b"9" * 11)]) for n in range(days)]
    land_taken(lake, event, [*bad, Taken(days, b"{")])
    report = replay(lake, event)
    assert report.landed == days
    assert sum(report.refused.values()) == 1
    assert waiting_dead_letters(lake, event).num_rows == 1
    assert max(files_by_commit(lake, event)[1:]) <= MOST_PARTITIONS  # the first is not a lander's
    assert [part.is_right for part in account(lake, event)] == [True]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 25), st.integers(0, 2)), min_size=1, max_size=60),
    st.integers(1, 6),
)
def test_portions_are_all_messages_in_their_order_of_few_dates_each(drawn, most):
    """Guards the split: nothing is lost or doubled, each part begins where the one before it ended."""
    event = EventSpec("priced", "priced", Priced, "Something was priced.")
    ends, messages, gaps = {}, [], []
    for partition, day, skipped in drawn:
        first = ends.get(partition, 0)
        if skipped:
            gaps.append(Gap(partition, first, first + skipped, "nothing here"))
        messages.append(Taken(first + skipped, priced(len(messages), event_time=on_day(day)), of=partition))
        ends[partition] = first + skipped + 1
    rows = landing_rows(event, Decoder(Priced), EPOCH, messages, gaps).rows
    found = portions(messages, gaps, rows, most)
    assert [message for part, _ in found for message in part] == messages
    assert sorted([gap for _, part in found for gap in part], key=repr) == sorted(gaps, key=repr)
    for part, its_gaps in found:
        own = landing_rows(event, Decoder(Priced), EPOCH, part, its_gaps).rows
        lies_in = set(zip(own["kind"].to_pylist(), own["business_date"].to_pylist(), strict=True))
        assert len(lies_in) <= max(most, 2)  # a message and the gap before it stay together
        assert {(gap.partition, gap.until) for gap in its_gaps} <= {(m.of, m.at) for m in part}


@given(st.text(max_size=2_000))
def test_a_reason_is_short_and_can_be_shown_anywhere(text):
    """Guards: a value of 900 kB came back in each reason, and so in the metadata of every run; a NUL breaks JSONB."""
    reason = str(RefusedError(text))
    assert reason == in_short(text)
    assert reason.isprintable()
    assert len(reason) <= 300 * len(r"\U0001f600")
    if text.isprintable() and len(text) <= 300:
        assert reason == text


def test_counts_of_what_comes_from_outside_are_few():
    counts = {f"Invalid enum value '{n}'": n for n in range(1, 5_001)}
    shown = most_frequent(counts, 20)
    assert len(shown) == 21
    assert sum(shown.values()) == sum(counts.values())
