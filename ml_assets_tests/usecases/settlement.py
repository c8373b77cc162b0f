"""Curated tables of settlement_fails, of a simulated market or of a few events by hand, and what follows of them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import TIMESTAMP, Event, to_columns
from ml_assets.features import AsOfDatabase
from ml_assets.landing.curate import curate
from ml_assets.landing.reference import read_reference
from ml_assets.landing.schemas import DEAD_LETTERS, event_schema
from ml_assets.learning.training_set import build_training_set
from ml_assets.local.simulation.market import Market
from ml_assets.spec import EventSpec, UseCase
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

Known = tuple[Event, datetime]


def landed_rows(event: EventSpec, known: Iterable[Known]) -> pa.Table:
    """The landed rows of events, each given with the time at which it was known."""
    rows = list(known)
    moments = pa.array([moment for _, moment in rows], TIMESTAMP)
    columns = {
        **to_columns(event.contract, [row for row, _ in rows]),
        "kafka_epoch": pa.array(["test"] * len(rows)),
        "kafka_partition": pa.array([0] * len(rows), pa.int32()),
        "kafka_offset": pa.array(range(len(rows)), pa.int64()),
        "broker_time": moments,
        "known_at": moments,
        "business_date": pa.array([row.business_date for row, _ in rows], pa.date32()),
    }
    return pa.table(columns, schema=event_schema(event))


def curated(event: EventSpec, known: Iterable[Known]) -> pa.Table:
    """The curated table of events, each given with the time at which it was known."""
    return curate(event, landed_rows(event, known), DEAD_LETTERS.empty_table(), threads=1).curated


def curated_market(market: Market) -> dict[str, pa.Table]:
    """The curated tables of all events of a market, by name; what is malformed is left out."""
    decoders = {event.topic: msgspec.json.Decoder(event.contract) for event in USE_CASE.events}
    known: dict[str, list[Known]] = defaultdict(list)
    for message in market.messages():
        try:
            event = decoders[message.topic].decode(message.value)
        except msgspec.DecodeError:
            continue
        known[message.topic].append((event, datetime.fromtimestamp(message.timestamp_ms / 1000, UTC)))
    return {event.name: curated(event, known[event.topic]) for event in USE_CASE.events}


def curated_by_hand(events: Mapping[str, Iterable[Event]]) -> dict[str, pa.Table]:
    """The curated tables of events that are known as soon as they happen; none where there is none."""
    return {
        name: curated(USE_CASE.event(name), [(row, row.event_time) for row in rows]) for name, rows in events.items()
    }


def references(market: Market, folder: Path) -> dict[str, pa.Table]:
    """The reference tables of a market."""
    market.write_reference(folder)
    return {spec.name: read_reference(str(folder), USE_CASE.name, spec)[0] for spec in USE_CASE.references}


def decide(
    usecase: UseCase,
    market: Market,
    events: Mapping[str, pa.Table],
    reference_data: Mapping[str, pa.Table],
    *,
    threads: int = 2,
) -> tuple[pa.Table, pa.Table]:
    """The features of all days of a market, and the labels that are known by its end, by the SQL of a use case."""
    days = market.world.calendar[: market.config.days]
    with AsOfDatabase(usecase, events, reference_data, threads=threads) as history:
        features = pa.concat_tables(history.features(time) for day in days for time in usecase.decision_times(day))
        by_outcome = features.select(["entity_id", "decision_time", "outcome_date"])
        labels = pa.concat_tables(
            history.labels(day, by_outcome.filter(pc.equal(by_outcome["outcome_date"], pa.scalar(day))))
            for day in days
            if usecase.label.known_at(day).date() <= days[-1]
        )
    return features, labels


def training_set_of(
    usecase: UseCase,
    market: Market,
    events: Mapping[str, pa.Table],
    reference_data: Mapping[str, pa.Table],
    *,
    threads: int = 2,
) -> pa.Table:
    """The training set as of the end of a market's last day."""
    features, labels = decide(usecase, market, events, reference_data, threads=threads)
    as_of = datetime.combine(market.world.calendar[market.config.days - 1], time.max, tzinfo=UTC)
    return build_training_set(
        features.drop_columns(["attributes"]), labels.drop_columns(["outcome_date"]), usecase.split, as_of
    )


def row_of(table: pa.Table, entity_id: str) -> dict[str, Any]:
    """The row of an entity; there must be one."""
    (row,) = (row for row in table.to_pylist() if row["entity_id"] == entity_id)
    return dict(row)
