"""A batch of messages as rows of the landing table. Pure: messages in, an Arrow table out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter, methodcaller
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import TIMESTAMP, Event, arrow_schema, roll_to_weekday
from ml_assets.landing.decode import Decoder, RefusedError, declared_version
from ml_assets.landing.schemas import DEAD_LETTER, EVENT, GAP, LETTER_COLUMNS, landing_schema
from ml_assets.spec import EventSpec

Clock = Literal["live", "replay"]
_MILLISECONDS = pa.timestamp("ms", tz="UTC")
UNFIT = "a number needs more than 64 bits, or a time is not in the years 1 to 9999 of UTC"
# Microseconds since 1970 of the first and the last day that a Python date can be.
_FIRST_TIME, _LAST_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999


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
    """Rows in `landing_schema`, and how many of each kind they are."""

    rows: pa.Table
    events: int
    dead_letters: int


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
    """Return what becomes of the messages of one topic: an event or a dead letter each, and a row a gap.

    `known_at` is the later of the broker's time and `now` on the `live` clock, and the broker's time on `replay`.
    """
    now = now or datetime.now(UTC)
    events: list[Event] = []
    versions: list[int | None] = []
    good: list[RawMessage] = []
    bad: list[RawMessage] = []
    reasons: list[str] = []
    for message in messages:
        headers = message.headers()
        version = declared_version(headers) if headers else None
        try:
            events.append(decoder.decode(message.value(), version))
        except RefusedError as error:
            bad.append(message)
            reasons.append(str(error))
        else:
            good.append(message)
            versions.append(version)
    payload = fitting_columns(event.contract, events)
    if payload is None:
        for place in reversed([p for p, row in enumerate(events) if fitting_columns(event.contract, [row]) is None]):
            bad.append(good.pop(place))
            reasons.append(UNFIT)
            del events[place], versions[place]
        payload = columns_of(event.contract, events)
    parts = [
        _events(event, events, payload, versions, _coordinates(epoch, good, clock, now)),
        _dead_letters(bad, reasons, _coordinates(epoch, bad, clock, now)),
        _gaps(epoch, gaps, now),
    ]
    tables = [in_landing_schema(event, columns, now) for columns in parts if columns]
    return LandingRows(pa.concat_tables(tables or [landing_schema(event).empty_table()]), len(good), len(bad))


def columns_of(contract: type[Event], rows: Sequence[Event]) -> dict[str, pa.Array]:
    """Return events as Arrow columns by field name."""
    return {
        field.name: pa.array(list(map(attrgetter(field.name), rows)), type=field.type)
        for field in arrow_schema(contract)
    }


def fitting_columns(contract: type[Event], rows: Sequence[Event]) -> dict[str, pa.Array] | None:
    """Return `columns_of`, or None if some event has a value that its type allows and no column holds (`UNFIT`)."""
    try:
        columns = columns_of(contract, rows)
    except OverflowError:
        return None
    for column in columns.values():
        if pa.types.is_timestamp(column.type):
            bounds = pc.min_max(column.cast(pa.int64())).as_py()
            if bounds["min"] is not None and (bounds["min"] < _FIRST_TIME or bounds["max"] > _LAST_TIME):
                return None
    return columns


def _events(
    event: EventSpec,
    rows: Sequence[Event],
    payload: Mapping[str, pa.Array],
    versions: Sequence[int | None],
    coordinates: Mapping[str, pa.Array],
) -> dict[str, Any]:
    if not rows:
        return {}
    return {
        "kind": EVENT,
        **payload,
        "schema_version": pa.array(versions, pa.int32()),
        **coordinates,
        "business_date": business_dates(event.contract, rows, payload["event_time"]),
    }


def business_dates(contract: type[Event], rows: Sequence[Event], event_times: pa.Array) -> pa.Array:
    """Return the partition of each event, in columns unless a contract has its own idea of it."""
    if contract.business_date is not Event.business_date:
        return pa.array([row.business_date for row in rows], pa.date32())
    return weekdays(event_times)


def weekdays(times: pa.Array) -> pa.Array:
    """Return the date of each time, a weekend's as the Monday after: `roll_to_weekday`, in columns."""
    weekday = pc.day_of_week(times)  # Monday is 0
    days = times.cast(pa.date32()).cast(pa.int32())
    return pc.add(days, pc.if_else(pc.greater_equal(weekday, 5), pc.subtract(7, weekday), 0)).cast(pa.int32()).cast(
        pa.date32()
    )  # fmt: skip


def _dead_letters(
    messages: Sequence[RawMessage], reasons: Sequence[str], coordinates: Mapping[str, pa.Array]
) -> dict[str, Any]:
    if not messages:
        return {}
    return {
        "kind": DEAD_LETTER,
        LETTER_COLUMNS["reason"]: pa.array(reasons, pa.string()),
        LETTER_COLUMNS["key"]: pa.array([_bytes(message.key()) for message in messages], pa.binary()),
        LETTER_COLUMNS["value"]: pa.array([_bytes(message.value()) for message in messages], pa.binary()),
        "schema_version": pa.array([declared_version(message.headers()) for message in messages], pa.int32()),
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
    stamps = pa.array([stamp for _, stamp in map(methodcaller("timestamp"), messages)], pa.int64())
    broker_time = stamps.cast(_MILLISECONDS).cast(TIMESTAMP)
    known_at = later(broker_time, now) if clock == "live" else broker_time
    return {
        "kafka_epoch": epoch,
        "kafka_partition": pa.array(list(map(methodcaller("partition"), messages)), pa.int32()),
        "kafka_offset": pa.array(list(map(methodcaller("offset"), messages)), pa.int64()),
        "broker_time": broker_time,
        "known_at": known_at,
    }


def later(times: pa.Array | pa.ChunkedArray, moment: datetime) -> pa.Array | pa.ChunkedArray:
    """Return each time, or the moment where that is later."""
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
