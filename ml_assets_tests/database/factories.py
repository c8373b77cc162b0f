"""Predictions made up for tests."""

import json
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from ml_assets.database.predictions import ScoredTime
from ml_assets.database.schema import PREDICTIONS_SCHEMA
from ml_assets.spec import OutcomeDates

DECISION_TIME = datetime(2026, 1, 5, 7, tzinfo=UTC)
OUTCOME_DATE = date(2026, 1, 6)


def prediction(entity: str, probability: float = 0.5, **changes: object) -> dict[str, object]:
    """A row of `PREDICTIONS_SCHEMA` that costs 1,000 if it fails; each version of the model has a run of its own."""
    row: dict[str, object] = {
        "use_case": "fails",
        "entity_id": entity,
        "decision_time": DECISION_TIME,
        "model_version": 1,
        "decision_date": DECISION_TIME.date(),
        "slot": "morning",
        "outcome_date": OUTCOME_DATE,
        "probability": probability,
        "cost_if_fail": 1000.0,
        "expected_cost": 1000.0 * probability,
        "rank": 1,
        "reason_codes": None,
        "attributes": json.dumps({"isin": "DE000A1EWWW0", "note": 'a "quoted", text'}),
        "model_name": "fails",
        "mlflow_run_id": f"run-of-model-{changes.get('model_version', 1)}",
        "feature_set_hash": "0123456789ab",
        "data_versions": json.dumps({"features/fails": 3}),
        "git_commit": "c0ffee",
        "dagster_run_id": "first",
        "scored_at": DECISION_TIME + timedelta(minutes=1),
    }
    return row | changes


def predictions(*rows: dict[str, object]) -> pa.Table:
    """The rows as a table."""
    return pa.Table.from_pylist(list(rows), schema=PREDICTIONS_SCHEMA)


def scored(at: datetime = DECISION_TIME, decides: OutcomeDates | None = None, model: int = 1) -> ScoredTime:
    """A decision time that a version of the model has scored as a whole."""
    return ScoredTime("fails", at, model, f"run-of-model-{model}", decides)
