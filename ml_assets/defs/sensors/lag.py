"""The sensor on Kafka's topics: how far landing is behind, as observations of the topics."""

from collections.abc import Iterator, Sequence

import dagster as dg
import msgspec

from ml_assets.answers import CHANGED_SCORES, landed_events
from ml_assets.defs.assets.ingestion import topic_key
from ml_assets.defs.common import table
from ml_assets.defs.resources import Platform
from ml_assets.defs.sensors.cursor import remember, remembered
from ml_assets.landing.lag import TopicLag, measure_lag
from ml_assets.local.embedded.environment import running_kafka
from ml_assets.spec import UseCase


class Cursor(msgspec.Struct, frozen=True):
    """What the last tick saw: by topic and epoch, how many offsets were given out."""

    high: dict[str, int] = {}


def kafka_lag_sensor(usecases: Sequence[UseCase]) -> dg.SensorDefinition:
    """Return the sensor that observes the topics of all use cases and of the scoring service; it asks for no run.

    New messages count as a materialization of their topic, since Dagster judges freshness by these.
    """
    events = [*landed_events(usecases), CHANGED_SCORES]

    @dg.sensor(
        name="kafka_lag",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Observes each topic: how many messages it has, how many of them have not been landed yet.",
    )
    def kafka_lag(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
        connection = running_kafka(platform.settings)
        if connection is None:
            return dg.SkipReason("no broker is configured (ML_ASSETS_KAFKA_BOOTSTRAP), and the embedded one is not up")
        before = remembered(context, Cursor)
        lags = measure_lag(platform.lake, connection.admin(), events)
        remember(context, Cursor({_life(lag): lag.high for lag in lags}))
        return dg.SensorResult(asset_events=[event for lag in lags for event in _tell(lag, before)])

    return kafka_lag


def _tell(lag: TopicLag, before: Cursor) -> Iterator[dg.AssetObservation | dg.AssetMaterialization]:
    new = lag.high - before.high.get(_life(lag), 0)
    if new > 0:
        yield dg.AssetMaterialization(topic_key(lag.topic), metadata={"new messages": new})
    if lag.topic == CHANGED_SCORES.topic:  # for consumers elsewhere: nothing of it is landed
        yield dg.AssetObservation(topic_key(lag.topic), metadata={"messages": lag.high})
        return
    yield dg.AssetObservation(
        topic_key(lag.topic),
        metadata={
            "lag": lag.lag,
            "messages": lag.high,
            "lost": lag.lost,
            "partitions": table(
                [
                    {"partition": p.partition, "messages to": p.high, "landed to": p.position, "lag": p.lag}
                    for p in lag.partitions
                ]
            ),
        },
    )


def _life(lag: TopicLag) -> str:
    return f"{lag.topic}:{lag.epoch}"
