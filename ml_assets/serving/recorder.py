"""Produces the service's events to Kafka: each answer, and the stream of changed scores. It never delays an answer.

`Recorder.record` puts an event into a bounded queue and returns. A separate thread encodes and produces; at most
`capacity` events are between `record` and the broker's confirmation. An event that finds no room, or that the broker
refuses, is dropped, counted and logged.

If a producer makes no progress although the cluster answers, it is replaced, and the new one gets all waiting events: a
client that was told of no brokers forgets every address (see `landing.kafka.Cluster`). An event that had been sent
without a confirmation may then arrive twice, with the same event id.

A process that is killed loses at most the waiting events. Two counters in a small mapped file outlive it: the next
recorder on the same file reports how many events were lost.
"""

from __future__ import annotations

import collections
import logging
import mmap
import queue
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from prometheus_client import CollectorRegistry, Counter, Gauge

from ml_assets.answers import CHANGED_SCORES, SERVED_SCORES
from ml_assets.contracts import Event
from ml_assets.landing.kafka import Cluster, Complaints, KafkaConnection, KafkaUnreachableError
from ml_assets.landing.produce import ensure_topics
from ml_assets.landing.progress import Progress

Lost = Literal["queue full", "broker", "shutdown", "killed"]
# Called with True when the broker has an event, or with False when it was dropped.
Settled = Callable[[bool], None]

_LOG = logging.getLogger(__name__)
_TURN_SECONDS = 0.05
_SAY_EVERY_SECONDS = 10.0
_STAND_SECONDS = 10.0
_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
_AT = ("answers", 0)
_LOOK_SECONDS, _PURGE_SECONDS = 1.0, 5.0
_encode = msgspec.json.Encoder().encode
_COUNTS = struct.Struct("<QQ")


class RecorderMetrics:
    """Counters by topic; `serving_record_dropped_total` above 0 should raise an alert."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        of = registry if registry is not None else CollectorRegistry()
        self.registry = of
        self.recorded = Counter("serving_recorded", "Events that the broker has", ["topic"], registry=of)
        self.dropped = Counter("serving_record_dropped", "Events that were lost", ["topic", "why"], registry=of)
        self.renewed = Counter("serving_record_renewed", "Producers that were stuck and were replaced", registry=of)
        self.waiting = Gauge("serving_record_waiting", "Events that the broker has not confirmed yet", registry=of)
        for topic in (SERVED_SCORES.topic, CHANGED_SCORES.topic):
            self.recorded.labels(topic)
            for why in ("queue full", "broker", "shutdown"):
                self.dropped.labels(topic, why)
        self.dropped.labels("any", "killed")


class _Item(msgspec.Struct):
    topic: str
    key: str
    event: Event
    settled: Settled | None


class Recorder:
    """Produces events from a separate thread. Call `start` first and `close` last.

    `counts` is a file on a disk that outlives the process; in a pod, an emptyDir does as long as the pod lives. With
    `make_topics`, missing topics are created, which is for the embedded broker: a bank's Kafka team creates its topics.
    With `idempotent`, the broker drops messages that the client sends again; the embedded broker cannot. A producer is
    checked if nothing has been confirmed for `stand_seconds` while events wait.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        capacity: int = 20_000,
        timeout_seconds: float = 30.0,
        counts: Path | None = None,
        make_topics: bool = False,
        idempotent: bool = True,
        stand_seconds: float = _STAND_SECONDS,
        metrics: RecorderMetrics | None = None,
    ) -> None:
        self.metrics = metrics or RecorderMetrics()
        self._kafka = kafka
        self._capacity = capacity
        self._timeout = timeout_seconds
        self._make_topics = make_topics
        self._idempotent = idempotent
        self._complaints = Complaints()
        self._stand_seconds = stand_seconds
        self._progress = Progress(stand_seconds)
        self._confirmed, self._broken, self._again = 0, False, list[_Item]()
        self._confirmed_before, self._in_vain, self._next_look = 0, 0, 0.0
        self._counts = _Counts(counts)
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._accepted, self._settled = 0, 0
        self._dropped_since, self._said = 0, float("-inf")
        self._losses: collections.Counter[tuple[str, Lost]] = collections.Counter()
        self._closing = threading.Event()
        self._open = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    @property
    def waiting(self) -> int:
        """The number of events that the broker has not confirmed yet."""
        return self._accepted - self._settled

    @property
    def room(self) -> int:
        """The number of further events that would be accepted now."""
        return max(0, self._capacity - self.waiting)

    def start(self) -> int:
        """Begin to produce; return how many events the previous process on this file lost, as far as that is known."""
        lost = self._counts.lost()
        if lost:
            self._count("any", "killed", lost)
            _LOG.error("the previous process was killed: up to %d answers that it gave were not recorded", lost)
        self._counts.write(0, 0)
        self._open = True
        self._thread.start()
        return lost

    def record(self, topic: str, key: str, event: Event, settled: Settled | None = None) -> bool:
        """Accept an event if there is room, and return whether there was. `settled` is called once, in any thread."""
        with self._lock:
            if room := self._open and self.waiting < self._capacity:
                self._accepted += 1
                self._counts.write(self._accepted, self._settled)
        if room:
            self._queue.put(_Item(topic, key, event, settled))
        else:
            self._drop(topic, "queue full" if self._open else "shutdown", settled)
        return room

    def close(self, seconds: float = 5.0) -> int:
        """Accept no more events, wait up to `seconds` for the waiting ones, and return how many were lost."""
        with self._lock:
            self._open = False
        self._closing.set()
        self._thread.join(seconds)
        left = self.waiting
        if left:
            self._count("any", "shutdown", left)
            _LOG.error("%d answers were not recorded: the broker did not take them in %.0f s", left, seconds)
        self._counts.close()
        return left

    def take_losses(self) -> Mapping[tuple[str, Lost], int]:
        """Return how many events were lost since the last call, by topic and reason."""
        with self._lock:
            taken, self._losses = self._losses, collections.Counter()
        return taken

    def give_back(self, losses: Mapping[tuple[str, Lost], int]) -> None:
        """Add losses again that were taken and could not be written."""
        with self._lock:
            self._losses.update(losses)

    def _count(self, topic: str, why: Lost, number: int) -> None:
        self.metrics.dropped.labels(topic, why).inc(number)
        with self._lock:
            self._losses[topic, why] += number

    def _connect(self) -> Producer:
        return Producer(
            self._kafka.config(
                enable_idempotence=self._idempotent,
                acks="all",
                linger_ms=20,
                queue_buffering_max_messages=max(self._capacity, 1),
                message_timeout_ms=int(self._timeout * 1000),
                reconnect_backoff_max_ms=1_000,
                compression_type="lz4",
                error_cb=self._complaints,
                log_level=0,
            )
        )

    def _run(self) -> None:
        producer, cluster = self._connect(), self._kafka.admin()
        ready = not self._make_topics
        while True:
            if not ready:
                ready = self._topics_are_there()
            try:
                item = self._queue.get(timeout=_TURN_SECONDS) if ready else None
            except queue.Empty:
                item = None
            if item is not None:
                self._produce(producer, item)
            producer.poll(0)
            if ready and self._stands(cluster):
                producer = self._renewed(producer)
            self.metrics.waiting.set(self.waiting)
            self._say()
            if self._closing.is_set() and self.waiting == 0:
                return
            if not ready:
                time.sleep(_TURN_SECONDS)

    def _stands(self, cluster: Cluster) -> bool:
        """Return whether the producer makes no progress although the cluster answers and has the topic.

        It is checked once a second. After each replacement that did not help, the pause before the next check doubles.
        """
        if (now := time.monotonic()) < self._next_look or self._closing.is_set():
            return False
        self._next_look = now + _LOOK_SECONDS
        if self._confirmed > self._confirmed_before:
            self._confirmed_before, self._in_vain = self._confirmed, 0
        self._progress.look({_AT: self._confirmed} if self.waiting or self._broken else {})
        if not self._progress.standing():
            return False
        self._progress.forget()
        try:
            return SERVED_SCORES.topic in cluster.topics([SERVED_SCORES.topic])
        except KafkaUnreachableError:
            return False

    def _renewed(self, old: Producer) -> Producer:
        """Return a new producer, with all events that wait in the old one."""
        _LOG.error(
            "no event reaches Kafka although it answers; the producer is replaced. It says: %s", self._complaints
        )
        self.metrics.renewed.inc()
        old.purge()
        old.flush(_PURGE_SECONDS)
        self._complaints, self._broken = Complaints(), False
        self._next_look = time.monotonic() + self._stand_seconds * (2 ** min(self._in_vain, 5) - 1)
        self._in_vain += 1
        again, self._again = self._again, []
        producer = self._connect()
        for item in again:
            self._produce(producer, item)
        return producer

    def _produce(self, producer: Producer, item: _Item) -> None:
        value = _encode(item.event)

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None and error.code() in _PURGED:
                self._again.append(item)
            else:
                self._settle(item, error)

        while True:
            try:
                producer.produce(item.topic, value, item.key, on_delivery=delivered)
                return
            except BufferError:
                producer.poll(_TURN_SECONDS)
            except KafkaException as error:
                self._broken = self._broken or error.args[0].code() == KafkaError._FATAL
                self._settle(item, error.args[0])
                return

    def _settle(self, item: _Item, error: KafkaError | None) -> None:
        with self._lock:
            self._settled += 1
            if self._counts.is_open:
                self._counts.write(self._accepted, self._settled)
        if error is not None:
            self._drop(item.topic, "broker", item.settled)
            return
        self._confirmed += 1
        self.metrics.recorded.labels(item.topic).inc()
        if item.settled is not None:
            item.settled(True)

    def _drop(self, topic: str, why: Lost, settled: Settled | None) -> None:
        self._count(topic, why, 1)
        self._dropped_since += 1
        if settled is not None:
            settled(False)

    def _say(self) -> None:
        """Log how many events were dropped, at intervals, so that an outage does not fill the log."""
        if self._dropped_since and time.monotonic() - self._said > _SAY_EVERY_SECONDS:
            dropped, self._dropped_since, self._said = self._dropped_since, 0, time.monotonic()
            _LOG.error("%d events were dropped and not recorded; Kafka: %s", dropped, self._complaints or "queue full")

    def _topics_are_there(self) -> bool:
        try:
            ensure_topics(self._kafka, [SERVED_SCORES.topic, CHANGED_SCORES.topic])
        except KafkaException as error:
            _LOG.warning("the topics of the answers cannot be created yet: %s", error)
            return False
        return True


class _Counts:
    """The numbers of accepted and settled events, in a mapped file that survives when the process is killed."""

    def __init__(self, path: Path | None) -> None:
        self.is_open = False
        self._path = path
        self._map: mmap.mmap | None = None

    def lost(self) -> int:
        """Open the file and return how many more events were accepted than settled."""
        self.is_open = True
        if self._path is None:
            return 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            file.truncate(_COUNTS.size)
            self._map = mmap.mmap(file.fileno(), _COUNTS.size)
        accepted, settled = _COUNTS.unpack_from(self._map)
        return max(0, int(accepted) - int(settled))

    def write(self, accepted: int, settled: int) -> None:
        """Write the numbers."""
        if self._map is not None:
            _COUNTS.pack_into(self._map, 0, accepted, settled)

    def close(self) -> None:
        """Reset the numbers, because losses have been reported, and close the file."""
        self.is_open = False
        if self._map is not None:
            self.write(0, 0)
            self._map.close()
            self._map = None
