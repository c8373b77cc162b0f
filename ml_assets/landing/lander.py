"""The lander: Kafka to Delta, each message once, as an event or as a dead letter.

The offsets that have been landed are recorded in the same Delta commit as the rows they describe. A lander starts
from there, not from the consumer group; the group's offsets are committed afterwards and only so that lag can be
watched. Two landers on one partition cannot double or lose a row: the later commit fails, and its lander takes up
the position that the other has left.

One thread consumes and keeps at most two `FlushLimits.bytes` in memory; another one decodes and commits (`writer`).
A store that is slow or fails makes consuming pause: that is lag, and no loss.

What belongs here: how a lander is configured, started and ended. What it does meanwhile is in `session`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from confluent_kafka import Consumer

from ml_assets.errors import StateError
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.batch import Clock
from ml_assets.landing.decode import Decoder, Records
from ml_assets.landing.heartbeat import HEARTBEAT, Heartbeats
from ml_assets.landing.kafka import TIMEOUT, Complaints, KafkaConnection, KafkaUnreachableError
from ml_assets.landing.metrics import Health, LanderMetrics
from ml_assets.landing.partitions import GROUP, Assignment
from ml_assets.landing.schemas import PARTITIONED_BY
from ml_assets.landing.session import FlushLimits, Session, StoppedError, TopicReport
from ml_assets.landing.topic import LandedTopic
from ml_assets.landing.writer import Writer
from ml_assets.spec import EventSpec

_PATIENCE = 60.0  # with a store that fails, of a lander that only lands what is there
_LIMITS = FlushLimits()


class LostOffsetsError(StateError):
    """The broker no longer has messages that were never landed."""


class Lander:
    """Lands the topics of some events into the lake.

    `clock` says what `known_at` is: the broker's record time (`replay`, for history that is played again), or the
    later of that and the landing (`live`). `assignment` is `group` where replicas share the partitions through a
    consumer group, and `all` where this lander takes them all. A partition that has not advanced for `stand_seconds`,
    although the broker has more, makes the lander not ready, and its consumer is made anew. `at_step` is called with
    the name of each step that matters to a crash; the fault campaign dies there.
    """

    def __init__(
        self,
        lake: Lake,
        events: Sequence[EventSpec],
        kafka: KafkaConnection,
        *,
        clock: Clock = "live",
        limits: FlushLimits = _LIMITS,
        assignment: Assignment = "all",
        records: Records | None = None,
        metrics: LanderMetrics | None = None,
        health: Health | None = None,
        session_seconds: float = 45.0,
        stand_seconds: float = 60.0,
        heartbeat: timedelta = HEARTBEAT,
        at_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._lake = lake
        self._kafka = kafka
        self._clock: Clock = clock
        self._limits = limits
        self._assignment = assignment
        self._metrics = metrics or LanderMetrics()
        self._health = health or Health()
        self._session_seconds = session_seconds
        self._stand_seconds = stand_seconds
        self._heartbeat = heartbeat
        self._at_step = at_step
        self._topics = {
            event.topic: LandedTopic(
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
            started = datetime.now(UTC)
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
            session.note_all_read(started)
            if session.lost:
                raise LostOffsetsError("; ".join(session.lost.values()))
            return session.reports()

    def run(self, stop: threading.Event, progress: Callable[[int], None] = lambda _: None) -> None:
        """Land what comes until stopped; then commit what is in memory and leave within 10 s, whoever does not answer.

        Brokers and stores that fail are waited for. Messages that the broker has deleted before they were landed are
        logged as errors and make the lander not ready; the other partitions go on.
        """
        with self._session(assignment=self._assignment, stop=stop) as session:
            with suppress(StoppedError):
                while not stop.is_set():
                    session.turn(progress)
            session.leave(progress)

    @contextmanager
    def _session(
        self, assignment: Assignment, *, patience: float = float("inf"), stop: threading.Event | None = None
    ) -> Iterator[Session]:
        writer = Writer(self._kafka.admin(), self._metrics, self._health, self._clock, self._at_step, patience)
        complaints = Complaints()
        config = self._kafka.config(
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
            error_cb=complaints,
            log_level=0,
        )
        for topic in self._topics.values():
            topic.drop()
            topic.in_flight = 0
        session = Session(
            lambda: Consumer(config), self._kafka.admin(), writer, self._topics, self._limits, assignment, self._health,
            self._metrics, complaints, self._stand_seconds,
            Heartbeats(self._lake, self._kafka.admin(), self._clock, self._heartbeat), stop or threading.Event(),
        )  # fmt: skip
        writer.start()
        try:
            if assignment == "group":
                session.subscribe()
            yield session
        finally:
            writer.give_up.set()
            writer.end()
            session.close()
