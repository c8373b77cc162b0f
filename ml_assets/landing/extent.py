"""How far a topic has landed: the time up to which no message is missing, by partition.

A partition has landed up to the publication time of its newest row, or up to the time at which a lander saw its end
(`landing.heartbeat`), whichever is later. A topic has landed up to the least of its partitions. Times that lie in the
future of the landing, for example from a producer with a wrong clock, are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ml_assets.duck import query_duckdb
from ml_assets.lake import Lake, RangedFile, landing_table
from ml_assets.landing.schemas import DEAD_LETTER, EVENT
from ml_assets.spec import EventSpec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What Delta cuts off the ends of a range of times.
_MILLISECOND = timedelta(milliseconds=1)
_COLUMNS = ["kafka_epoch", "kafka_partition", "broker_time", "landed_at"]
# By partition, the newest publication time that is neither after its landing nor after now, in microseconds.
_NEWEST = """
SELECT
    coalesce(kafka_partition, 0),
    epoch_us(max(broker_time) FILTER (broker_time <= landed_at AND epoch_us(broker_time) <= $now))
FROM rows GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class TopicProgress:
    """How far each partition of a topic has landed; None means that nothing is known about the partition."""

    topic: str
    partitions: Mapping[int, datetime | None]

    @property
    def until(self) -> datetime | None:
        """The time up to which the whole topic has landed; None if that is not known."""
        known = [time for time in self.partitions.values() if time is not None]
        return min(known) if known and len(known) == len(self.partitions) else None

    def __str__(self) -> str:
        """Say which partition is behind, and since when."""
        if not self.partitions:
            return f"topic {self.topic}: nothing has landed"
        slowest = min(self.partitions, key=lambda p: self.partitions[p] or _EPOCH)
        since = self.partitions[slowest]
        where = f"topic {self.topic}, partition {slowest}"
        return f"{where}: landed until {since:%Y-%m-%d %H:%M} UTC" if since else f"{where}: nothing has landed"


def topic_progress(lake: Lake, event: EventSpec, now: datetime | None = None) -> TopicProgress:
    """Return how far the topic of an event has landed: from the log of its table, and columns of its newest files."""
    now = now or datetime.now(UTC)
    name = landing_table(event.topic)
    if lake.version(name) is None:
        return TopicProgress(event.topic, {})
    found = _newest_rows(lake, name, now)
    count = lake.positions(name, [partitions_id(event.topic)])[partitions_id(event.topic)]
    partitions = sorted({*found, *range(count)})
    read = lake.positions(name, [read_id(event.topic, partition) for partition in partitions])
    for partition in partitions:
        noted = read[read_id(event.topic, partition)]
        seen = from_micros(noted) if noted else None
        of_rows = found.get(partition)
        times = [time for time in (seen, of_rows) if time is not None and time <= now]
        found[partition] = max(times, default=None)
    return TopicProgress(event.topic, {p: found[p] for p in sorted(found) if not count or p < count})


def least(progress: Iterable[TopicProgress]) -> TopicProgress | None:
    """Return the topic that is furthest behind; None if there are no topics."""
    return min(progress, key=lambda one: one.until or _EPOCH, default=None)


def read_id(topic: str, partition: int) -> str:
    """Return the Delta application whose number is until when a partition was read to its end, in microseconds."""
    return f"read:{topic}:{partition}"


def partitions_id(topic: str) -> str:
    """Return the Delta application whose number is how many partitions the topic has."""
    return f"partitions:{topic}"


def micros(time: datetime) -> int:
    """Return a time as microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def from_micros(number: int) -> datetime:
    """Return the time that `micros` gave."""
    return _EPOCH + timedelta(microseconds=number)


def _newest_rows(lake: Lake, name: str, now: datetime) -> dict[int, datetime | None]:
    """Return the newest publication time of each partition of the topic's present life, as its rows say.

    Files are read from the newest on, until all others are older than what has been found of each partition.
    """
    files = [file for file in lake.files_with_ranges(name, _COLUMNS) if file.values["kind"] in (EVENT, DEAD_LETTER)]
    files = [file for file in files if file.rows]
    if not files:
        return {}
    files.sort(key=lambda file: _high(file, "broker_time") or now, reverse=True)
    life = _life(files)
    # A topic that was created again may have fewer partitions than before.
    named = {p for file in files if _spans(file, "kafka_epoch", life) for p in _partitions(file)}
    found: dict[int, datetime] = {}
    there: set[int] = set()
    with query_duckdb(threads=1) as db:
        for file in files:
            newest = _high(file, "broker_time")
            mine = [p for p in _partitions(file) if p in named]
            if newest is not None and mine and all(p in found and newest + _MILLISECOND <= found[p] for p in mine):
                continue
            db.register("rows", file.read(_COLUMNS))
            for partition, number in db.execute(_NEWEST, {"now": micros(now)}).fetchall():
                there.add(partition)
                if number is not None:
                    time = from_micros(number)
                    found[partition] = max(time, found.get(partition, time))
    # A range may name partitions that no row has: of 0 and 2 alone it is 0 to 2.
    return {p: found.get(p) for p in sorted(named & there)}


def _life(files: Sequence[RangedFile]) -> str | None:
    """Return the epoch of what has landed last."""
    newest = max(files, key=lambda file: _high(file, "landed_at") or _EPOCH)
    life: str | None = newest.ranges.get("kafka_epoch", (None, None))[1]
    return life


def _partitions(file: RangedFile) -> range:
    """Return the partitions of which a file may have rows."""
    low, high = file.ranges.get("kafka_partition", (0, 0))
    return range(low, high + 1)


def _high(file: RangedFile, column: str) -> datetime | None:
    high = file.ranges.get(column, (None, None))[1]
    return None if high is None else high.astimezone(UTC) if high.tzinfo else high.replace(tzinfo=UTC)


def _spans(file: RangedFile, column: str, value: Any) -> bool:
    low, high = file.ranges.get(column, (None, None))
    return low is None or value is None or low <= value <= high
