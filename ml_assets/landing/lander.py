"""The lander: Kafka to Delta, each message once.

The offsets that have been landed are recorded in the same Delta commit as the rows. A lander starts from there, not
from the consumer group; the group's offsets are committed afterwards and only so that lag can be watched.

Messages that cannot be decoded go to a table of dead letters, which is written first and records its own position.
After a crash between the two commits the dead letters of that batch are already there and are skipped.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake.exceptions import CommitFailedError

from ml_assets.contracts import Event, roll_to_weekday, to_columns
from ml_assets.lake import Lake, dead_letters_table, landing_table
from ml_assets.landing.schemas import DEAD_LETTERS, landing_schema
from ml_assets.spec import EventSpec

_TIMEOUT = 10.0
_CONSUME = 5_000
_GROUP = "ml-assets-lander"


class LostOffsetsError(RuntimeError):
    """The broker no longer has messages that were never landed."""


@dataclass(slots=True)
class TopicReport:
    """What happened to the messages of one topic: consumed = landed + dead_lettered."""

    topic: str
    consumed: int = 0
    landed: int = 0
    dead_lettered: int = 0
    seconds: float = 0.0


class Lander:
    """Lands the topics of some events into the lake, from one broker.

    `clock` says what `known_at` is: the broker's record time (`replay`, for history that is played again), or the
    later of that and now (`live`). A batch of at most `batch_rows` messages is held in memory.
    """

    def __init__(
        self,
        lake: Lake,
        events: Sequence[EventSpec],
        bootstrap: str,
        *,
        clock: Literal["live", "replay"] = "live",
        batch_rows: int = 50_000,
    ) -> None:
        self._lake = lake
        self._events = {event.topic: event for event in events}
        self._bootstrap = bootstrap
        self._clock = clock
        self._batch_rows = batch_rows

    def land_available(self, progress: Callable[[int], None] = lambda _: None) -> list[TopicReport]:
        """Land what the broker holds now and return what happened, a report a topic that exists.

        Raises:
            LostOffsetsError: retention has deleted messages that were never landed.
            confluent_kafka.KafkaException: the broker does not answer.
        """
        reports = []
        with self._consumer() as consumer:
            for topic, epoch in self._epochs().items():
                report = TopicReport(topic)
                started = time.perf_counter()
                self._land_topic(consumer, topic, epoch, report, progress)
                report.seconds = time.perf_counter() - started
                reports.append(report)
        return reports

    def run(self, stop: threading.Event, *, every: float = 2.0) -> None:
        """Land what comes, every so many seconds, until stopped."""
        while not stop.is_set():
            self.land_available()
            stop.wait(every)

    def _epochs(self) -> dict[str, str]:
        """Return the topics that exist with the broker's id of each: a recreated topic has another one."""
        admin = AdminClient({"bootstrap.servers": self._bootstrap})
        known = admin.list_topics(timeout=_TIMEOUT).topics
        present = [topic for topic in self._events if topic in known]
        if not present:
            return {}
        described = admin.describe_topics(TopicCollection(present))
        return {topic: str(described[topic].result().topic_id) for topic in present}

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": _GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 65_536,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def _land_topic(
        self, consumer: Consumer, topic: str, epoch: str, report: TopicReport, progress: Callable[[int], None]
    ) -> None:
        """Land a topic until every partition has been read to its end."""
        partitions = sorted(consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions)
        unread = set(partitions)
        while unread:
            positions = self._positions(landing_table(topic), topic, epoch, partitions)
            self._refuse_lost(consumer, topic, positions)
            consumer.assign([TopicPartition(topic, p, position) for p, position in positions.items()])
            unread = set(partitions)
            try:
                while unread:
                    batch = self._consume(consumer, unread)
                    if batch:
                        self._land_batch(consumer, topic, epoch, batch, positions, report)
                        progress(len(batch))
            except CommitFailedError:
                unread = set(partitions)  # another lander was faster: take up its positions
        consumer.unassign()

    def _consume(self, consumer: Consumer, unread: set[int]) -> list[Message]:
        """Return the next messages, at most a batch; partitions read to their end leave `unread`.

        The end is the consumer's own end-of-partition event. The high watermark that a client can ask for is not
        used: the embedded broker's is too low.

        Raises:
            KafkaException: the broker reports an error.
            TimeoutError: the broker sends nothing, not even the end of a partition.
        """
        batch: list[Message] = []
        patience = time.monotonic() + _TIMEOUT
        while unread and len(batch) < self._batch_rows:
            messages = consumer.consume(min(_CONSUME, self._batch_rows - len(batch)), timeout=0.2)
            for message in messages:
                error = message.error()
                if error is None:
                    batch.append(message)
                    unread.add(_coordinates(message)[0])
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(_coordinates(message)[0])
                else:
                    raise KafkaException(error)
            if messages:
                patience = time.monotonic() + _TIMEOUT
            elif time.monotonic() > patience:
                raise TimeoutError(
                    f"the broker {self._bootstrap} has sent nothing for {_TIMEOUT:.0f} s, although partitions "
                    f"{sorted(unread)} are not read to their end; nothing of this batch was landed"
                )
        return batch

    def _land_batch(
        self,
        consumer: Consumer,
        topic: str,
        epoch: str,
        batch: Sequence[Message],
        positions: dict[int, int],
        report: TopicReport,
    ) -> None:
        """Commit a batch; `positions` moves with it."""
        reached = dict(positions)
        for message in batch:
            partition, offset = _coordinates(message)
            reached[partition] = offset + 1
        landed, dead = self._decode(self._events[topic], epoch, batch)
        self._commit_dead_letters(topic, epoch, dead, reached)
        self._lake.append_once(
            landing_table(topic),
            landed,
            "business_date",
            {_app_id(topic, epoch, p): end for p, end in reached.items() if end > positions[p]},
            expected=_by_app(topic, epoch, positions),
        )
        positions.update(reached)
        report.consumed += len(batch)
        report.landed += landed.num_rows
        report.dead_lettered += dead.num_rows
        self._commit_group(consumer, topic, reached)

    def _decode(self, event: EventSpec, epoch: str, batch: Sequence[Message]) -> tuple[pa.Table, pa.Table]:
        """Return the messages that keep the contract as landing rows, the others as dead letters."""
        decoder = msgspec.json.Decoder(event.contract)
        events: list[Event] = []
        good: list[Message] = []
        bad: list[Message] = []
        reasons: list[str] = []
        for message in batch:
            try:
                events.append(decoder.decode(message.value() or b""))
                good.append(message)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                bad.append(message)
                reasons.append(str(error))
        coordinates = self._coordinates(epoch, good)
        days = pa.array([row.business_date for row in events], pa.date32())
        landed = {**to_columns(event.contract, events), **coordinates, "business_date": days}
        dead = self._coordinates(epoch, bad)
        dead_days = [roll_to_weekday(moment.date()) for moment in dead["known_at"].to_pylist()]
        letters = {
            "reason": pa.array(reasons, pa.string()),
            "key": pa.array([message.key() for message in bad], pa.binary()),
            "value": pa.array([message.value() for message in bad], pa.binary()),
            **dead,
            "landed_date": pa.array(dead_days, pa.date32()),
        }
        return pa.table(landed, schema=landing_schema(event)), pa.table(letters, schema=DEAD_LETTERS)

    def _coordinates(self, epoch: str, messages: Sequence[Message]) -> dict[str, pa.Array]:
        milliseconds = [message.timestamp()[1] for message in messages]
        broker_time = pa.array(milliseconds, pa.timestamp("ms", tz="UTC")).cast(pa.timestamp("us", tz="UTC"))
        known_at = broker_time
        if self._clock == "live":
            now = int(datetime.now(UTC).timestamp() * 1000)
            later = pa.array([max(now, ms) for ms in milliseconds], pa.timestamp("ms", tz="UTC"))
            known_at = later.cast(pa.timestamp("us", tz="UTC"))
        return {
            "kafka_epoch": pa.array([epoch] * len(messages), pa.string()),
            "kafka_partition": pa.array([message.partition() for message in messages], pa.int32()),
            "kafka_offset": pa.array([message.offset() for message in messages], pa.int64()),
            "broker_time": broker_time,
            "known_at": known_at,
        }

    def _commit_dead_letters(self, topic: str, epoch: str, dead: pa.Table, reached: dict[int, int]) -> None:
        if not dead.num_rows:
            return
        table = dead_letters_table(topic)
        already = self._positions(table, topic, epoch, reached)
        new = [
            offset >= already[partition]
            for partition, offset in zip(
                dead["kafka_partition"].to_pylist(), dead["kafka_offset"].to_pylist(), strict=True
            )
        ]
        moved = {_app_id(topic, epoch, p): end for p, end in reached.items() if end > already[p]}
        if any(new):
            self._lake.append_once(
                table, dead.filter(pa.array(new)), "landed_date", moved, expected=_by_app(topic, epoch, already)
            )

    def _positions(self, table: str, topic: str, epoch: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return the next offset of each partition by the table's own account; 0 where nothing was landed."""
        ids = {p: _app_id(topic, epoch, p) for p in partitions}
        recorded = self._lake.positions(table, ids.values())
        return {p: recorded.get(app_id, 0) for p, app_id in ids.items()}

    def _refuse_lost(self, consumer: Consumer, topic: str, positions: dict[int, int]) -> None:
        for partition, position in positions.items():
            low, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_TIMEOUT)
            if position < low:
                raise LostOffsetsError(
                    f"topic {topic}, partition {partition}: offsets {position} to {low - 1} were never landed and the "
                    "broker no longer has them; restore them from the source, or accept the loss by recreating the "
                    "topic"
                )

    def _commit_group(self, consumer: Consumer, topic: str, reached: dict[int, int]) -> None:
        """Tell the group how far landing is. Lag is all that depends on it, so a failure is left alone."""
        try:
            consumer.commit(offsets=[TopicPartition(topic, p, end) for p, end in reached.items()], asynchronous=True)
        except KafkaException:
            return


def _app_id(topic: str, epoch: str, partition: int) -> str:
    """Return the Delta application that owns a partition of one life of a topic."""
    return f"kafka:{topic}:{epoch}:{partition}"


def _coordinates(message: Message) -> tuple[int, int]:
    """Return partition and offset, which a consumed message always has."""
    partition, offset = message.partition(), message.offset()
    if partition is None or offset is None:
        raise ValueError(f"a message of topic {message.topic()} came without partition or offset")
    return partition, offset


def _by_app(topic: str, epoch: str, positions: dict[int, int]) -> dict[str, int]:
    return {_app_id(topic, epoch, p): position for p, position in positions.items()}
