"""The partitions of one run of a lander: which are its own, from where each is read, and whether each advances.

What belongs here: taking topics up from the positions of their tables, sharing partitions in a group, seeing what was
lost, what stands and what lags. What does not: the messages (`session`), questions to the cluster (`kafka`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Literal, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition

from ml_assets.landing.kafka import Cluster, Topic, app_id
from ml_assets.landing.metrics import Health, LanderMetrics
from ml_assets.landing.progress import Partition, Progress
from ml_assets.landing.topic import LandedTopic
from ml_assets.landing.writer import OUTAGES

Assignment = Literal["group", "all"]
_T = TypeVar("_T")

GROUP = "ml-assets-lander"
_LOG = logging.getLogger(__name__)
_CLOSE_SECONDS = 2.0
_RELOAD_SECONDS = 2.0
_LONGEST_REBUILD_SECONDS = 1_800.0


class Consuming(Protocol):
    """What the partitions ask of the session that consumes them."""

    def ask(self, question: Callable[[], _T]) -> _T:
        """Return what a broker or a store answers, unless a stop comes first."""

    def flush(self, topic: LandedTopic) -> None:
        """Hand what was taken of a topic to the writer."""

    def wait_for(self, topics: Collection[str]) -> None:
        """Wait, for a while, until what the writer has of these topics is committed."""


class Partitions:
    """The partitions that one run of a lander reads.

    `lost` names the partitions whose next messages the broker no longer has, with what to do.
    """

    def __init__(
        self,
        connect: Callable[[], Consumer],
        cluster: Cluster,
        topics: Mapping[str, LandedTopic],
        assignment: Assignment,
        session: Consuming,
        health: Health,
        metrics: LanderMetrics,
        stand_seconds: float,
    ) -> None:
        self._connect = connect
        self._consumer = connect()
        self._cluster = cluster
        self._topics = topics
        self._assignment = assignment
        self._session = session
        self._health = health
        self._metrics = metrics
        self.lost: dict[Partition, str] = {}
        self._owned: dict[str, set[int]] = {}  # by topic, the partitions that are ours to read
        self._assigned: set[Partition] = set()
        self._at_end: set[Partition] = set()
        self._ends: dict[Partition, int] = {}  # by the broker's word, asked now and then
        self._read_to: dict[Partition, int] = {}  # the last end of a partition that was come to
        self._progress = Progress(stand_seconds)
        self._told: set[Partition] = set()  # partitions that are said to stand
        self._stand_seconds = stand_seconds
        self._rebuild_after = stand_seconds
        self._built = time.monotonic()
        self._reload: dict[str, float] = {}  # topics to be taken up from their table, and not before this time
        self._paused = False

    # ---- what the session asks for

    @property
    def consumer(self) -> Consumer:
        """The consumer of now; another one once it was made anew."""
        return self._consumer

    def subscribe(self) -> None:
        """Share the partitions with the other landers of the group."""
        self._consumer.subscribe(
            list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def close(self) -> None:
        """Leave the group and close the connection."""
        _close(self._consumer)

    def present(self) -> dict[str, Topic]:
        """Return the topics that there are.

        Raises:
            KafkaUnreachableError: the broker does not answer.
        """
        return self._session.ask(lambda: self._cluster.topics(self._topics))

    def take_up_new(self, present: Mapping[str, Topic]) -> None:
        """Take up the topics and partitions that are new, and those whose loss was accepted; leave what is no more."""
        for name in {topic for topic, _ in self.lost} & self._owned.keys():  # somebody may have accepted the loss
            if name not in self._reload:
                self.take_up(name)
        if self._assignment == "group":
            return
        self._health.started()
        for name, found in present.items():
            if self._owned.get(name) != set(found.partitions) or self._topics[name].epoch != found.epoch:
                self._owned[name] = set(found.partitions)
                self.take_up(name)
        for name in self._owned.keys() - present.keys():
            self._forget(name)
        self.reload_due()

    def take_up_broken(self, name: str | None) -> None:
        """Take a topic up in a moment whose partition is gone, or no longer has the offset that was asked for."""
        if name is not None and name in self._owned and name not in self._reload:
            self.take_up(name, after=_RELOAD_SECONDS)

    def note_message(self, part: Partition) -> None:
        """Note that a partition had more."""
        self._at_end.discard(part)

    def note_end(self, part: Partition, offset: int) -> None:
        """Note that a partition was read to its end."""
        expected = self._topics[part[0]].expected
        if part[1] in expected:
            self._at_end.add(part)
            # Behind the last message there may be markers of transactions, which are never seen.
            self._read_to[part] = max(offset, expected[part[1]])

    def read(self) -> dict[Partition, int]:
        """Return the partitions that have been read to their end and committed, with the offset of that end."""
        found = {}
        for name, partition in self._at_end:
            topic = self._topics[name]
            committed = topic.committed.get(partition)
            if committed is not None and committed == topic.expected.get(partition) and not topic.in_flight:
                found[name, partition] = self._read_to[name, partition]
        return found

    def commit(self, name: str, end: Mapping[int, int]) -> None:
        """Tell the group how far landing is. Lag is all that depends on it, so a failure is left alone."""
        try:
            self._consumer.commit(offsets=[TopicPartition(name, p, at) for p, at in end.items()], asynchronous=True)
        except KafkaException:
            return

    @property
    def paused(self) -> bool:
        """Whether the broker is asked for no more messages."""
        return self._paused

    def pause(self) -> None:
        """Ask for no more messages."""
        self._consumer.pause([TopicPartition(*part) for part in self._assigned])
        self._paused = True

    def resume(self) -> None:
        """Ask for messages again."""
        self._consumer.resume([TopicPartition(*part) for part in self._assigned])
        self._paused = False

    def owned(self) -> Collection[str]:
        """Return the topics of which partitions are ours."""
        return self._owned.keys()

    def unread(self) -> str:
        """Return the partitions that have not been read to their end, as text."""
        return _names(TopicPartition(*part) for part in sorted(self._assigned - self._at_end))

    def is_reloading(self) -> bool:
        """Return whether a topic waits to be taken up."""
        return bool(self._reload)

    def forget_progress(self) -> None:
        """Start again to see which partitions stand, after a time in which none could have advanced."""
        self._progress.forget()

    def all_read(self) -> bool:
        """Return whether all that is assigned has been read to its end."""
        return self._assigned <= self._at_end

    def take_up(self, name: str, *, after: float = 0.0) -> None:
        """Drop what was taken of a topic and read it again from where its table stands."""
        self._topics[name].drop()
        self._unassign(name)
        self._reload[name] = time.monotonic() + after

    def _forget(self, name: str) -> None:
        """Leave a topic that is no more."""
        self._topics[name].drop()
        self._unassign(name)
        self._owned.pop(name, None)
        self._reload.pop(name, None)

    def _unassign(self, name: str) -> None:
        gone = [TopicPartition(topic, p) for topic, p in self._assigned if topic == name]
        if gone:
            self._consumer.incremental_unassign(gone)
        self._assigned -= {(name, p.partition) for p in gone}
        self._at_end -= {(name, p.partition) for p in gone}
        for p in gone:
            self._read_to.pop((name, p.partition), None)

    def reload_due(self) -> None:
        """Take up the topics whose time has come.

        They are assigned at once: librdkafka is slow, by up to a second, to fetch what is added to it one by one.
        """
        now = time.monotonic()
        readable: list[TopicPartition] = []
        for name, due in list(self._reload.items()):
            if due <= now and not self._topics[name].in_flight:
                try:
                    readable += self._load(name)
                except OUTAGES as error:
                    self._health.trouble(f"topic {name}", f"its position cannot be read: {error}")
                    self._reload[name] = now + _RELOAD_SECONDS
        if readable:
            self._consumer.incremental_assign(readable)
            self._assigned |= {(one.topic, one.partition) for one in readable}
            # A partition that was given up while it was paused comes back paused.
            act = self._consumer.pause if self._paused else self._consumer.resume
            act([TopicPartition(one.topic, one.partition) for one in readable])

    def _load(self, name: str) -> list[TopicPartition]:
        """Return the partitions of a topic that are ours, each from the position that the table has."""
        topic, found = self._topics[name], self._session.ask(lambda: self._cluster.topics([name])).get(name)
        if found is None:
            if self._assignment == "group" and self._owned.get(name):
                # Ours until the group says otherwise: the topic may only be unknown for a moment.
                self._reload[name] = time.monotonic() + _RELOAD_SECONDS
            else:
                self._forget(name)
            return []
        del self._reload[name]
        self._health.started()
        topic.epoch = found.epoch
        partitions = sorted(self._owned[name] & set(found.partitions))
        ids = {p: app_id(name, found.epoch, p) for p in partitions}
        recorded = self._session.ask(lambda: topic.appender.positions(ids.values()))
        starts = self._session.ask(lambda: self._cluster.starts((name, p) for p in partitions))
        positions = {p: recorded[ids[p]] for p in partitions}
        readable = {p: at for p, at in positions.items() if not self._is_lost(name, p, at, starts[name, p])}
        topic.expected, topic.flushed, topic.committed = dict(readable), dict(readable), dict(readable)
        self._health.trouble(f"topic {name}")
        return [TopicPartition(name, p, position) for p, position in readable.items()]

    def _is_lost(self, name: str, partition: int, position: int, low: int) -> bool:
        """Return whether messages are gone that were to be landed: from a position to the broker's first offset."""
        if position >= low:
            self.lost.pop((name, partition), None)
            self._metrics.lost.labels(name, str(partition)).set(0)
            self._health.trouble(f"partition {name}/{partition}")
            return False
        why = (
            f"topic {name}, partition {partition}: offsets {position} to {low - 1} were never landed and the broker no "
            "longer has them. Restore them from the source, or accept the loss: "
            f'ml-assets accept-loss {name} {partition} --reason "..."'
        )
        _LOG.error(why)
        self.lost[name, partition] = why
        self._metrics.lost.labels(name, str(partition)).set(low - position)
        self._health.trouble(f"partition {name}/{partition}", why)
        return True

    # ---- does each partition advance?

    def watch(self, present: set[Partition]) -> None:
        """See which partitions stand although the broker has more; say so, and make the consumer anew.

        Raises:
            KafkaUnreachableError: the broker does not answer.
        """
        asked = self._assigned & present
        self._ends = self._session.ask(lambda: self._cluster.ends(asked))
        behind: dict[Partition, Hashable] = {
            part: self._topics[part[0]].committed[part[1]] for part in self._ends if self._lag(*part)
        }
        owned = {(name, p) for name, numbers in self._owned.items() for p in numbers} & present
        behind |= dict.fromkeys(owned - self._assigned - self.lost.keys(), "without a position")
        nobodys: set[Partition] = set()
        if self._assignment == "group":
            readers = self._session.ask(lambda: self._cluster.readers(GROUP))
            ours = self._consumer.memberid() or ""
            taken = {part for member, parts in readers.items() if member != ours for part in parts}
            nobodys = present - owned - taken
            behind |= dict.fromkeys(nobodys, "read by no lander")
            if readers and min(readers) != ours and ours in readers:
                nobodys = set()  # one of the landers joins the group anew, not all at once
        self._progress.look(behind)
        standing = self._progress.standing()
        self._tell(standing, behind)
        waited = time.monotonic() - self._built >= self._rebuild_after
        if waited and any(
            part in nobodys or (part in owned and not self._topics[part[0]].in_flight) for part in standing
        ):
            self._rebuild()
        elif not standing:
            self._rebuild_after = self._stand_seconds

    def _tell(self, standing: Mapping[Partition, float], behind: Mapping[Partition, Hashable]) -> None:
        for part in self._told - standing.keys():
            self._health.trouble(_standing(part))
            self._metrics.standing.remove(part[0], str(part[1]))
        for part, seconds in standing.items():
            at = behind[part]
            where = f"at offset {at} and the broker has {self._ends[part]}" if part in self._ends else f"{at}"
            self._health.trouble(_standing(part), f"has not advanced for {seconds:.0f} s: {where}")
            self._metrics.standing.labels(part[0], str(part[1])).set(seconds)
        self._told = set(standing)

    def _rebuild(self) -> None:
        """Take everything up anew with a new consumer; each time in vain, wait twice as long before the next."""
        _LOG.error(
            "%s stand although the broker has more; the consumer is made anew",
            ", ".join(f"{topic}/{partition}" for topic, partition in sorted(self._told)),
        )
        self._metrics.rebuilt.inc()
        old, self._consumer = self._consumer, self._connect()
        _close(old)
        self._built = time.monotonic()
        self._rebuild_after = min(2 * self._rebuild_after, _LONGEST_REBUILD_SECONDS)
        self._assigned, self._at_end, self._read_to, self._paused = set(), set(), {}, False
        for name in self._topics:
            self._topics[name].drop()
        if self._assignment == "group":
            for name, numbers in self._owned.items():
                for number in numbers:
                    self._forget_lag(name, number)
            self._owned, self._reload, self.lost = {}, {}, {}
            self.subscribe()
        else:
            self._reload = dict.fromkeys(self._owned, 0.0)

    # ---- sharing partitions in a group; called from within consume()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if consumer is not self._consumer:
            return
        # Assigned as they are for now: a message of a partition without a position is not taken.
        consumer.incremental_assign(partitions)
        self._health.started()
        for partition in partitions:
            self._owned.setdefault(partition.topic, set()).add(partition.partition)
            self._assigned.add((partition.topic, partition.partition))
        for name in {partition.topic for partition in partitions}:
            self._session.flush(self._topics[name])
            # Those that we have already go on with them from the table, once what is in flight is committed.
            self._unassign(name)
            self._topics[name].expected = {}
            self._reload[name] = 0.0
        _LOG.info("assigned: %s", _names(partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Commit what was taken of the partitions before another lander gets them."""
        if consumer is not self._consumer:  # one that was given up
            consumer.incremental_unassign(partitions)
            return
        names = {partition.topic for partition in partitions}
        for name in names:
            self._session.flush(self._topics[name])
        self._session.wait_for(names)
        self._drop_partitions(consumer, partitions)
        _LOG.info("given up: %s", _names(partitions))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drop what was taken: somebody else has the partitions already."""
        if consumer is not self._consumer:
            consumer.incremental_unassign(partitions)
            return
        self._drop_partitions(consumer, partitions)
        for name in {partition.topic for partition in partitions} & self._owned.keys():
            self._topics[name].drop()
            self._reload[name] = 0.0
        _LOG.warning("lost to the group: %s", _names(partitions))

    def _drop_partitions(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # By ourselves, since of a topic whose position is being taken up nothing is assigned: the client would be told
        # to give up what it does not have, refuse, and keep the whole group waiting.
        read = {(p.topic, p.partition) for p in consumer.assignment()}
        consumer.incremental_unassign([p for p in partitions if (p.topic, p.partition) in read])
        for partition in partitions:
            name, number = partition.topic, partition.partition
            topic = self._topics[name]
            if topic.in_flight or topic.messages:  # could not be committed in time: whoever has them now reads them
                topic.drop()
                self._reload[name] = 0.0
            for positions in (topic.expected, topic.flushed, topic.committed):
                positions.pop(number, None)
            self._assigned.discard((name, number))
            self._at_end.discard((name, number))
            self._owned.get(name, set()).discard(number)
            self._read_to.pop((name, number), None)
            self.lost.pop((name, number), None)
            self._forget_lag(name, number)

    def _forget_lag(self, name: str, number: int) -> None:
        self._metrics.lag.labels(name, str(number))  # made, so that it can be removed
        self._metrics.lag.remove(name, str(number))

    # ---- how far it is

    def measure_lag(self) -> None:
        """Put the lag of each partition into its metric."""
        for name, partition in self._assigned:
            if partition in self._topics[name].committed:
                self._metrics.lag.labels(name, str(partition)).set(self._lag(name, partition))

    def _lag(self, name: str, partition: int) -> int:
        """Return the offsets of a partition of ours that are yet to be landed.

        What the client has heard of the partition's end is as old as its last answer, so the broker's word counts too.
        """
        topic, end = self._topics[name], self._ends.get((name, partition), 0)
        if partition not in topic.committed:
            return 0
        if (name, partition) in self._at_end and topic.expected[partition] == topic.committed[partition]:
            return max(0, end - self._read_to.get((name, partition), 0))
        _, high = self._consumer.get_watermark_offsets(TopicPartition(name, partition), cached=True)
        return int(max(high, end, topic.expected[partition])) - topic.committed[partition]


def _standing(part: Partition) -> str:
    return f"partition {part[0]}/{part[1]} stands"


def _names(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{p.topic}/{p.partition}" for p in partitions)


def _close(consumer: Consumer) -> None:
    """Leave the group and close, for a moment at most: a broker that does not answer would keep us for much longer.

    Without a word to the group, its other members get the partitions when our session ends.
    """
    closing = threading.Thread(target=consumer.close, name="lander-close", daemon=True)
    closing.start()
    closing.join(_CLOSE_SECONDS)
    if closing.is_alive():
        _LOG.warning("left without a goodbye to the group: the broker does not answer")
