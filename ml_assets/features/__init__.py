"""Features: the use case's SQL, run by DuckDB as of a time. Knows neither Dagster nor where rows are kept."""

from ml_assets.features.as_of import AsOfDatabase, features_schema

__all__ = ["AsOfDatabase", "features_schema"]
