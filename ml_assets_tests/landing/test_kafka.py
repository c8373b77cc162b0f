"""A cluster that is asked about its topics while its brokers come and go."""

import contextlib

import pytest

from ml_assets.landing.kafka import KafkaConnection, KafkaUnreachableError
from ml_assets.landing.produce import ensure_topics
from ml_assets_tests.landing.front import front_of_a_cluster


@pytest.fixture
def front():
    with front_of_a_cluster() as server:
        yield server


def test_a_cluster_is_found_again_after_it_had_no_brokers(front, broker, event, monkeypatch):
    """Guards landing that stood for ever after a restart of the broker: the client had forgotten every address."""
    if broker.security_protocol != "PLAINTEXT":
        pytest.skip("the address in front of the broker speaks no TLS")
    monkeypatch.setattr("ml_assets.landing.kafka.TIMEOUT", 1.5)
    ensure_topics(broker, [event.topic])
    host, port = front.server_address
    cluster = KafkaConnection(f"{host}:{port}").admin()
    with pytest.raises(KafkaUnreachableError):
        cluster.topics([event.topic])
    front.counts = False
    with pytest.raises(KafkaUnreachableError):
        cluster.topics([event.topic])
    front.lead_to(broker.bootstrap)
    with contextlib.suppress(KafkaUnreachableError):
        cluster.topics([event.topic])
    assert list(cluster.topics([event.topic])) == [event.topic]


def test_topics_that_do_not_exist_are_left_out(broker, event):
    ensure_topics(broker, [event.topic], partitions=2)
    cluster = broker.admin()
    found = cluster.topics([event.topic, "no-such-topic", "not a name of a topic"])
    assert {name: topic.partitions for name, topic in found.items()} == {event.topic: (0, 1)}
    assert cluster.epoch(event.topic) == found[event.topic].epoch
    assert cluster.epoch("no-such-topic") is None
    assert cluster.topics([]) == {}
