"""Answers for tests."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from ml_assets.answers import ServedScore

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def answer(name: str, **changes: Any) -> ServedScore:
    """Return an answer on an entity of its own."""
    fields: dict[str, Any] = {
        "event_id": name, "event_time": NOON, "request_id": f"asked-{name}", "use_case": "settlement_fails",
        "entity_id": f"of-{name}", "slot": "open", "decision_time": NOON - timedelta(seconds=1),
        "outcome_date": date(2026, 1, 6), "probability": 0.25, "expected_cost": 10.0, "model_version": 1,
        "mlflow_run_id": "run1", "stage": "champion", "feature_set_hash": "f00", "what_if": False, "stale": False,
        "latency_ms": 1.5,
    }  # fmt: skip
    return ServedScore(**(fields | changes))
