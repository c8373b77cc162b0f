"""Features: the use case's SQL, run by DuckDB as of a time. It knows neither Dagster nor where rows are stored."""

from ml_assets.features.as_of import AsOfDatabase, DailyParts, daily_days
from ml_assets.features.catalogue import CatalogueEntry, catalogue, catalogue_page
from ml_assets.features.sql import use_of
from ml_assets.features.tables import (
    DECIDED_SCHEMA,
    DECISION_TIMES_SCHEMA,
    KEYS_SCHEMA,
    LABELS_SCHEMA,
    columns_named,
    columns_read,
    daily_events,
    features_schema,
    label_events,
)

__all__ = [
    "DECIDED_SCHEMA",
    "DECISION_TIMES_SCHEMA",
    "KEYS_SCHEMA",
    "LABELS_SCHEMA",
    "AsOfDatabase",
    "CatalogueEntry",
    "DailyParts",
    "catalogue",
    "catalogue_page",
    "columns_named",
    "columns_read",
    "daily_days",
    "daily_events",
    "features_schema",
    "label_events",
    "use_of",
]
