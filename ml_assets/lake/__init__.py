"""The lake: Delta tables on a folder or on S3. Knows rows and partitions, nothing of models or Dagster."""

from ml_assets.lake.lake import Appender, DataFile, Lake, PositionMovedError
from ml_assets.lake.names import (
    curated_table,
    daily_table,
    features_table,
    labels_table,
    landing_table,
    predictions_table,
    quarantine_table,
    reference_quarantine_table,
    reference_table,
    training_set_table,
)

__all__ = [
    "Appender",
    "DataFile",
    "Lake",
    "PositionMovedError",
    "curated_table",
    "daily_table",
    "features_table",
    "labels_table",
    "landing_table",
    "predictions_table",
    "quarantine_table",
    "reference_quarantine_table",
    "reference_table",
    "training_set_table",
]
