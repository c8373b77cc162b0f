"""Messages without a broker, for what needs none; and messages for one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from ml_assets.lake import Lake, landing_table
from ml_assets.landing.batch import Gap, landing_rows
from ml_assets.landing.decode import Decoder
from ml_assets.landing.kafka import app_id
from ml_assets.landing.schemas import PARTITIONED_BY
from ml_assets.spec import EventSpec

NINE = datetime(2026, 1, 5, 9, tzinfo=UTC)
EPOCH = "first-life"


class Message(NamedTuple):
    """What `produce` sends."""

    topic: str
    key: bytes
    value: bytes
    timestamp_ms: int = int(NINE.timestamp() * 1000)


@dataclass
class Taken:
    """A message as a consumer gives it."""

    at: int
    text: bytes | None
    of: int = 0
    head: list[tuple[str, bytes]] = field(default_factory=list)

    def partition(self) -> int:
        return self.of

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return (1, int(NINE.timestamp() * 1000))

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes | None:
        return self.text

    def headers(self) -> Any:
        return self.head


def body(number: int, **changes: Any) -> bytes:
    """The JSON of one event."""
    fields = {"event_id": str(number), "event_time": NINE, "isin": "US0378331005", "side": "DELI", "quantity": 5}
    return msgspec.json.encode({name: value for name, value in {**fields, **changes}.items() if value is not None})


def land_taken(
    lake: Lake, event: EventSpec, messages: Sequence[Taken], gaps: Sequence[Gap] = (), *, now: datetime | None = None
) -> None:
    """Land messages of one partition as a lander does, without a broker."""
    appender = lake.appender(landing_table(event.topic), PARTITIONED_BY)
    partitions = {m.of for m in messages} | {gap.partition for gap in gaps}
    ids = {p: app_id(event.topic, EPOCH, p) for p in partitions}
    start = appender.positions(ids.values())
    end = {
        ids[p]: max(
            [m.at + 1 for m in messages if m.of == p] + [gap.until for gap in gaps if gap.partition == p],
        )
        for p in partitions
    }
    rows = landing_rows(event, Decoder(event.contract), EPOCH, messages, gaps, now=now)
    appender.append(rows.rows, start, end)
