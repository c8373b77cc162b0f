"""Features: the use case's SQL, run by DuckDB as of a time. Knows neither Dagster nor where rows are kept."""

from ml_assets.features.as_of import AsOfDatabase, DailyParts, daily_days
from ml_assets.features.catalogue import CatalogueEntry, catalogue, catalogue_page
from ml_assets.features.sql import use_of
from ml_assets.features.tables import KEYS_SCHEMA, LABELS_SCHEMA, columns_named, columns_read, features_schema

__all__ = [
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
    "features_schema",
    "use_of",
]
