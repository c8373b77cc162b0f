"""Features: the use case's SQL, run by DuckDB as of a time. Knows neither Dagster nor where rows are kept."""

from ml_assets.features.as_of import AsOfDatabase, columns_read, features_schema
from ml_assets.features.catalogue import CatalogueEntry, catalogue, catalogue_page

__all__ = ["AsOfDatabase", "CatalogueEntry", "catalogue", "catalogue_page", "columns_read", "features_schema"]
