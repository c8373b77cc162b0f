"""The lander: Kafka to Delta, each message once, as an event or as a dead letter.

The offsets that have been landed are recorded in the same Delta commit as the rows they describe. A lander starts
from there, not from the consumer group; the group's offsets are committed afterwards and only so that lag can be
watched. Two landers on one partition cannot double or lose a row: the later commit fails, and its lander takes up
the position that the other has left.

One thread consumes and keeps at most two `FlushLimits.bytes` in memory; another one decodes and commits (`writer`).
A store that is slow or fails makes consuming pause: that is lag, and no loss.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ml_assets.lake import Appender, Lake, landing_table
from ml_assets.landing.batch import Clock, Gap
from ml_assets.landing.decode import Decoder, Records
from ml_assets.landing.kafka import TIMEOUT, Cluster, Complaints, KafkaConnection, KafkaUnreachableError, app_id
from ml_assets.landing.metrics import Health, LanderMetrics
from ml_assets.landing.schemas import PARTITIONED_BY
from ml_assets.landing.writer import OUTAGES, Batch, Outcome, Writer
from ml_assets.spec import EventSpec

Assignment = Literal["group", "all"]

GROUP = "ml-assets-lander"
_LOG = logging.getLogger(__name__)
_CONSUME = 5_000
_OVERHEAD = 400  # bytes that a message takes in memory beside its value
_LEAVE_SECONDS = 7.0
_CLOSE_SECONDS = 2.0
_PATIENCE = 60.0  # with a store that fails, of a lander that only lands what is there
_REVOKE_SECONDS = 20.0
_LOOK_SECONDS = 15.0
_PAUSE_AFTER_SECONDS = 1.0
_RELOAD_SECONDS = 2.0
_NO_MESSAGE = "no message here: compaction or a transaction's marker"
_GONE = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_ID,
)
_OUT_OF_RANGE = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)


class LostOffsetsError(RuntimeError):
    """The broker no longer has messages that were never landed."""


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
class _Topic:
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


class Lander:
    """Lands the topics of some events into the lake.

    `clock` says what `known_at` is: the broker's record time (`replay`, for history that is played again), or the
    later of that and the landing (`live`). `assignment` is `group` where replicas share the partitions through a
    consumer group, and `all` where this lander takes them all. `at_step` is called with the name of each step that
    matters to a crash; the fault campaign dies there.
    """

    def __init__(
        self,
        lake: Lake,
        events: Sequence[EventSpec],
        kafka: KafkaConnection,
        *,
        clock: Clock = "live",
        limits: FlushLimits = FlushLimits(),
        assignment: Assignment = "all",
        records: Records | None = None,
        metrics: LanderMetrics | None = None,
        health: Health | None = None,
        session_seconds: float = 45.0,
        at_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._kafka = kafka
        self._clock: Clock = clock
        self._limits = limits
        self._assignment = assignment
        self._metrics = metrics or LanderMetrics()
        self._health = health or Health()
        self._session_seconds = session_seconds
        self._at_step = at_step
        self._topics = {
            event.topic: _Topic(
                event, Decoder(event.contract, records), lake.appender(landing_table(event.topic), PARTITIONED_BY)
            )
            for event in events
        }

    def land_available(self, progress: Callable[[int], None] = lambda _: None) -> list[TopicReport]:
        """Land what the broker holds now and return what happened, a report a topic that exists.

        `progress` is told how many messages have been committed since its last call.

        Raises:
            LostOffsetsError: retention has deleted messages that were never landed; all others are landed.
            KafkaUnreachableError: the broker does not answer; what was committed by then stays.
            OSError, deltalake.exceptions.DeltaError: the store has failed for a minute; likewise.
        """
        with self._session(assignment="all", patience=_PATIENCE) as session:
            session.look()
            patience = time.monotonic() + TIMEOUT
            while not session.is_done():
                before = session.heard
                session.turn(progress, flush_at_end=True)
                if session.heard != before or session.is_writing:
                    patience = time.monotonic() + TIMEOUT
                elif time.monotonic() > patience:
                    raise KafkaUnreachableError(
                        f"Kafka at {self._kafka.bootstrap} has sent nothing for {TIMEOUT:.0f} s, although "
                        f"{session.unread() or 'partitions'} have not been read to their end: {self._health.ready()[1]}"
                    )
            if session.lost:
                raise LostOffsetsError("; ".join(session.lost.values()))
            return session.reports()

    def run(self, stop: threading.Event, progress: Callable[[int], None] = lambda _: None) -> None:
        """Land what comes until stopped; then commit what is in memory and leave within 10 s.

        Brokers and stores that fail are waited for. Messages that the broker has deleted before they were landed are
        logged as errors and make the lander not ready; the other partitions go on.
        """
        with self._session(assignment=self._assignment) as session:
            while not stop.is_set():
                session.turn(progress)
            session.leave(_LEAVE_SECONDS, progress)

    @contextmanager
    def _session(self, assignment: Assignment, patience: float = float("inf")) -> Iterator[_Session]:
        writer = Writer(self._kafka.admin(), self._metrics, self._health, self._clock, self._at_step, patience)
        complaints = Complaints()
        consumer = Consumer(
            self._kafka.config(
                group_id=GROUP,
                enable_auto_commit=False,
                auto_offset_reset="error",
                enable_partition_eof=True,
                fetch_wait_max_ms=50,
                fetch_queue_backoff_ms=20,
                queued_max_messages_kbytes=65_536,
                partition_assignment_strategy="cooperative-sticky",
                session_timeout_ms=int(self._session_seconds * 1000),
                # Several within a session: with one of librdkafka's 3 s a short session ends between two of them.
                heartbeat_interval_ms=min(3_000, int(self._session_seconds * 1000 / 4)),
                topic_metadata_refresh_interval_ms=10_000,
                reconnect_backoff_max_ms=1_000,  # of 10 s: a broker that is back is noticed at once
                error_cb=complaints,
                log_level=0,
            )
        )
        for topic in self._topics.values():
            topic.drop()
            topic.in_flight = 0
        session = _Session(
            consumer, self._kafka.admin(), writer, self._topics, self._limits, assignment, self._health, self._metrics,
            complaints,
        )  # fmt: skip
        writer.start()
        try:
            if assignment == "group":
                session.subscribe()
            yield session
        finally:
            writer.give_up.set()
            writer.end()
            _close(consumer)


def _close(consumer: Consumer) -> None:
    """Leave the group and close, for a moment at most: a broker that does not answer would keep us for much longer.

    Without a word to the group, its other members get the partitions when our session ends.
    """
    closing = threading.Thread(target=consumer.close, name="lander-close", daemon=True)
    closing.start()
    closing.join(_CLOSE_SECONDS)
    if closing.is_alive():
        _LOG.warning("left without a goodbye to the group: the broker does not answer")


class _Session:
    """One run of a lander: the consuming half."""

    def __init__(
        self,
        consumer: Consumer,
        cluster: Cluster,
        writer: Writer,
        topics: dict[str, _Topic],
        limits: FlushLimits,
        assignment: Assignment,
        health: Health,
        metrics: LanderMetrics,
        complaints: Complaints,
    ) -> None:
        self._consumer = consumer
        self._cluster = cluster
        self._writer = writer
        self._topics = topics
        self._limits = limits
        self._assignment = assignment
        self._health = health
        self._metrics = metrics
        self.complaints = complaints
        self.lost: dict[tuple[str, int], str] = {}
        self.heard = 0  # messages and ends of partitions that the broker has sent
        self._owned: dict[str, set[int]] = {}  # by topic, the partitions that are ours to read
        self._assigned: set[tuple[str, int]] = set()
        self._at_end: set[tuple[str, int]] = set()
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

    def look(self) -> None:
        """Look which topics and partitions there are, and take up what is new.

        Raises:
            KafkaUnreachableError: the broker does not answer.
        """
        self._next_look = time.monotonic() + _LOOK_SECONDS
        present = self._cluster.topics(self._topics)
        self._trouble("broker")
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

    def leave(self, seconds: float, progress: Callable[[int], None]) -> None:
        """Commit what is in memory, for so long at most; the rest is read again by whoever comes next."""
        deadline = time.monotonic() + seconds
        self._flush_due(everything=True)
        while self._in_flight_bytes and time.monotonic() < deadline:
            self._settle(progress, wait=0.1)
            self._health.beat()
        if self._in_flight_bytes:
            _LOG.warning(
                "left without committing %.1f MiB within %.0f s; nothing is lost, they are read again",
                self._in_flight_bytes / 2**20, seconds,
            )  # fmt: skip

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
            self._note_error(error, name, partition)
            return
        offset = message.offset()
        if name is None or partition is None or offset is None:
            raise ValueError(f"a message of topic {name} came without partition or offset")
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

    def _note_error(self, error: KafkaError, name: str | None, partition: int | None) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self.heard += 1
            if name is not None and partition is not None and partition in self._topics[name].expected:
                self._at_end.add((name, partition))
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

    def _flush(self, topic: _Topic) -> None:
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
        topic, found = self._topics[name], self._cluster.topics([name]).get(name)
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
        recorded = topic.appender.positions(ids.values())
        positions = {p: recorded[ids[p]] for p in partitions}
        readable = {p: position for p, position in positions.items() if not self._is_lost(name, p, position)}
        topic.expected, topic.flushed, topic.committed = dict(readable), dict(readable), dict(readable)
        self._consumer.incremental_assign([TopicPartition(name, p, position) for p, position in readable.items()])
        self._assigned |= {(name, p) for p in readable}
        if readable:  # a partition that was given up while it was paused comes back paused
            act = self._consumer.pause if self._paused else self._consumer.resume
            act([TopicPartition(name, p) for p in readable])
        self._trouble(f"topic {name}")

    def _is_lost(self, name: str, partition: int, position: int) -> bool:
        low, _ = self._low_and_high(name, partition)
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

    def _low_and_high(self, name: str, partition: int) -> tuple[int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=TIMEOUT)
        except KafkaException as error:
            raise KafkaUnreachableError(f"topic {name}, partition {partition}: no answer: {error.args[0]}") from error
        return int(low), int(high)

    # ---- sharing partitions in a group; called from within consume()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
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
        names = {partition.topic for partition in partitions}
        for name in names:
            if self._topics[name].messages:
                self._flush(self._topics[name])
        # A lander that is leaving has waited already; with a store that hangs it would not be gone in time.
        deadline = time.monotonic() + (0.0 if self._writer.give_up.is_set() else _REVOKE_SECONDS)
        while any(self._topics[name].in_flight for name in names) and time.monotonic() < deadline:
            self._settle(lambda _: None, wait=0.1)
            self._health.beat()
        self._drop_partitions(consumer, partitions)
        _LOG.info("given up: %s", _names(partitions))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drop what was taken: somebody else has the partitions already."""
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
            self.lost.pop((name, number), None)
            self._metrics.lag.labels(name, str(number))  # made, so that it can be removed
            self._metrics.lag.remove(name, str(number))

    # ---- what it says of itself

    def _measure_lag(self) -> None:
        for name, partition in self._assigned:
            topic = self._topics[name]
            if partition not in topic.committed:
                continue
            if (name, partition) in self._at_end and topic.expected[partition] == topic.committed[partition]:
                lag = 0
            else:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(name, partition), cached=True)
                lag = max(high, topic.expected[partition]) - topic.committed[partition]
            self._metrics.lag.labels(name, str(partition)).set(lag)

    def _trouble(self, what: str, why: str = "") -> None:
        self._health.trouble(what, why)

    def _report(self, name: str) -> TopicReport:
        return self._reports.setdefault(name, TopicReport(name))


def _names(partitions: Sequence[TopicPartition]) -> str:
    return ", ".join(f"{p.topic}/{p.partition}" for p in partitions)
