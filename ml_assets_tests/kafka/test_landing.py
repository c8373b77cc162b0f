"""What only a whole Kafka cluster has: groups, transactions, retention, passwords. The lander on Apache Kafka."""

import itertools
import time
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pydantic import SecretStr

from ml_assets.lake import Lake
from ml_assets.landing.accounting import accept_loss, account
from ml_assets.landing.kafka import KafkaConnection, KafkaUnreachableError
from ml_assets.landing.lag import measure_lag
from ml_assets.landing.lander import Lander, LostOffsetsError
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.landing.session import FlushLimits
from ml_assets_tests.landing.conftest import moved
from ml_assets_tests.landing.messages import Message, body
from ml_assets_tests.landing.test_service import running, wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def cluster(kafka):
    return KafkaConnection(kafka.bootstrap)


@pytest.fixture
def event():
    return moved(f"landing-{uuid4().hex[:8]}")


def send(cluster, event, *numbers, partitions=1):
    ensure_topics(cluster, [event.topic], partitions=partitions)
    produce(cluster, [Message(event.topic, str(n).encode(), body(n)) for n in numbers])


def everything_is_right(lake, event, landed):
    parts = account(lake, event)
    assert sum(part.landed for part in parts) == landed
    assert [part for part in parts if not part.is_right] == []


def test_replicas_that_come_and_go_share_the_partitions(lake, cluster, event):
    """Guards scaling: a replica joins, takes over partitions from where the other stood, and leaves again."""
    send(cluster, event, *range(100), partitions=4)
    options = {"assignment": "group", "limits": FlushLimits(rows=50, seconds=0.3), "session_seconds": 6.0}
    with running(lake, event, cluster, **options) as one:
        wait_until(lambda: one.landed() == 100, "the first replica lands alone")
        with running(lake, event, cluster, **options) as other:
            wait_until(lambda: (owned(one), owned(other)) == (2, 2), "two partitions each")
            for start in range(100, 600, 100):
                send(cluster, event, *range(start, start + 100))
            wait_until(lambda: one.landed() == 600, "both together landed all")
            assert (other.metric("lander_rows_total") or 0) > 0
        wait_until(lambda: owned(one) == 4, "the first replica has all partitions again")
        send(cluster, event, *range(600, 700))
        wait_until(lambda: one.landed() == 700, "the first replica has everything again")
    everything_is_right(lake, event, 700)


class UnreadableLake(Lake):
    """A lake whose store refuses to be read as long as the test says."""

    broken = True

    def appender(self, name, partition_by):
        appender, positions = super().appender(name, partition_by), super().appender(name, partition_by).positions

        def refuse(app_ids):
            if self.broken:
                raise OSError("the store does not answer")
            return positions(app_ids)

        appender.positions = refuse
        return appender


def test_partitions_are_given_up_although_their_position_cannot_be_read(tmp_path, cluster, event):
    """Guards a group that stands still: a replica must give up also what it does not read at the moment."""
    lake = UnreadableLake(str(tmp_path / "lake"))
    send(cluster, event, *range(100), partitions=4)
    options = {"assignment": "group", "limits": FlushLimits(rows=50, seconds=0.3), "session_seconds": 6.0}
    with running(lake, event, cluster, **options) as one:
        wait_until(lambda: "cannot be read" in one.health.ready()[1], "a replica without positions")
        with running(Lake(lake.root), event, cluster, **options) as other:
            wait_until(lambda: owned(other) == 2, "the other replica has half of the partitions")
            lake.broken = False
            wait_until(lambda: (owned(one), owned(other)) == (2, 2), "two partitions each")
            wait_until(lambda: one.landed() == 100, "both together landed all")
    everything_is_right(lake, event, 100)


def owned(service):
    """How many partitions a replica tells the lag of: those that it has."""
    (lag,) = (metric for metric in service.metrics.registry.collect() if metric.name == "lander_lag_messages")
    return len(lag.samples)


def test_messages_of_an_aborted_transaction_are_no_events_and_markers_are_gaps(lake, cluster, event):
    ensure_topics(cluster, [event.topic], partitions=1)
    producer = Producer(cluster.config(transactional_id=event.topic))
    producer.init_transactions(30)
    for number, commit in ((0, True), (10, False), (20, True)):
        producer.begin_transaction()
        for n in range(number, number + 3):
            producer.produce(event.topic, body(n), b"k")
        producer.flush(30)  # or those of an aborted transaction would never leave
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
    (report,) = Lander(lake, [event], cluster).land_available()
    assert report.landed == 6
    everything_is_right(lake, event, 6)
    (part,) = account(lake, event)
    assert part.gaps == 5, "a marker, then the aborted three with theirs"


def test_messages_that_compaction_removed_are_gaps(lake, cluster, event):
    compacted = {
        "cleanup.policy": "compact",
        "segment.ms": "50",
        "min.cleanable.dirty.ratio": "0.001",
        "max.compaction.lag.ms": "100",
    }
    admin = AdminClient(cluster.config())
    (created,) = admin.create_topics([NewTopic(event.topic, 1, 1, config=compacted)]).values()
    created.result(30)
    now = int(time.time() * 1000)
    for turn in range(4):  # the same five keys again and again
        number, at = 10 * turn, now + 1_000 * turn
        produce(cluster, [Message(event.topic, b"%d" % (n % 5), body(number + n), at) for n in range(10)])
    produce(cluster, [Message(event.topic, b"last", body(99), now + 10_000)])
    wait_until(lambda: left(cluster, event) < 41, "the cleaner has removed something")
    Lander(lake, [event], cluster).land_available()
    (part,) = account(lake, event)
    assert (part.is_right, part.position) == (True, 41)
    assert part.landed < 41
    assert part.landed + part.gaps == 41


def left(cluster, event):
    """How many messages of partition 0 a consumer still gets."""
    consumer = Consumer(cluster.config(group_id=uuid4().hex, enable_partition_eof=True, log_level=0))
    try:
        consumer.assign([TopicPartition(event.topic, 0, 0)])
        for count in itertools.count():
            message = consumer.poll(30)
            assert message is not None, "the broker sends nothing"
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF
                return count
    finally:
        consumer.close()


def test_messages_that_retention_took_after_they_landed_are_no_loss(lake, cluster, event):
    send(cluster, event, *range(10))
    Lander(lake, [event], cluster).land_available()
    admin = AdminClient(cluster.config())
    (deleted,) = admin.delete_records([TopicPartition(event.topic, 0, 8)]).values()
    deleted.result(30)
    send(cluster, event, 10)
    Lander(lake, [event], cluster).land_available()
    everything_is_right(lake, event, 11)


def test_offsets_that_retention_took_are_an_error_until_somebody_accepts_the_loss(lake, cluster, event):
    send(cluster, event, *range(5))
    Lander(lake, [event], cluster).land_available()
    send(cluster, event, *range(5, 15))
    admin = AdminClient(cluster.config())
    (deleted,) = admin.delete_records([TopicPartition(event.topic, 0, 9)]).values()
    deleted.result(30)
    with pytest.raises(LostOffsetsError, match=r"partition 0: offsets 5 to 8 were never landed.*accept-loss"):
        Lander(lake, [event], cluster).land_available()
    (lag,) = measure_lag(lake, cluster.admin(), [event])
    assert (lag.lost, lag.lag) == (4, 6)
    everything_is_right(lake, event, 5)

    accept_loss(lake, event, lag.epoch, 0, lag.partitions[0].low, "agreed in the test")
    (report,) = Lander(lake, [event], cluster).land_available()
    assert report.landed == 6
    (part,) = account(lake, event)
    assert (part.lost, part.is_right) == (4, True)


def test_a_loss_in_one_partition_stops_no_other(lake, cluster, event):
    send(cluster, event, *range(200), partitions=2)
    admin = AdminClient(cluster.config())
    (deleted,) = admin.delete_records([TopicPartition(event.topic, 0, 1)]).values()
    deleted.result(30)
    options = {"limits": FlushLimits(seconds=0.2)}
    with running(lake, event, cluster, **options) as service:
        wait_until(lambda: service.landed() > 0, "the whole partition landed")
        ready, why = service.health.ready()
        assert not ready
        assert "offsets 0 to 0 were never landed" in why
    assert {part.partition for part in account(lake, event)} == {1}


def secure(kafka, **changes):
    settings = {
        "security_protocol": "SASL_SSL",
        "username": kafka.username,
        "password": SecretStr(kafka.password),
        "ca_file": str(kafka.ca_file),
        **changes,
    }
    return KafkaConnection(kafka.secure_bootstrap, **settings)


def test_landing_over_tls_with_a_password(lake, kafka, cluster, event):
    send(cluster, event, *range(10))
    (report,) = Lander(lake, [event], secure(kafka)).land_available()
    assert report.landed == 10


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"password": SecretStr("not-the-password")}, "authentication"),
        ({"ca_file": ""}, "certificate|SSL"),
    ],
    ids=["wrong_password", "unknown_authority"],
)
def test_who_may_not_is_told_why_and_no_secret_is_shown(lake, kafka, event, changes, reason):
    connection = secure(kafka, **changes)
    with pytest.raises(KafkaUnreachableError, match=f"(?i){reason}") as refused:
        Lander(lake, [event], connection).land_available()
    assert kafka.secure_bootstrap in str(refused.value)
    for text in (str(refused.value), repr(connection)):
        assert "not-the-password" not in text
        assert kafka.password not in text
