"""The schemas of what the feature SQL gives, and the columns of the history that it needs for that."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from ml_assets.contracts import TIMESTAMP, arrow_schema
from ml_assets.features.sql import use_of
from ml_assets.spec import EventSpec, Feature, UseCase

KEYS_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("decision_time", TIMESTAMP, nullable=False),
        pa.field("decision_date", pa.date32(), nullable=False),
        pa.field("slot", pa.string(), nullable=False),
        pa.field("outcome_date", pa.date32(), nullable=False),
        pa.field("cost_if_fail", pa.float64(), nullable=False),
        pa.field("attributes", pa.string()),
    ]
)
DECISION_TIMES_SCHEMA = pa.schema(
    [
        pa.field(name, KEYS_SCHEMA.field(name).type, nullable=False)
        for name in ("decision_date", "slot", "decision_time")
    ]
)
# Of a decision time also the version of the features table that has its rows, and the tables that these were made from:
# a JSON object of their Delta versions.
DECIDED_SCHEMA = DECISION_TIMES_SCHEMA.append(pa.field("features_version", pa.int64())).append(
    pa.field("made_from", pa.string())
)
LABELS_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("decision_time", TIMESTAMP, nullable=False),
        pa.field("outcome_date", pa.date32(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("label_known_at", TIMESTAMP, nullable=False),
    ]
)


def features_schema(features: Iterable[Feature]) -> pa.Schema:
    """Return the schema of a features table: the decision's keys, then a column a feature."""
    columns = (pa.field(f.name, pa.string() if f.kind == "categorical" else pa.float64()) for f in features)
    return pa.schema([*KEYS_SCHEMA, *(column for column in columns if column.name not in KEYS_SCHEMA.names)])


def columns_read(usecase: UseCase, event: EventSpec) -> list[str]:
    """Return the columns of an event that the use case's SQL can need; see `columns_named`."""
    files = [*usecase.feature_sql.values(), *usecase.daily_sql.values(), usecase.label_sql]
    # A declared feature may be a column that the SQL hands on with `*`; places are read for `place_days`.
    also = [feature.name for feature in usecase.features] + ([usecase.places.column] if usecase.places else [])
    names = columns_named(event, files, *also)
    # When it was published, which may be before it landed: see `AsOfDatabase.labels`.
    # Versions are in the order in which they were published.
    return [
        *names,
        *(["broker_time"] if event in label_events(usecase) or event.has_versions else []),
        *(["kafka_offset"] if event.has_versions else []),
    ]


def label_events(usecase: UseCase) -> tuple[EventSpec, ...]:
    """Return the events that the label waits for: those it declares, else those that label.sql names, else all."""
    return _waited_for(usecase, usecase.label.waits_for, usecase.label_sql) or usecase.events


def daily_events(usecase: UseCase) -> tuple[EventSpec, ...]:
    """Return the events that a decision waits for, since a daily table counts what is missing of them."""
    named = [_waited_for(usecase, table.waits_for, usecase.daily_sql[table.name]) for table in usecase.daily]
    return tuple(event for event in usecase.events if any(event in events for events in named))


def _waited_for(usecase: UseCase, declared: Sequence[str] | None, sql: str) -> tuple[EventSpec, ...]:
    names = use_of(sql).tables if declared is None else {name.lower() for name in declared}
    return tuple(event for event in usecase.events if not names.isdisjoint(map(str.lower, event.tables)))


def columns_named(event: EventSpec, files: Iterable[str], *also: str) -> list[str]:
    """Return the columns of an event that SQL files can need: those that they name, and those of time and key.

    A history without the others gives the same features, and costs less to read. SQL that compares whole rows
    (`DISTINCT *`, `NATURAL JOIN`, `COLUMNS(...)`, `EXCEPT`) needs all of them.

    Raises:
        ValueError: a file is not one SELECT.
    """
    names = [field.name for field in arrow_schema(event.contract)]
    uses = [use_of(sql) for sql in files]
    if not any(use.whole_rows for use in uses):
        wanted = {"event_id", "event_time", "business_date", *(name.lower() for name in (*event.key, *also))}
        wanted = wanted.union(*(use.names for use in uses))
        names = [name for name in names if name.lower() in wanted]
    return [*names, "known_at", *(["business_date"] if "business_date" not in names else [])]
