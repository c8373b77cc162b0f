"""The node that the other tests trust: it keeps its data, and its secure listener lets in only who may."""

from dataclasses import dataclass
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.local.simulation.messages import Message
from ml_assets_tests.kafka import apache
from ml_assets_tests.kafka.certificates import issue
from ml_assets_tests.kafka.topics import delete_topic

pytestmark = pytest.mark.kafka


@dataclass(frozen=True)
class Topic:
    kafka: KafkaConnection
    name: str

    def send(self, *values):
        produce(self.kafka, [Message(self.name, b"k", value, 1) for value in values])

    def values(self):
        """All that the topic holds, of its only partition."""
        consumer = Consumer(self.kafka.config(group_id=uuid4().hex, enable_partition_eof=True, log_level=0))
        try:
            consumer.assign([TopicPartition(self.name, 0, 0)])
            found = []
            while True:
                message = consumer.poll(20)
                assert message is not None, "the broker sends nothing"
                if message.error() and message.error().code() == KafkaError._PARTITION_EOF:
                    return found
                if not message.error():
                    found.append(message.value())
        finally:
            consumer.close()


@pytest.fixture
def topic(kafka):
    name = f"apache-{uuid4().hex[:8]}"
    ensure_topics(kafka.plain, [name], partitions=1)
    return Topic(kafka.plain, name)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_was_acknowledged_outlives_the_node(kafka, topic, end):
    topic.send(b"1", b"2")
    getattr(kafka, end)()
    with pytest.raises(RuntimeError, match=r"start\(\) it first"):
        assert kafka.pid
    kafka.start()
    assert topic.values() == [b"1", b"2"]


def test_a_paused_node_answers_nobody_until_it_goes_on(kafka, topic):
    client = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    kafka.pause()
    try:
        with pytest.raises(KafkaException):
            client.list_topics(timeout=1)
    finally:
        kafka.resume()
    assert topic.name in client.list_topics(timeout=20).topics


def test_a_deleted_topic_comes_back_empty(kafka, topic):
    topic.send(b"1")
    delete_topic(kafka.plain, topic.name)
    ensure_topics(kafka.plain, [topic.name], partitions=1)
    assert topic.values() == []


def secure_client(kafka, **changes):
    return AdminClient({**kafka.secure.config(log_level=0), **changes})


def test_the_secure_listener_lets_in_who_has_the_password(kafka, topic):
    assert topic.name in secure_client(kafka).list_topics(timeout=20).topics


@pytest.mark.parametrize(
    "changes",
    [
        {"sasl.password": "wrong"},
        {"sasl.username": "nobody"},
        {"security.protocol": "SASL_PLAINTEXT"},
        {"security.protocol": "SSL"},
    ],
    ids=["wrong_password", "unknown_user", "no_tls", "no_password"],
)
def test_the_secure_listener_refuses_who_may_not(kafka, changes):
    with pytest.raises(KafkaException):
        secure_client(kafka, **changes).list_topics(timeout=3)


def test_a_certificate_of_another_authority_is_refused(kafka, tmp_path):
    other = issue(tmp_path, "somebody else")
    with pytest.raises(KafkaException):
        secure_client(kafka, **{"ssl.ca.location": str(other.ca_file)}).list_topics(timeout=3)


def test_a_missing_tool_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "`java`" in apache.missing_tools()
    with pytest.raises(apache.MissingToolError, match="install a JRE"):
        apache.jars()
