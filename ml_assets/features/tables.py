"""The schemas of what the feature SQL gives, and the columns of the history that it needs for that."""

from collections.abc import Iterable

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
    # A declared feature may be a column that the SQL hands on with `*`.
    return columns_named(event, files, *(feature.name for feature in usecase.features))


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
        wanted = {"event_id", "event_time", "business_date", *(name.lower() for name in also)}
        wanted = wanted.union(*(use.names for use in uses))
        names = [name for name in names if name.lower() in wanted]
    return [*names, "known_at", *(["business_date"] if "business_date" not in names else [])]
