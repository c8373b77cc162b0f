from datetime import date

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from ml_assets.answers import CHANGED_SCORES, ChangedScore
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.local.embedded.broker import temporary_broker
from ml_assets.predictions.changed import Score
from ml_assets.serving.recorder import Recorder
from ml_assets.serving.stream import ScoreStream
from ml_assets_tests.serving.answers import NOON


@pytest.fixture
def kafka(tmp_path):
    with temporary_broker(tmp_path / "broker") as bootstrap:
        yield KafkaConnection(bootstrap)


def consumed(kafka) -> list[ChangedScore]:
    """All messages of the topic; each is keyed by its entity."""
    consumer = Consumer(kafka.config(group_id="test", auto_offset_reset="earliest", enable_partition_eof=True))
    partitions = consumer.list_topics(CHANGED_SCORES.topic).topics[CHANGED_SCORES.topic].partitions
    consumer.assign([TopicPartition(CHANGED_SCORES.topic, p, 0) for p in partitions])
    found, ends = [], 0
    while ends < len(partitions):
        for message in consumer.consume(100, timeout=1):
            if message.error():
                ends += 1
            else:
                found.append(msgspec.json.decode(message.value(), type=ChangedScore))
                assert message.key().decode() == found[-1].entity_id
    consumer.close()
    return found


def table(**probabilities: float) -> dict[str, Score]:
    return {entity: Score(p, date(2026, 1, 5), "open", "run1") for entity, p in probabilities.items()}


def tell(stream, scores, most=None) -> int:
    def event_of(entity: str, score: Score) -> ChangedScore:
        return ChangedScore(
            event_id=ChangedScore.id_of("fails", entity, score.decision_date, score.slot, "run1", score.probability),
            event_time=NOON, use_case="fails", entity_id=entity, decision_date=score.decision_date, slot=score.slot,
            model_version=1, mlflow_run_id="run1", feature_set_hash="f00", probability=score.probability,
            expected_cost=100 * score.probability,
        )  # fmt: skip

    return stream.tell(scores, event_of, most=most)


def recorder_on(kafka) -> Recorder:
    recorder = Recorder(kafka, make_topics=True, idempotent=False)
    recorder.start()
    return recorder


def test_new_and_changed_scores_come_once_and_again_with_the_same_id_after_a_restart(kafka):
    recorder = recorder_on(kafka)
    stream = ScoreStream(recorder, CHANGED_SCORES.topic, least_change=0.1)
    assert tell(stream, table(a=0.2, b=0.4)) == 2
    assert tell(stream, table(a=0.2, b=0.45)) == 0, "nor while the first are on the way"
    assert tell(stream, table(a=0.2, b=0.6, c=0.1)) == 2
    assert recorder.close(30) == 0
    first = consumed(kafka)
    assert sorted((score.entity_id, score.probability) for score in first) == [
        ("a", 0.2), ("b", 0.4), ("b", 0.6), ("c", 0.1),
    ]  # fmt: skip
    assert len({score.event_id for score in first}) == 4
    again = recorder_on(kafka)
    assert tell(ScoreStream(again, CHANGED_SCORES.topic, least_change=0.1), table(a=0.2, b=0.6, c=0.1)) == 3
    assert again.close(30) == 0
    both = consumed(kafka)
    assert len(both) == 7
    assert {score.event_id for score in both} == {score.event_id for score in first}


def test_a_score_that_was_dropped_is_told_with_the_next_table():
    """Guards consumers: a full queue, or a broker that was away, must not hide a score for good."""
    recorder = Recorder(KafkaConnection("127.0.0.1:1"), capacity=1, timeout_seconds=60, idempotent=False)
    recorder.start()
    stream = ScoreStream(recorder, CHANGED_SCORES.topic)
    assert tell(stream, table(a=0.2, b=0.4)) == 2
    assert tell(stream, table(a=0.2, b=0.4)) == 1, "b found no room"
    recorder.close(0.1)


def test_what_is_told_in_parts_is_told_once_and_whole():
    """Guards answers: the shadow of 10,000 decisions must not take all the room in the queue at once."""
    recorder = Recorder(KafkaConnection("127.0.0.1:1"), capacity=100, timeout_seconds=60, idempotent=False)
    recorder.start()
    stream, scores = ScoreStream(recorder, CHANGED_SCORES.topic), table(a=0.2, b=0.4, c=0.6)
    assert [tell(stream, scores, most=2) for _ in range(3)] == [2, 1, 0]
    assert recorder.room == 97
    recorder.close(0.1)
