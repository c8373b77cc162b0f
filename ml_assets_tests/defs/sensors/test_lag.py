"""The sensor on topics: what the broker has against what has landed, as Dagster shows it."""

import dagster as dg
import pytest

from ml_assets.answers import CHANGED_SCORES, SERVED_SCORES
from ml_assets.defs.resources import Platform
from ml_assets.defs.sensors.lag import kafka_lag_sensor
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.serving.recorder import Recorder
from ml_assets_tests import late_payments
from ml_assets_tests.serving.answers import answer


@pytest.fixture(scope="module")
def usecase(tmp_path_factory):
    return late_payments.usecase_of(late_payments.make_package(tmp_path_factory.mktemp("lag"), "lagging"))


@pytest.fixture
def tick(usecase, broker, tmp_path, monkeypatch):
    """A function that ticks the sensor and returns its result; each tick sees the cursor of the one before."""
    for name, value in {
        "BOOTSTRAP": broker.bootstrap,
        "SECURITY_PROTOCOL": broker.security_protocol,
        "USERNAME": broker.username,
        "PASSWORD": broker.password.get_secret_value(),
        "CA_FILE": broker.ca_file,
    }.items():
        monkeypatch.setenv(f"ML_ASSETS_KAFKA_{name}", value)
    platform = Platform(home=str(tmp_path))
    cursor = None

    def tick():
        nonlocal cursor
        with dg.build_sensor_context(cursor=cursor, resources={"platform": platform}) as context:
            result = kafka_lag_sensor([usecase]).evaluate_tick(context)
        cursor = result.cursor
        return result

    tick.platform = platform
    return tick


def shown(result, topic):
    """Metadata of the topic's observation, and new messages if it was materialized."""
    of = [event for event in result.asset_events if event.asset_key == dg.AssetKey(["kafka", topic])]
    (observation,) = (event for event in of if isinstance(event, dg.AssetObservation))
    new = [event.metadata["new messages"].value for event in of if isinstance(event, dg.AssetMaterialization)]
    return {name: value.value for name, value in observation.metadata.items()}, new


def test_lag_grows_with_messages_and_goes_with_landing(tick, usecase, broker, request):
    """The embedded broker counts batches where others count messages: the numbers themselves are Apache Kafka's."""
    topic = "lagging_invoices"
    ensure_topics(broker, [event.topic for event in usecase.events])
    assert shown(tick(), topic)[0]["lag"] == 0
    sent = [m for m in late_payments.messages(2, name="lagging") if m.topic == topic]
    produce(broker, sent)
    metadata, new = shown(tick(), topic)
    if request.config.getoption("--broker") == "apache":
        assert (metadata["lag"], metadata["messages"], new) == (len(sent), len(sent), [len(sent)])
    assert metadata["lag"] == metadata["messages"] == new[0] > 0
    Lander(tick.platform.lake, usecase.events, broker).land_available()
    metadata, new = shown(tick(), topic)
    assert (metadata["lag"], metadata["lost"], new) == (0, 0, [])


def test_the_answers_of_the_service_have_a_lag_and_its_stream_has_messages(tick, broker):
    """Guards answers that wait in Kafka while nobody sees it; the stream is for others, and is never landed."""
    topics = [SERVED_SCORES.topic, CHANGED_SCORES.topic]
    ensure_topics(broker, topics)
    before = {topic: shown(tick(), topic)[0]["messages"] for topic in topics}
    recorder = Recorder(broker, idempotent=False)
    recorder.start()
    for topic in topics:
        recorder.record(topic, "of-lag", answer("lag"))
    assert recorder.close(20) == 0
    result = tick()
    for topic in topics:
        metadata, new = shown(result, topic)
        assert metadata["messages"] > before[topic]
        assert len(new) == 1
    assert shown(result, SERVED_SCORES.topic)[0]["lag"] > 0
    assert "lag" not in shown(result, CHANGED_SCORES.topic)[0]
    Lander(tick.platform.lake, [SERVED_SCORES], broker).land_available()
    assert shown(tick(), SERVED_SCORES.topic)[0]["lag"] == 0


def test_without_a_broker_nothing_is_started(usecase, tmp_path):
    """Guards: a look at the UI must not start a broker whose topics would be empty."""
    with dg.build_sensor_context(resources={"platform": Platform(home=str(tmp_path))}) as context:
        result = kafka_lag_sensor([usecase]).evaluate_tick(context)
    assert "no broker is configured" in result.skip_message
    assert not (tmp_path / "broker.json").exists()
