"""Send messages to Kafka: what the simulator and the replay of files do."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from ml_assets.errors import StateError
from ml_assets.landing.kafka import KafkaConnection

_REPORT_EVERY = 5_000


class Sendable(Protocol):
    """A message; `timestamp_ms` is the record's time, milliseconds since 1970 UTC."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> bytes: ...  # noqa: D102
    @property
    def value(self) -> bytes: ...  # noqa: D102
    @property
    def timestamp_ms(self) -> int: ...  # noqa: D102


def ensure_topics(kafka: KafkaConnection, topics: Iterable[str], *, partitions: int = 2) -> None:
    """Create the topics that do not exist.

    Raises:
        confluent_kafka.KafkaException: the broker refuses, or does not answer.
    """
    admin = AdminClient(kafka.config(log_level=3))
    present = admin.list_topics(timeout=10).topics
    missing = [NewTopic(topic, partitions, 1) for topic in topics if topic not in present]
    if not missing:
        return
    for created in admin.create_topics(missing).values():
        try:
            created.result()
        except KafkaException as error:  # another process was faster
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def produce(
    kafka: KafkaConnection, messages: Iterable[Sendable], *, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Send the messages, wait until the broker has all of them, and return their number.

    `progress` is called with the number sent since its last call.

    Raises:
        RuntimeError: the broker did not take a message; it says which topic and why.
    """
    failures: list[str] = []

    def delivered(error: KafkaError | None, message: Any) -> None:
        if error is not None:
            failures.append(f"{message.topic()}: {error.str()}")

    producer = Producer(
        {
            **kafka.config(),
            "enable.idempotence": False,  # the embedded broker has no producer ids that outlive a restart
            "linger.ms": 50,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 500_000,
            "delivery.report.only.error": True,
            "log_level": 4,
            "on_delivery": delivered,
        }
    )
    sent = 0
    for message in messages:
        while True:
            try:
                producer.produce(message.topic, message.value, message.key, timestamp=message.timestamp_ms)
                break
            except BufferError:
                producer.poll(0.1)
        sent += 1
        if sent % _REPORT_EVERY == 0:
            producer.poll(0)
            progress(_REPORT_EVERY)
    left = producer.flush(60)
    if left or failures:
        raise StateError(
            f"the broker {kafka.bootstrap} did not take {left + len(failures)} of {sent} messages"
            + (f"; the first: {failures[0]}" if failures else " within 60 s")
        )
    progress(sent % _REPORT_EVERY)
    return sent
