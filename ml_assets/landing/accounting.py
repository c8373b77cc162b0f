"""Is every consumed message in the landing table, once? And how to accept messages that the broker has lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from ml_assets.duck import open_duckdb
from ml_assets.errors import InputError
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.batch import Gap, landing_rows
from ml_assets.landing.decode import Decoder
from ml_assets.landing.kafka import app_id
from ml_assets.landing.schemas import LETTER_COLUMNS, PARTITIONED_BY
from ml_assets.spec import EventSpec

SQL = Path(__file__).with_name("sql") / "accounting.sql"
LOST = "lost: "
_COLUMNS = ["kind", LETTER_COLUMNS["reason"], "gap_until", "kafka_epoch", "kafka_partition", "kafka_offset"]


@dataclass(frozen=True, slots=True)
class PartitionAccount:
    """The account of one partition in one life of its topic, in offsets.

    `position` offsets were consumed. They are `landed`, `dead_lettered` (of which `replayed` have landed since), or
    gaps (of which `lost` were accepted as a loss). What is `missing`, `doubled` or `beyond` the position is an error.
    """

    epoch: str
    partition: int
    position: int
    landed: int
    dead_lettered: int
    replayed: int
    gaps: int
    lost: int
    missing: int
    doubled: int
    beyond: int

    @property
    def is_right(self) -> bool:
        """Whether every consumed offset is there once."""
        return not (self.missing or self.doubled or self.beyond)


def account(lake: Lake, event: EventSpec, *, threads: int = 0) -> list[PartitionAccount]:
    """Return the account of each partition of a topic that has landed anything."""
    name = landing_table(event.topic)
    table = lake.table(name)
    if table is None:
        return []
    landed = table.to_pyarrow_dataset().to_table(columns=_COLUMNS)
    lives = landed.group_by(["kafka_epoch", "kafka_partition"]).aggregate([])
    recorded = [
        table.transaction_version(app_id(event.topic, epoch, partition)) or 0
        for epoch, partition in zip(lives["kafka_epoch"].to_pylist(), lives["kafka_partition"].to_pylist(), strict=True)
    ]
    positions = lives.append_column("position", pa.array(recorded, pa.int64()))
    with open_duckdb(threads) as db:
        db.register("landed", landed)
        db.register("positions", positions)
        return [PartitionAccount(*row) for row in db.sql(SQL.read_text(encoding="utf-8")).fetchall()]


def accept_loss(lake: Lake, event: EventSpec, epoch: str, partition: int, until: int, reason: str) -> tuple[int, int]:
    """Record that offsets which the broker has deleted are given up; return the first, and the first that is left.

    The loss is a row of the landing table with the reason; landing continues after it.

    Raises:
        ValueError: there is nothing to give up, or no reason.
        ml_assets.lake.PositionMovedError: a lander has moved on meanwhile.
    """
    if not reason.strip():
        raise InputError("a loss is accepted by somebody, for a reason: give both")
    appender = lake.appender(landing_table(event.topic), PARTITIONED_BY)
    application = app_id(event.topic, epoch, partition)
    start = appender.positions([application])
    first = start[application]
    if first >= until:
        raise InputError(
            f"topic {event.topic}, partition {partition}: all offsets below {first} have landed and the broker has "
            f"those from {until}: nothing is lost"
        )
    gap = Gap(partition, first, until, f"{LOST}{reason.strip()}")
    rows = landing_rows(event, Decoder(event.contract), epoch, [], [gap], now=datetime.now(UTC))
    appender.append(rows.rows, start, {application: until})
    return first, until
