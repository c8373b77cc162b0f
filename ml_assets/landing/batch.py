"""A batch of messages as rows of the landing table. Pure: messages in, an Arrow table out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter, methodcaller
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from ml_assets.contracts import TIMESTAMP, Event, arrow_schema, roll_to_weekday
from ml_assets.landing.decode import Decoder, RefusedError, declared_version
from ml_assets.landing.schemas import DEAD_LETTER, EVENT, GAP, LETTER_COLUMNS, PARTITIONED_BY, landing_schema
from ml_assets.spec import EventSpec

Clock = Literal["live", "replay"]
# How far a broker's clock may be ahead of the lander's. Beyond that one of them is wrong.
AHEAD = timedelta(minutes=5)
MOST_PARTITIONS = 100  # of the landing table in one commit
_LOG = logging.getLogger(__name__)
_NOT_UTF8: Any = object()
_EARLIEST = 31_536_000_000  # 1971 in milliseconds: what is before it was counted in seconds, or is no time at all
_MILLISECONDS = pa.timestamp("ms", tz="UTC")
UNFIT = "a number needs more than 64 bits, or a time is not in the years 1 to 9999 of UTC"
# Microseconds since 1970 of the first and the last day that a Python date can be.
_FIRST_TIME, _LAST_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999

_DAY = timedelta(days=1)
# How far ahead a contract with its own `business_date` may place an event.
_LONGEST_VALUE_DATE = timedelta(days=366)


class RawMessage(Protocol):
    """What the lander needs of a message; confluent_kafka's has it."""

    def partition(self) -> int | None: ...  # noqa: D102
    def offset(self) -> int | None: ...  # noqa: D102
    def timestamp(self) -> tuple[int, int]: ...  # noqa: D102 - (kind, milliseconds since 1970)
    def key(self) -> Any: ...  # noqa: D102
    def value(self) -> Any: ...  # noqa: D102
    def headers(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets of a partition, from `first` up to but not including `until`, that hold no message; and why."""

    partition: int
    first: int
    until: int
    reason: str


@dataclass(frozen=True, slots=True)
class LandingRows:
    """Rows in `landing_schema`, and how many of each kind they are.

    `not_understood` counts the dead letters whose handling raised an unforeseen error.
    """

    rows: pa.Table
    events: int
    dead_letters: int
    not_understood: int = 0


@dataclass(slots=True)
class _Sorted:
    """The messages of a batch: those that keep the contract, decoded, and those that do not, with the reason."""

    good: list[_Good] = field(default_factory=list)
    bad: list[RawMessage] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    not_understood: int = 0

    def refuse(self, message: RawMessage, error: Exception) -> None:
        """Make a dead letter of a message; an unforeseen error is logged with its trace and counted."""
        if not isinstance(error, RefusedError):
            _LOG.error(
                "partition %s, offset %s: not understood, landed as a dead letter: this is a defect of the lander",
                message.partition(), message.offset(), exc_info=error,
            )  # fmt: skip
            self.not_understood += 1
            error = not_understood(error)
        self.bad.append(message)
        self.reasons.append(str(error))


def not_understood(error: Exception) -> RefusedError:
    """Return the refusal of a message whose handling raised an unforeseen error."""
    return RefusedError(f"not understood: {type(error).__name__}: {error}")


class _Good(NamedTuple):
    message: RawMessage
    event: Event
    version: int | None


def landing_rows(
    event: EventSpec,
    decoder: Decoder,
    epoch: str,
    messages: Sequence[RawMessage],
    gaps: Sequence[Gap] = (),
    *,
    clock: Clock = "live",
    now: datetime | None = None,
) -> LandingRows:
    """Return the rows for the messages of one topic: an event or a dead letter per message, and one row per gap.

    `known_at` is the later of the broker's time and `now` on the `live` clock, and the broker's time on `replay`. A
    message whose broker time cannot be one (`_usable_time`) is a dead letter on either: it is known from `now`.

    Raises:
        OSError: a schema registry does not answer. Nothing in a message makes anything else be raised.
    """
    now = now or datetime.now(UTC)
    found, latest = _Sorted(), _milliseconds(now + AHEAD)
    for message, headers in zip(messages, _headers(messages), strict=True):
        try:
            _refuse_time(message, latest)
            if headers is _NOT_UTF8:
                raise RefusedError("a header has a name that is not UTF-8")
            version = declared_version(headers) if headers else None
            found.good.append(_Good(message, decoder.decode(message.value(), version), version))
        except OSError:
            raise
        except Exception as error:  # whatever it is, it is one message and not the end of the lander
            found.refuse(message, error)
    decoded, found.good = found.good, []
    tables = [
        *_event_tables(event, decoded, found, epoch, clock, now),
        *(
            in_landing_schema(event, c, now)
            for c in (_dead_letters(found, epoch, clock, now), _gaps(epoch, gaps, now))
            if c
        ),
    ]
    return LandingRows(
        pa.concat_tables(tables or [landing_schema(event).empty_table()]),
        len(found.good),
        len(found.bad),
        found.not_understood,
    )


def portions(
    messages: Sequence[RawMessage], gaps: Sequence[Gap], rows: pa.Table, most: int = MOST_PARTITIONS
) -> list[tuple[list[RawMessage], list[Gap]]]:
    """Return messages and gaps in portions, in their order, whose rows lie in at most `most` partitions of the table.

    `rows` is what became of them. A writer keeps a file open for each partition, about 0.7 MB: thousands of dates in
    one commit are gigabytes.
    """
    if _partitions(rows) <= most:
        return [(list(messages), list(gaps))]
    columns = (rows[name].to_pylist() for name in ("kafka_partition", "kafka_offset", "kind", "business_date"))
    lies_in = {(partition, offset): (kind, day) for partition, offset, kind, day in zip(*columns, strict=True)}
    before = {(gap.partition, gap.until): gap for gap in gaps}  # a gap goes with the message behind it
    found: list[tuple[list[RawMessage], list[Gap]]] = [([], [])]
    seen: set[Any] = set()
    for message in messages:
        at = (message.partition(), message.offset())
        gap = before.pop(at, None)  # type: ignore[arg-type]
        its = {lies_in[at], *([lies_in[gap.partition, gap.first]] if gap else [])}
        if seen and len(seen | its) > most:
            found.append(([], []))
            seen = set()
        seen |= its
        found[-1][0].append(message)
        if gap:
            found[-1][1].append(gap)
    found[-1][1].extend(before.values())
    return found


def _headers(messages: Sequence[RawMessage]) -> list[Any]:
    """Return the headers of each message, or `_NOT_UTF8`.

    Of a name that is not UTF-8 the client makes a hole in a tuple. To look at it ends the process; what the garbage
    collector finds in a tuple tells without looking. The error is lost if a collection comes between, so none may.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        return [_headers_of(message) for message in messages]
    finally:
        if was_on:
            gc.enable()


def _headers_of(message: RawMessage) -> Any:
    try:
        headers = message.headers()
        for header in headers or ():
            if len(gc.get_referents(header)) != len(header):
                return _NOT_UTF8
    except (SystemError, UnicodeDecodeError):  # the interpreter notices the client's error here or there
        return _NOT_UTF8
    return headers


def _partitions(rows: pa.Table) -> int:
    return int(rows.group_by(list(PARTITIONED_BY)).aggregate([]).num_rows)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _refuse_time(message: RawMessage, latest: int) -> None:
    """Refuse a message with an impossible broker time, since everything that depends on time would trust it.

    Raises:
        RefusedError: the broker time is impossible.
    """
    kind, stamp = message.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE:
        raise RefusedError("the record has no broker time")
    if stamp > latest:
        raise RefusedError(
            f"the broker time, {stamp} ms since 1970, is more than {AHEAD.seconds // 60} minutes ahead of the lander's "
            "clock"
        )
    if stamp < _EARLIEST:
        raise RefusedError(f"the broker time, {stamp} ms since 1970, is before 1971")


def _event_tables(
    event: EventSpec, rows: Sequence[_Good], found: _Sorted, epoch: str, clock: Clock, now: datetime
) -> list[pa.Table]:
    """Return decoded messages as tables; in `found` is what has become of each.

    A message that no column can hold is found by halving the batch, so that the messages beside it still land.
    """
    if not rows:
        return []
    try:
        messages = [row.message for row in rows]
        columns = _events(
            event, [r.event for r in rows], [r.version for r in rows], _coordinates(epoch, messages, clock, now), now
        )
        table = in_landing_schema(event, columns, now)
    except Exception as error:
        if len(rows) == 1:
            found.refuse(rows[0].message, error)
            return []
        half = len(rows) // 2
        return [t for part in (rows[:half], rows[half:]) for t in _event_tables(event, part, found, epoch, clock, now)]
    found.good.extend(rows)
    return [table]


def columns_of(contract: type[msgspec.Struct], rows: Sequence[msgspec.Struct]) -> dict[str, pa.Array]:
    """Return events or reference rows as Arrow columns by field name."""
    return {
        field.name: pa.array(list(map(attrgetter(field.name), rows)), type=field.type)
        for field in arrow_schema(contract)
    }


def fitting_columns(contract: type[msgspec.Struct], rows: Sequence[msgspec.Struct]) -> dict[str, pa.Array]:
    """Return `columns_of`.

    Raises:
        RefusedError: some row has a value that its type allows and that no column can hold.
    """
    try:
        columns = columns_of(contract, rows)
    except OverflowError as error:
        raise RefusedError(UNFIT) from error
    for column in columns.values():
        if pa.types.is_timestamp(column.type):
            bounds = pc.min_max(column.cast(pa.int64())).as_py()
            if bounds["min"] is not None and (bounds["min"] < _FIRST_TIME or bounds["max"] > _LAST_TIME):
                raise RefusedError(UNFIT)
    return columns


def _events(
    event: EventSpec,
    rows: Sequence[Event],
    versions: Sequence[int | None],
    coordinates: Mapping[str, pa.Array],
    now: datetime,
) -> dict[str, Any]:
    payload = fitting_columns(event.contract, rows)
    return {
        "kind": EVENT,
        **payload,
        "schema_version": pa.array(versions, pa.int32()),
        **coordinates,
        "business_date": business_dates(event, rows, payload["event_time"], coordinates["known_at"], now),
    }


def business_dates(
    event: EventSpec, rows: Sequence[Event], event_times: pa.Array, known_at: pa.Array, now: datetime
) -> pa.Array:
    """Return the partition of each event: its business date, or the date on which it came if that date is implausible.

    So a row of the year 9999 is in a partition that is ingested, and goes to the quarantine there.
    """
    contract = event.contract
    if contract.business_date is not Event.business_date:
        days = pa.array([row.business_date for row in rows], pa.date32())
        latest = now.date() + _LONGEST_VALUE_DATE
    else:
        days = weekdays(event_times)
        latest = now.date() + _DAY
    bounds = (event.earliest, roll_to_weekday(latest))
    today = pa.scalar(roll_to_weekday(now.date()), pa.date32())
    came = weekdays(known_at)
    came = pc.if_else(_within(came, bounds), came, today)
    return pc.if_else(_within(days, bounds), days, came)


def _within(days: pa.Array, bounds: tuple[date, date]) -> pa.Array:
    first, last = (pa.scalar(day, pa.date32()) for day in bounds)
    return pc.and_(pc.greater_equal(days, first), pc.less_equal(days, last))


def weekdays(times: pa.Array) -> pa.Array:
    """Return the date of each time, for a weekend the Monday after: `roll_to_weekday` on columns."""
    weekday = pc.day_of_week(times)  # Monday is 0
    days = times.cast(pa.date32()).cast(pa.int32())
    return pc.add(days, pc.if_else(pc.greater_equal(weekday, 5), pc.subtract(7, weekday), 0)).cast(pa.int32()).cast(
        pa.date32()
    )  # fmt: skip


def _dead_letters(found: _Sorted, epoch: str, clock: Clock, now: datetime) -> dict[str, Any]:
    if not found.bad:
        return {}
    coordinates = _coordinates(epoch, found.bad, clock, now)
    return {
        "kind": DEAD_LETTER,
        LETTER_COLUMNS["reason"]: pa.array(found.reasons, pa.string()),
        LETTER_COLUMNS["key"]: pa.array([_bytes(message.key()) for message in found.bad], pa.binary()),
        LETTER_COLUMNS["value"]: pa.array([_bytes(message.value()) for message in found.bad], pa.binary()),
        **coordinates,
        "business_date": weekdays(coordinates["known_at"]),
    }


def _gaps(epoch: str, gaps: Sequence[Gap], now: datetime) -> dict[str, Any]:
    if not gaps:
        return {}
    return {
        "kind": GAP,
        LETTER_COLUMNS["reason"]: pa.array([gap.reason for gap in gaps], pa.string()),
        "gap_until": pa.array([gap.until for gap in gaps], pa.int64()),
        "kafka_epoch": epoch,
        "kafka_partition": pa.array([gap.partition for gap in gaps], pa.int32()),
        "kafka_offset": pa.array([gap.first for gap in gaps], pa.int64()),
        "business_date": roll_to_weekday(now.date()),
    }


def _coordinates(epoch: str, messages: Sequence[RawMessage], clock: Clock, now: datetime) -> dict[str, Any]:
    """Return offsets and times of messages; a message without a usable broker time is known from `now`."""
    latest = _milliseconds(now + AHEAD)
    stamps = [
        stamp if kind != TIMESTAMP_NOT_AVAILABLE and _EARLIEST <= stamp <= latest else None
        for kind, stamp in map(methodcaller("timestamp"), messages)
    ]
    broker_time = pa.array(stamps, pa.int64()).cast(_MILLISECONDS).cast(TIMESTAMP)
    known_at = broker_time.fill_null(pa.scalar(now, TIMESTAMP))
    return {
        "kafka_epoch": epoch,
        "kafka_partition": pa.array(list(map(methodcaller("partition"), messages)), pa.int32()),
        "kafka_offset": pa.array(list(map(methodcaller("offset"), messages)), pa.int64()),
        "broker_time": broker_time,
        "known_at": later(known_at, now) if clock == "live" else known_at,
    }


def later(times: pa.Array | pa.ChunkedArray, moment: datetime) -> pa.Array | pa.ChunkedArray:
    """Return the later of each time and the moment."""
    scalar = pa.scalar(moment, TIMESTAMP)
    return pc.if_else(pc.greater(times, scalar), times, scalar)


def in_landing_schema(event: EventSpec, columns: Mapping[str, Any], now: datetime) -> pa.Table:
    """Return columns as rows of the landing table, landed `now`.

    A single value stands for a whole column; a column that is not given is empty.
    """
    schema = landing_schema(event)
    given = {**columns, "landed_at": now}
    rows = next(len(column) for column in given.values() if isinstance(column, pa.Array | pa.ChunkedArray))

    def column(field: pa.Field) -> pa.Array:
        value = given.get(field.name)
        if isinstance(value, pa.Array | pa.ChunkedArray):
            return value
        return pa.nulls(rows, field.type) if value is None else pa.repeat(pa.scalar(value, field.type), rows)

    return pa.table([column(field) for field in schema], schema=schema)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
