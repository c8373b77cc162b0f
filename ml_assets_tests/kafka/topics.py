"""What tests do to topics, on any broker: delete one and wait until it is gone."""

import time

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic

from ml_assets.landing.kafka import KafkaConnection

_TIMEOUT = 20.0
# Apache Kafka takes no record whose time is an hour ahead, unless the topic says so.
_ANY_TIME = {"message.timestamp.after.max.ms": f"{2**63 - 1}", "message.timestamp.before.max.ms": f"{2**63 - 1}"}


def create_topic_of_any_time(kafka: KafkaConnection, topic: str, partitions: int = 1) -> None:
    """Create a topic that takes records of any time."""
    admin = AdminClient(kafka.config(log_level=0))
    admin.create_topics([NewTopic(topic, partitions, 1, config=_ANY_TIME)])[topic].result()


def delete_topic(kafka: KafkaConnection, topic: str) -> None:
    """Delete a topic, if it exists, and wait until the broker no longer knows it."""
    admin = AdminClient(kafka.config())
    (deleted,) = admin.delete_topics([topic], operation_timeout=_TIMEOUT).values()
    try:
        deleted.result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise
    until = time.monotonic() + _TIMEOUT
    while topic in admin.list_topics(timeout=_TIMEOUT).topics:
        assert time.monotonic() < until, f"topic {topic} is still there {_TIMEOUT:.0f} s after it was deleted"
        time.sleep(0.05)


def topic_id(kafka: KafkaConnection, topic: str) -> str:
    """Return the broker's id of this life of a topic."""
    admin = AdminClient(kafka.config())
    until = time.monotonic() + _TIMEOUT
    while True:
        try:
            return str(admin.describe_topics(TopicCollection([topic]))[topic].result(_TIMEOUT).topic_id)
        except KafkaException as error:  # a topic is known a moment after it was created
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > until:
                raise
            time.sleep(0.05)
