"""One run of a lander, the consuming half.

What belongs here: taking messages, handing them to the writer and noting what was committed, within the limits of
memory. What does not: which partitions are read, and from where (`partitions`), decoding and committing (`writer`), how
a lander is configured, started and ended (`lander`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from ml_assets.errors import InputError
from ml_assets.landing.batch import Gap
from ml_assets.landing.heartbeat import Heartbeats
from ml_assets.landing.kafka import Cluster, Complaints, KafkaUnreachableError
from ml_assets.landing.metrics import Health, LanderMetrics
from ml_assets.landing.partitions import Assignment, Partitions
from ml_assets.landing.progress import Partition
from ml_assets.landing.topic import LandedTopic
from ml_assets.landing.writer import Batch, Outcome, Writer

_T = TypeVar("_T")


_LOG = logging.getLogger(__name__)
_CONSUME = 5_000
_OVERHEAD = 400  # bytes that a message takes in memory beside its value
_LEAVE_SECONDS = 6.0
_NOTICE_SECONDS = 0.2
_REVOKE_SECONDS = 20.0
_LOOK_SECONDS = 15.0
_PAUSE_AFTER_SECONDS = 1.0
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


class Session:
    """One run of a lander: the consuming half."""

    def __init__(
        self,
        connect: Callable[[], Consumer],
        cluster: Cluster,
        writer: Writer,
        topics: dict[str, LandedTopic],
        limits: FlushLimits,
        assignment: Assignment,
        health: Health,
        metrics: LanderMetrics,
        complaints: Complaints,
        stand_seconds: float,
        heartbeats: Heartbeats,
        stop: threading.Event,
    ) -> None:
        self._writer = writer
        self._topics = topics
        self._limits = limits
        self._health = health
        self._metrics = metrics
        self.complaints = complaints
        self._heartbeats = heartbeats
        self._stop = stop
        self._leave_by: float | None = None  # set when the stop is noticed
        self._counts: dict[str, int] = {}  # by topic, how many partitions it has
        self.heard = 0  # messages and ends of partitions that the broker has sent
        self._look_seconds = min(_LOOK_SECONDS, stand_seconds / 4)
        self._in_flight_bytes = 0
        self._full_since: float | None = None  # since when too much has been in memory
        self._next_look = 0.0
        self._reports: dict[str, TopicReport] = {}
        self._started = time.perf_counter()
        self._partitions = Partitions(connect, cluster, topics, assignment, self, health, metrics, stand_seconds)

    # ---- what a run asks for

    def subscribe(self) -> None:
        """Share the partitions with the other landers of the group."""
        self._partitions.subscribe()

    def close(self) -> None:
        """Leave the group and close the connection."""
        self._partitions.close()

    def look(self) -> None:
        """Look which topics and partitions there are, take up what is new, and see whether each advances.

        Raises:
            KafkaUnreachableError: the broker does not answer.
        """
        self._next_look = time.monotonic() + self._look_seconds
        present = self._partitions.present()
        self._health.trouble("broker")
        if not self._writer.give_up.is_set():
            self._partitions.watch({(name, p) for name, found in present.items() for p in found.partitions})
        self._counts = {name: len(found.partitions) for name, found in present.items()}
        events, counts = {name: topic.event for name, topic in self._topics.items()}, self._counts
        read = self._partitions.read()
        self.ask(lambda: self._heartbeats.look(events, counts, read))
        self._partitions.take_up_new(present)

    def turn(self, progress: Callable[[int], None], *, flush_at_end: bool = False, timeout: float = 0.2) -> None:
        """Take messages, hand over what is due, and note what was committed."""
        self._health.beat()
        if not flush_at_end and time.monotonic() >= self._next_look:
            try:
                self.look()
            except KafkaUnreachableError as error:
                self._health.trouble("broker", str(error))
                self._partitions.forget_progress()
        busy, heard, complaints = self._in_flight_bytes > 0, self.heard, self.complaints.number
        if self._full_since is not None and not self._partitions.paused:
            self._settle(progress, wait=0.05)
        else:
            wait = 0.02 if busy and self._partitions.all_read() else timeout
            for message in self._partitions.consumer.consume(_CONSUME, timeout=wait):
                self._take(message)
        if self.complaints.number > complaints:
            self._health.trouble("broker", str(self.complaints))
        elif self.heard > heard:
            self._health.trouble("broker")
        self._settle(progress)
        self._partitions.reload_due()
        self._flush_due(everything=flush_at_end and self._partitions.all_read())
        self._pace()
        self._partitions.measure_lag()

    def note_all_read(self, until: datetime) -> None:
        """Note that what the broker held at a time has been committed, of the partitions that have been read."""
        read: dict[str, dict[int, datetime]] = {}
        for name, partition in self._partitions.read():
            read.setdefault(name, {})[partition] = until
        for name, partitions in read.items():
            self._heartbeats.note(self._topics[name].event, self._counts.get(name, 0), partitions)

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

    def ask(self, question: Callable[[], _T]) -> _T:
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
        return (
            self._partitions.all_read()
            and not self.is_writing
            and not self._partitions.is_reloading()
            and not self._buffered()
        )

    @property
    def is_writing(self) -> bool:
        """Whether a batch is with the writer."""
        return self._in_flight_bytes > 0

    def unread(self) -> str:
        """Return the partitions that have not been read to their end, as text."""
        return self._partitions.unread()

    @property
    def lost(self) -> Mapping[Partition, str]:
        """The partitions whose next messages the broker no longer has, with what to do."""
        return self._partitions.lost

    def reports(self) -> list[TopicReport]:
        """Return what happened, a report a topic that exists."""
        return [self._report(name) for name in self._topics if name in self._partitions.owned()]

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
        self._partitions.note_message((name, partition))

    def _note_error(self, error: KafkaError, name: str | None, partition: int | None, offset: int | None) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self.heard += 1
            if name is not None and partition is not None:
                self._partitions.note_end((name, partition), offset or 0)
        elif code in _OUT_OF_RANGE or code in _GONE:
            self._partitions.take_up_broken(name)
        elif error.fatal():
            raise KafkaException(error)
        else:
            self._health.trouble("broker", str(error.str()))

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
                self.flush(topic)
                crowded = False

    def flush(self, topic: LandedTopic) -> None:
        """Hand what was taken of a topic to the writer."""
        if not topic.messages:
            return
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

    def wait_for(self, topics: Collection[str]) -> None:
        """Wait, for a while, until what the writer has of these topics is committed."""
        # A lander that is leaving has waited already; with a store that hangs it would not be gone in time.
        deadline = time.monotonic() + (0.0 if self._writer.give_up.is_set() else _REVOKE_SECONDS)
        while (
            any(self._topics[name].in_flight for name in topics) and time.monotonic() < deadline and not self._must_go()
        ):
            self._settle(lambda _: None, wait=0.1)
            self._health.beat()

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
            self._partitions.commit(batch.topic, batch.end)
            progress(len(batch.messages))
        elif batch.generation == topic.generation:
            self._partitions.take_up(batch.topic)

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
        if (
            not self._partitions.paused
            and self._full_since is not None
            and now - self._full_since >= _PAUSE_AFTER_SECONDS
        ):
            self._partitions.pause()
        elif self._partitions.paused and held < self._limits.bytes:
            self._partitions.resume()

    def _report(self, name: str) -> TopicReport:
        return self._reports.setdefault(name, TopicReport(name))
