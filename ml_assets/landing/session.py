"""One run of a lander, the consuming half: which partitions are its own, from where they are read, and what is taken.

What belongs here: taking messages, handing them to the writer and noting what was committed; taking topics up from the
positions of their tables; sharing partitions in a group; seeing that each partition advances. What does not: decoding
and committing (`writer`), how a lander is configured, started and ended (`lander`), questions to the cluster (`kafka`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ml_assets.errors import InputError
from ml_assets.lake import Appender
from ml_assets.landing.batch import Gap
from ml_assets.landing.decode import Decoder
from ml_assets.landing.heartbeat import Heartbeats
from ml_assets.landing.kafka import Cluster, Complaints, KafkaUnreachableError, app_id
from ml_assets.landing.metrics import Health, LanderMetrics
from ml_assets.landing.progress import Progress
from ml_assets.landing.writer import OUTAGES, Batch, Outcome, Writer
from ml_assets.spec import EventSpec

Assignment = Literal["group", "all"]
_T = TypeVar("_T")


GROUP = "ml-assets-lander"
_LOG = logging.getLogger(__name__)
_CONSUME = 5_000
_OVERHEAD = 400  # bytes that a message takes in memory beside its value
_LEAVE_SECONDS = 6.0
_CLOSE_SECONDS = 2.0
_NOTICE_SECONDS = 0.2
_REVOKE_SECONDS = 20.0
_LOOK_SECONDS = 15.0
_PAUSE_AFTER_SECONDS = 1.0
_RELOAD_SECONDS = 2.0
_LONGEST_REBUILD_SECONDS = 1_800.0
_NO_MESSAGE = "no message here: compaction or a transaction's marker"
_GONE = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_ID,
)
_OUT_OF_RANGE = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)


class StoppedError(Exception):
    """The lander was told to stop while it waited for an answer."""


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """When messages are committed: so many of a topic, so many bytes of all in memory, or so old."""

    rows: int = 50_000
    bytes: int = 32 << 20
    seconds: float = 2.0


@dataclass(slots=True)
class TopicReport:
    """What happened to the messages of one topic: consumed = landed + dead_lettered."""

    topic: str
    consumed: int = 0
    landed: int = 0
    dead_lettered: int = 0
    gap_offsets: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Topic:
    """A topic that is being landed: what was taken from it and not yet handed to the writer."""

    event: EventSpec
    decoder: Decoder
    appender: Appender
    epoch: str = ""
    generation: int = 0
    expected: dict[int, int] = field(default_factory=dict)  # by partition, the next offset to take
    flushed: dict[int, int] = field(default_factory=dict)  # what was handed to the writer so far
    committed: dict[int, int] = field(default_factory=dict)  # what the table has
    messages: list[Message] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    bytes: int = 0
    since: float = 0.0
    in_flight: int = 0

    def drop(self) -> None:
        """Forget what was taken; it is read again."""
        self.generation += 1
        self.expected, self.flushed, self.committed = {}, {}, {}
        self.messages, self.gaps, self.bytes = [], [], 0


def _close(consumer: Consumer) -> None:
    """Leave the group and close, for a moment at most: a broker that does not answer would keep us for much longer.

    Without a word to the group, its other members get the partitions when our session ends.
    """
    closing = threading.Thread(target=consumer.close, name="lander-close", daemon=True)
    closing.start()
    closing.join(_CLOSE_SECONDS)
    if closing.is_alive():
        _LOG.warning("left without a goodbye to the group: the broker does not answer")


class Session:
    """One run of a lander: the consuming half."""

    def __init__(
        self,
        connect: Callable[[], Consumer],
        cluster: Cluster,
        writer: Writer,
        topics: dict[str, Topic],
        limits: FlushLimits,
        assignment: Assignment,
        health: Health,
        metrics: LanderMetrics,
        complaints: Complaints,
        stand_seconds: float,
        heartbeats: Heartbeats,
        stop: threading.Event,
    ) -> None:
        self._connect = connect
        self._consumer = connect()
        self._cluster = cluster
        self._writer = writer
        self._topics = topics
        self._limits = limits
        self._assignment = assignment
        self._health = health
        self._metrics = metrics
        self.complaints = complaints
        self._heartbeats = heartbeats
        self._stop = stop
        self._leave_by: float | None = None  # set when the stop is noticed
        self._counts: dict[str, int] = {}  # by topic, how many partitions it has
        self.lost: dict[tuple[str, int], str] = {}
        self.heard = 0  # messages and ends of partitions that the broker has sent
        self._owned: dict[str, set[int]] = {}  # by topic, the partitions that are ours to read
        self._assigned: set[tuple[str, int]] = set()
        self._at_end: set[tuple[str, int]] = set()
        self._ends: dict[tuple[str, int], int] = {}  # by the broker's word, asked now and then
        self._read_to: dict[tuple[str, int], int] = {}  # the last end of a partition that was come to
        self._progress = Progress(stand_seconds)
        self._look_seconds = min(_LOOK_SECONDS, stand_seconds / 4)
        self._told: set[tuple[str, int]] = set()  # partitions that are said to stand
        self._rebuild_after = stand_seconds
        self._stand_seconds = stand_seconds
        self._built = time.monotonic()
        self._reload: dict[str, float] = {}  # topics to be taken up from their table, and not before this time
        self._in_flight_bytes = 0
        self._full_since: float | None = None  # since when too much has been in memory
        self._paused = False
        self._next_look = 0.0
        self._reports: dict[str, TopicReport] = {}
        self._started = time.perf_counter()

    # ---- what a run asks for

    def subscribe(self) -> None:
        """Share the partitions with the other landers of the group."""
        self._consumer.subscribe(
            list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def close(self) -> None:
        """Leave the group and close the connection."""
        _close(self._consumer)

    def look(self) -> None:
        """Look which topics and partitions there are, take up what is new, and see whether each advances.

        Raises:
            KafkaUnreachableError: the broker does not answer.
        """
        self._next_look = time.monotonic() + self._look_seconds
        present = self._ask(lambda: self._cluster.topics(self._topics))
        self._trouble("broker")
        self._watch({(name, p) for name, found in present.items() for p in found.partitions})
        self._counts = {name: len(found.partitions) for name, found in present.items()}
        events, counts, read = {name: topic.event for name, topic in self._topics.items()}, self._counts, self._read()
        self._ask(lambda: self._heartbeats.look(events, counts, read))
        for name in {topic for topic, _ in self.lost} & self._owned.keys():  # somebody may have accepted the loss
            if name not in self._reload:
                self._take_up(name)
        if self._assignment == "group":
            return
        self._health.started()
        for name, found in present.items():
            topic = self._topics[name]
            if self._owned.get(name) != set(found.partitions) or topic.epoch != found.epoch:
                self._owned[name] = set(found.partitions)
                self._take_up(name)
        for name in self._owned.keys() - present.keys():
            self._forget(name)
        self._reload_due()

    def turn(self, progress: Callable[[int], None], *, flush_at_end: bool = False, timeout: float = 0.2) -> None:
        """Take messages, hand over what is due, and note what was committed."""
        self._health.beat()
        if not flush_at_end and time.monotonic() >= self._next_look:
            try:
                self.look()
            except KafkaUnreachableError as error:
                self._trouble("broker", str(error))
                self._progress.forget()
        busy, heard, complaints = self._in_flight_bytes > 0, self.heard, self.complaints.number
        if self._full_since is not None and not self._paused:
            self._settle(progress, wait=0.05)
        else:
            for message in self._consumer.consume(_CONSUME, timeout=0.02 if busy and self._all_read() else timeout):
                self._take(message)
        if self.complaints.number > complaints:
            self._trouble("broker", str(self.complaints))
        elif self.heard > heard:
            self._trouble("broker")
        self._settle(progress)
        self._reload_due()
        self._flush_due(everything=flush_at_end and self._all_read())
        self._pace()
        self._measure_lag()

    def note_all_read(self, until: datetime) -> None:
        """Note that what the broker held at a time has been committed, of the partitions that have been read."""
        read: dict[str, dict[int, datetime]] = {}
        for name, partition in self._read():
            read.setdefault(name, {})[partition] = until
        for name, partitions in read.items():
            self._heartbeats.note(self._topics[name].event, self._counts.get(name, 0), partitions)

    def _read(self) -> dict[tuple[str, int], int]:
        """Return the partitions that have been read to their end and committed, with the offset of that end."""
        found = {}
        for name, partition in self._at_end:
            topic = self._topics[name]
            committed = topic.committed.get(partition)
            if committed is not None and committed == topic.expected.get(partition) and not topic.in_flight:
                found[name, partition] = self._read_to[name, partition]
        return found

    def leave(self, progress: Callable[[int], None]) -> None:
        """Commit what is in memory, for a few seconds at most; the rest is read again by whoever comes next."""
        self._flush_due(everything=True)
        while self._in_flight_bytes and not self._must_go():
            self._settle(progress, wait=0.1)
            self._health.beat()
        if self._in_flight_bytes:
            _LOG.warning(
                "left without committing %.1f MiB within %.0f s; nothing is lost, they are read again",
                self._in_flight_bytes / 2**20, _LEAVE_SECONDS,
            )  # fmt: skip

    def _must_go(self) -> bool:
        """Return whether what is in memory can be waited for no longer: a stop was noticed so many seconds ago."""
        if self._leave_by is None and self._stop.is_set():
            self._leave_by = time.monotonic() + _LEAVE_SECONDS
        return self._leave_by is not None and time.monotonic() >= self._leave_by

    def _ask(self, question: Callable[[], _T]) -> _T:
        """Return what a broker or a store answers, which can take many seconds, and notice a stop meanwhile.

        Raises:
            StoppedError: a stop came first; the answer is left to itself.
            Exception: whatever the question raises.
        """
        answer: Future[_T] = Future()

        def put() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:  # handed to the thread that asks
                answer.set_exception(error)

        threading.Thread(target=put, name="lander-question", daemon=True).start()
        while not wait([answer], timeout=_NOTICE_SECONDS).done:
            if self._stop.is_set():
                raise StoppedError
        return answer.result()

    def is_done(self) -> bool:
        """Return whether everything has been read to its end and committed."""
        return self._all_read() and not self.is_writing and not self._reload and not self._buffered()

    @property
    def is_writing(self) -> bool:
        """Whether a batch is with the writer."""
        return self._in_flight_bytes > 0

    def unread(self) -> str:
        """Return the partitions that have not been read to their end, as text."""
        return ", ".join(f"{topic}/{partition}" for topic, partition in sorted(self._assigned - self._at_end))

    def reports(self) -> list[TopicReport]:
        """Return what happened, a report a topic that exists."""
        return [self._report(name) for name in self._topics if name in self._owned]

    # ---- consuming

    def _take(self, message: Message) -> None:
        error = message.error()
        name, partition = message.topic(), message.partition()
        if error is not None:
            self._note_error(error, name, partition, message.offset())
            return
        offset = message.offset()
        if name is None or partition is None or offset is None:
            raise InputError(f"a message of topic {name} came without partition or offset")
        topic = self._topics[name]
        self.heard += 1
        expected = topic.expected.get(partition)
        if expected is None or offset < expected:
            return  # of a partition that is not ours any more, or read before
        if not topic.messages and not topic.gaps:
            topic.since = time.monotonic()
        if offset > expected:
            topic.gaps.append(Gap(partition, expected, offset, _NO_MESSAGE))
        topic.messages.append(message)
        topic.bytes += _OVERHEAD + len(message.value() or b"")
        topic.expected[partition] = offset + 1
        self._at_end.discard((name, partition))

    def _note_error(self, error: KafkaError, name: str | None, partition: int | None, offset: int | None) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self.heard += 1
            if name is not None and partition is not None and partition in self._topics[name].expected:
                self._at_end.add((name, partition))
                # Behind the last message there may be markers of transactions, which are never seen.
                self._read_to[name, partition] = max(offset or 0, self._topics[name].expected[partition])
        elif code in _OUT_OF_RANGE or code in _GONE:
            if name in self._owned and name not in self._reload:
                self._take_up(name, after=_RELOAD_SECONDS)
        elif error.fatal():
            raise KafkaException(error)
        else:
            self._trouble("broker", str(error.str()))

    # ---- handing over to the writer

    def _buffered(self) -> int:
        return sum(topic.bytes for topic in self._topics.values())

    def _flush_due(self, *, everything: bool = False) -> None:
        now = time.monotonic()
        crowded = self._buffered() >= self._limits.bytes
        for topic in sorted(self._topics.values(), key=lambda t: -t.bytes):
            old = now - topic.since >= self._limits.seconds and not topic.in_flight
            full = len(topic.messages) >= self._limits.rows
            if topic.messages and (everything or full or old or crowded):
                self._flush(topic)
                crowded = False

    def _flush(self, topic: Topic) -> None:
        end = {p: offset for p, offset in topic.expected.items() if offset > topic.flushed[p]}
        batch = Batch(
            topic.event, topic.decoder, topic.appender, topic.epoch, topic.generation, topic.messages, topic.gaps,
            {p: topic.flushed[p] for p in end}, end, topic.bytes,
        )  # fmt: skip
        topic.flushed = dict(topic.expected)
        topic.messages, topic.gaps, topic.bytes = [], [], 0
        topic.in_flight += 1
        self._in_flight_bytes += batch.bytes
        self._writer.submit(batch)

    def _settle(self, progress: Callable[[int], None], *, wait: float = 0.0) -> None:
        """Note what became of the batches that the writer is done with.

        Raises:
            Exception: whatever the writer met that no waiting would mend.
        """
        while True:
            try:
                outcome = self._writer.outcomes.get(timeout=wait) if wait else self._writer.outcomes.get_nowait()
            except queue.Empty:
                return
            wait = 0.0
            self._note(outcome, progress)

    def _note(self, outcome: Outcome, progress: Callable[[int], None]) -> None:
        batch, topic = outcome.batch, self._topics[outcome.batch.topic]
        if not batch.has_more:
            topic.in_flight -= 1
        self._in_flight_bytes -= batch.bytes
        if outcome.error is not None:
            raise outcome.error
        if outcome.state == "committed" and outcome.rows is not None:
            report = self._report(batch.topic)
            report.consumed += len(batch.messages)
            report.landed += outcome.rows.events
            report.dead_lettered += outcome.rows.dead_letters
            report.gap_offsets += sum(gap.until - gap.first for gap in batch.gaps)
            report.seconds = time.perf_counter() - self._started
            if batch.generation == topic.generation:
                topic.committed.update(batch.end)
            self._commit_group(batch)
            progress(len(batch.messages))
        elif batch.generation == topic.generation:
            self._take_up(batch.topic)

    def _commit_group(self, batch: Batch) -> None:
        """Tell the group how far landing is. Lag is all that depends on it, so a failure is left alone."""
        try:
            self._consumer.commit(
                offsets=[TopicPartition(batch.topic, p, end) for p, end in batch.end.items()], asynchronous=True
            )
        except KafkaException:
            return

    def _pace(self) -> None:
        """Take no more while too much is in memory.

        For a commit's length that is waiting. Pausing comes later, when the group must be answered meanwhile: the
        client throws away what it has fetched of a paused partition, and fetches it again.
        """
        held, now = self._in_flight_bytes + self._buffered(), time.monotonic()
        self._metrics.buffered.set(held)
        if held < 2 * self._limits.bytes:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        if not self._paused and self._full_since is not None and now - self._full_since >= _PAUSE_AFTER_SECONDS:
            self._consumer.pause([TopicPartition(*owned) for owned in self._assigned])
            self._paused = True
        elif self._paused and held < self._limits.bytes:
            self._consumer.resume([TopicPartition(*owned) for owned in self._assigned])
            self._paused = False

    # ---- which partitions, from where

    def _all_read(self) -> bool:
        return self._assigned <= self._at_end

    def _take_up(self, name: str, *, after: float = 0.0) -> None:
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

    def _reload_due(self) -> None:
        now = time.monotonic()
        for name, due in list(self._reload.items()):
            if due <= now and not self._topics[name].in_flight:
                try:
                    self._load(name)
                except OUTAGES as error:
                    self._trouble(f"topic {name}", f"its position cannot be read: {error}")
                    self._reload[name] = now + _RELOAD_SECONDS

    def _load(self, name: str) -> None:
        """Assign the partitions of a topic that are ours, each from the position that the table has."""
        topic, found = self._topics[name], self._ask(lambda: self._cluster.topics([name])).get(name)
        if found is None:
            if self._assignment == "group" and self._owned.get(name):
                # Ours until the group says otherwise: the topic may only be unknown for a moment.
                self._reload[name] = time.monotonic() + _RELOAD_SECONDS
            else:
                self._forget(name)
            return
        del self._reload[name]
        self._health.started()
        topic.epoch = found.epoch
        partitions = sorted(self._owned[name] & set(found.partitions))
        ids = {p: app_id(name, found.epoch, p) for p in partitions}
        recorded = self._ask(lambda: topic.appender.positions(ids.values()))
        starts = self._ask(lambda: self._cluster.starts((name, p) for p in partitions))
        positions = {p: recorded[ids[p]] for p in partitions}
        readable = {p: at for p, at in positions.items() if not self._is_lost(name, p, at, starts[name, p])}
        topic.expected, topic.flushed, topic.committed = dict(readable), dict(readable), dict(readable)
        self._consumer.incremental_assign([TopicPartition(name, p, position) for p, position in readable.items()])
        self._assigned |= {(name, p) for p in readable}
        if readable:  # a partition that was given up while it was paused comes back paused
            act = self._consumer.pause if self._paused else self._consumer.resume
            act([TopicPartition(name, p) for p in readable])
        self._trouble(f"topic {name}")

    def _is_lost(self, name: str, partition: int, position: int, low: int) -> bool:
        """Return whether messages are gone that were to be landed: from a position to the broker's first offset."""
        if position >= low:
            self.lost.pop((name, partition), None)
            self._metrics.lost.labels(name, str(partition)).set(0)
            self._trouble(f"partition {name}/{partition}")
            return False
        why = (
            f"topic {name}, partition {partition}: offsets {position} to {low - 1} were never landed and the broker no "
            "longer has them. Restore them from the source, or accept the loss: "
            f'ml-assets accept-loss {name} {partition} --reason "..."'
        )
        _LOG.error(why)
        self.lost[name, partition] = why
        self._metrics.lost.labels(name, str(partition)).set(low - position)
        self._trouble(f"partition {name}/{partition}", why)
        return True

    # ---- does each partition advance?

    def _watch(self, present: set[tuple[str, int]]) -> None:
        """See which partitions stand although the broker has more; say so, and make the consumer anew.

        Raises:
            KafkaUnreachableError: the broker does not answer.
        """
        if self._writer.give_up.is_set():
            return
        asked = self._assigned & present
        self._ends = self._ask(lambda: self._cluster.ends(asked))
        behind: dict[tuple[str, int], Hashable] = {
            part: self._topics[part[0]].committed[part[1]] for part in self._ends if self._lag(*part)
        }
        owned = {(name, p) for name, numbers in self._owned.items() for p in numbers} & present
        behind |= dict.fromkeys(owned - self._assigned - self.lost.keys(), "without a position")
        nobodys: set[tuple[str, int]] = set()
        if self._assignment == "group":
            readers = self._ask(lambda: self._cluster.readers(GROUP))
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

    def _tell(self, standing: Mapping[tuple[str, int], float], behind: Mapping[tuple[str, int], Hashable]) -> None:
        for part in self._told - standing.keys():
            self._trouble(_standing(part))
            self._metrics.standing.remove(part[0], str(part[1]))
        for part, seconds in standing.items():
            at = behind[part]
            where = f"at offset {at} and the broker has {self._ends[part]}" if part in self._ends else f"{at}"
            self._trouble(_standing(part), f"has not advanced for {seconds:.0f} s: {where}")
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
            if self._topics[name].messages:
                self._flush(self._topics[name])
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
            if self._topics[name].messages:
                self._flush(self._topics[name])
        # A lander that is leaving has waited already; with a store that hangs it would not be gone in time.
        deadline = time.monotonic() + (0.0 if self._writer.give_up.is_set() else _REVOKE_SECONDS)
        while (
            any(self._topics[name].in_flight for name in names) and time.monotonic() < deadline and not self._must_go()
        ):
            self._settle(lambda _: None, wait=0.1)
            self._health.beat()
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

    # ---- what it says of itself

    def _measure_lag(self) -> None:
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

    def _trouble(self, what: str, why: str = "") -> None:
        self._health.trouble(what, why)

    def _report(self, name: str) -> TopicReport:
        return self._reports.setdefault(name, TopicReport(name))


def _standing(part: tuple[str, int]) -> str:
    return f"partition {part[0]}/{part[1]} stands"


def _names(partitions: Sequence[TopicPartition]) -> str:
    return ", ".join(f"{p.topic}/{p.partition}" for p in partitions)
