"""What tests do to topics, on any broker: delete one and wait until it is gone."""

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

_TIMEOUT = 20.0


def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic, if it exists, and wait until the broker no longer knows it."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
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
