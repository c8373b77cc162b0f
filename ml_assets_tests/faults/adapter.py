"""Where the campaign touches the lander: how one is built and run, how tables are compacted, what has landed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.dataset as ds
from pydantic import SecretStr

from ml_assets.lake import Lake, landing_table
from ml_assets.lake.maintenance import maintain
from ml_assets.landing.kafka import KafkaConnection, app_id
from ml_assets.landing.lander import Lander
from ml_assets.landing.metrics import Health
from ml_assets.landing.schemas import PARTITIONED_BY
from ml_assets.landing.session import FlushLimits
from ml_assets.spec import EventSpec
from ml_assets_tests.faults.job import Job

SESSION_SECONDS = 3.0
STAND_SECONDS = 15.0
"""For how long a partition may stand before its lander must say so and take it up anew; a minute in earnest."""


def run(
    lake: Lake, events: Sequence[EventSpec], job: Job, at_step: Callable[[str], None], stop: threading.Event
) -> None:
    """Run a lander until it is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    health = Health()
    threading.Thread(target=_tell, args=(health,), daemon=True).start()
    lander = Lander(
        lake,
        events,
        KafkaConnection(**{**job.kafka, "password": SecretStr(job.kafka["password"])}),
        clock="replay",
        limits=FlushLimits(rows=job.flush_rows, bytes=job.flush_bytes, seconds=job.flush_seconds),
        assignment=job.assignment,
        session_seconds=SESSION_SECONDS,
        stand_seconds=STAND_SECONDS,
        at_step=at_step,
        health=health,
    )
    lander.run(stop)


def _tell(health: Health) -> None:
    """Log whether the lander says that it is ready, and why not, whenever that changes."""
    told = None
    while True:
        if (ready := health.ready()) != told:
            logging.info("ready: %s %s", *ready)
            told = ready
        time.sleep(0.5)


def land_all(lake: Lake, events: Sequence[EventSpec], kafka: KafkaConnection) -> None:
    """Land what the topics hold now."""
    Lander(lake, events, kafka, clock="replay").land_available()


def compact(lake: Lake, events: Sequence[EventSpec], at_step: Callable[[str], None]) -> None:
    """Compact the landing tables and remove every file that no longer belongs to them."""
    maintain(lake, [landing_table(event.topic) for event in events], keep_hours=1, at_step=at_step)


def rows(lake: Lake, event: EventSpec, kind: str) -> pa.Table:
    """Return the rows of one kind."""
    return lake.read(landing_table(event.topic), where=ds.field("kind") == kind)


def positions(lake: Lake, topic: str, epoch: str, partitions: Sequence[int]) -> dict[int, int]:
    """Return the next offset of each partition by the table's own account."""
    ids = {app_id(topic, epoch, partition): partition for partition in partitions}
    recorded = lake.appender(landing_table(topic), PARTITIONED_BY).positions(ids)
    return {ids[name]: position for name, position in recorded.items()}
