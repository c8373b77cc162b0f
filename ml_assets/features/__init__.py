"""Features: the use case's SQL, run by DuckDB as of a time. Knows neither Dagster nor where rows are kept."""

from ml_assets.features.as_of import (
    AsOfDatabase,
    DailyParts,
    columns_named,
    columns_read,
    daily_days,
    features_schema,
    words_of,
)
from ml_assets.features.catalogue import CatalogueEntry, catalogue, catalogue_page

__all__ = [
    "AsOfDatabase",
    "CatalogueEntry",
    "DailyParts",
    "catalogue",
    "catalogue_page",
    "columns_named",
    "columns_read",
    "daily_days",
    "features_schema",
    "words_of",
]
