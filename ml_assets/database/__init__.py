"""The application's PostgreSQL database: predictions, the work-list, and the migrations that make them."""

from ml_assets.database.connect import connect
from ml_assets.database.migrate import downgrade, migrate
from ml_assets.database.predictions import UpsertCount, upsert_predictions
from ml_assets.database.schema import PREDICTIONS_SCHEMA
from ml_assets.database.status import ScoredDate, scored_dates
from ml_assets.database.work_list import next_outcome_date, work_list

__all__ = [
    "PREDICTIONS_SCHEMA",
    "ScoredDate",
    "UpsertCount",
    "connect",
    "downgrade",
    "migrate",
    "next_outcome_date",
    "scored_dates",
    "upsert_predictions",
    "work_list",
]
