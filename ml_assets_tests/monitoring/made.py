"""Outcomes made up for tests: the probabilities are true, unless a test says otherwise."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from ml_assets.calendars import BusinessCalendar
from ml_assets.monitoring.outcomes import BATCH, outcomes_schema
from ml_assets.spec import UseCase

CALENDAR = BusinessCalendar("ECB")
FIRST = date(2026, 1, 5)


def outcomes(
    usecase: UseCase,
    *,
    days: int = 10,
    per_day: int = 400,
    rate: float = 0.1,
    seed: int = 0,
    distort: Any = lambda p: p,
    waiting: int = 0,
    version: int = 1,
) -> pa.Table:
    """Return a matured window with one slot a day; the last `waiting` outcome dates have no labels yet.

    Outcomes are drawn from a true probability; the model says `distort` of it.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(days):
        day = CALENDAR.add(FIRST, number)
        due = CALENDAR.next(day)
        true = np.clip(rng.beta(0.6, 0.6 * (1 - rate) / rate, per_day), 1e-4, 0.999)
        said, failed = np.clip(distort(true), 0, 1), rng.random(per_day) < true
        cost = rng.uniform(100, 1000, per_day)
        rank = np.argsort(np.argsort(-said * cost, kind="stable")) + 1
        for i in range(per_day):
            complete = number < days - waiting
            rows.append(
                {
                    "use_case": usecase.name,
                    "stage": BATCH,
                    "entity_id": f"{day}-{i:05d}",
                    "decision_time": datetime.combine(day, time(7), tzinfo=UTC),
                    "decision_date": day,
                    "slot": "isd_morning",
                    "outcome_date": due,
                    "model_version": version,
                    "mlflow_run_id": f"run-{version}",
                    "probability": float(said[i]),
                    "cost_if_fail": float(cost[i]),
                    "expected_cost": float(said[i] * cost[i]),
                    "rank": int(rank[i]),
                    "on_list": bool(rank[i] <= usecase.capacity and usecase.action.pays(float(said[i] * cost[i]))),
                    "is_last": True,
                    "label": int(failed[i]) if complete else None,
                    "label_known_at": datetime.combine(due, time(20), tzinfo=UTC) if complete else None,
                    "known_date": due + timedelta(0) if complete else None,
                    "is_complete": complete,
                    "control": False,
                    "value_at_stake": 1000.0,
                    **{f"slice__{spec.name}": "ab"[i % 2] for spec in usecase.gate.slices},
                }
            )
    return pa.Table.from_pylist(rows, schema=outcomes_schema(usecase))
