"""How far landing is behind the topics: what the broker has against what the landing tables have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml_assets.lake import Lake, landing_table
from ml_assets.landing.kafka import Cluster, app_id
from ml_assets.landing.schemas import PARTITIONED_BY
from ml_assets.spec import EventSpec


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """Offsets of a partition: the first that the broker still has, the one behind its last, the next to be landed."""

    partition: int
    low: int
    high: int
    position: int

    @property
    def lag(self) -> int:
        """Offsets that are yet to be landed. Markers of transactions count, so it may stay a little above 0."""
        return max(0, self.high - max(self.position, self.low))

    @property
    def lost(self) -> int:
        """Offsets that the broker has deleted before they were landed."""
        return max(0, self.low - self.position)


@dataclass(frozen=True, slots=True)
class TopicLag:
    """A topic in its present life."""

    topic: str
    epoch: str
    partitions: tuple[PartitionLag, ...]

    @property
    def high(self) -> int:
        """Offsets ever given out."""
        return sum(partition.high for partition in self.partitions)

    @property
    def lag(self) -> int:
        """Offsets that are yet to be landed."""
        return sum(partition.lag for partition in self.partitions)

    @property
    def lost(self) -> int:
        """Offsets that were deleted before they were landed."""
        return sum(partition.lost for partition in self.partitions)


def measure_lag(lake: Lake, cluster: Cluster, events: Sequence[EventSpec]) -> list[TopicLag]:
    """Return the lag of those of the events' topics that exist, each topic once.

    Raises:
        ml_assets.landing.kafka.KafkaUnreachableError: the broker does not answer, or does not let us in.
    """
    found = []
    for name, topic in cluster.topics(dict.fromkeys(event.topic for event in events)).items():
        ids = {partition: app_id(name, topic.epoch, partition) for partition in topic.partitions}
        positions = lake.appender(landing_table(name), PARTITIONED_BY).positions(ids.values())
        partitions = tuple(
            PartitionLag(p, cluster.low(name, p), cluster.high(name, p), positions[ids[p]]) for p in topic.partitions
        )
        found.append(TopicLag(name, topic.epoch, partitions))
    return found
