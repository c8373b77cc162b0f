"""Until when a lander has read each partition to its end: this distinguishes a quiet topic from one that is behind.

On the `live` clock a message that lands later is known later, so a partition that was read to its end at some time has
landed up to that time. The lander records it in the Delta log of the landing table, as a number of an application
beside those of the offsets: without rows, one entry per partition, replaced each time, with a commit every few minutes
at most and only while a partition is quiet. On the `replay` clock time is that of the records; nothing is recorded.

What is noted was true when it was seen, whoever has the partition since, so it needs no fence; it never goes back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from deltalake.exceptions import DeltaError

from ml_assets.lake import Lake, PositionMovedError, landing_table
from ml_assets.landing.batch import Clock
from ml_assets.landing.extent import micros, partitions_id, read_id
from ml_assets.landing.kafka import Cluster, KafkaUnreachableError
from ml_assets.landing.schemas import PARTITIONED_BY, landing_schema
from ml_assets.spec import EventSpec

HEARTBEAT = timedelta(minutes=5)
_LOG = logging.getLogger(__name__)


class Heartbeats:
    """Notes until when partitions were read to their end. A note that fails is left to the next one."""

    def __init__(self, lake: Lake, cluster: Cluster, clock: Clock, every: timedelta = HEARTBEAT) -> None:
        self._lake = lake
        self._cluster = cluster
        self._clock = clock
        self._every = every
        # By topic and partition: where its end was, and when that was seen first and last.
        self._seen: dict[tuple[str, int], tuple[int, datetime]] = {}
        self._noted: dict[str, datetime] = {}

    def look(
        self,
        events: Mapping[str, EventSpec],
        counts: Mapping[str, int],
        ends: Mapping[tuple[str, int], int],
        now: datetime | None = None,
    ) -> None:
        """Note, where it is due, the partitions that are at the same end as at the last look.

        `ends` are the partitions of which everything is committed up to their end, with the offset of that end;
        `counts` how many partitions each topic has. Between the two looks nothing has come: so each of them has landed
        up to the first, if the broker says that the end is still there.
        """
        now = now or datetime.now(UTC)
        if self._clock != "live":
            return
        quiet: dict[str, dict[int, datetime]] = {}
        for (topic, partition), end in ends.items():
            before = self._seen.get((topic, partition))
            if before is not None and before[0] == end:
                quiet.setdefault(topic, {})[partition] = before[1]
        self._seen = {at: (end, now) for at, end in ends.items()}
        for topic, read in quiet.items():
            if now - self._noted.get(topic, now - self._every) >= self._every:
                try:
                    there = {p: at for p, at in read.items() if self._cluster.high(topic, p) <= ends[topic, p]}
                except KafkaUnreachableError as error:
                    _LOG.info("topic %s: no heartbeat: %s", topic, error)
                    return
                if there and self.note(events[topic], counts.get(topic, 0), there):
                    self._noted[topic] = now

    def note(self, event: EventSpec, count: int, read: Mapping[int, datetime]) -> bool:
        """Note until when partitions of a topic were read to their end; return whether that has been written."""
        if self._clock != "live" or not read:
            return False
        appender = self._lake.appender(landing_table(event.topic), PARTITIONED_BY)
        try:
            start = appender.positions([*(read_id(event.topic, p) for p in read), partitions_id(event.topic)])
            end = {read_id(event.topic, p): micros(at) for p, at in read.items()}
            end = {name: number for name, number in end.items() if number > start[name]}
            if count and count != start[partitions_id(event.topic)]:
                end[partitions_id(event.topic)] = count
            if end:
                appender.append(landing_schema(event).empty_table(), start, end)
        except (PositionMovedError, DeltaError, OSError) as error:
            _LOG.info("topic %s: no heartbeat: %s", event.topic, error)
            return False
        return True
