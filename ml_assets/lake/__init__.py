"""The lake: Delta tables in a folder or on S3. It knows rows and partitions, and nothing about models or Dagster."""

from ml_assets.lake.lake import (
    Appender,
    DataFile,
    ForeignTableError,
    Lake,
    PartitionBusyError,
    PositionMovedError,
    RangedFile,
)
from ml_assets.lake.names import (
    curated_table,
    daily_table,
    decision_times_table,
    features_table,
    labels_table,
    landing_table,
    outcomes_table,
    predictions_table,
    quarantine_table,
    reference_quarantine_table,
    reference_table,
    tables_of,
    training_set_table,
)

__all__ = [
    "Appender",
    "DataFile",
    "ForeignTableError",
    "Lake",
    "PartitionBusyError",
    "PositionMovedError",
    "RangedFile",
    "curated_table",
    "daily_table",
    "decision_times_table",
    "features_table",
    "labels_table",
    "landing_table",
    "outcomes_table",
    "predictions_table",
    "quarantine_table",
    "reference_quarantine_table",
    "reference_table",
    "tables_of",
    "training_set_table",
]
