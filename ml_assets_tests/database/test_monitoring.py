"""What monitoring finds is replaced date by date."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from ml_assets.database.models import Outcome, RetrainingDecision
from ml_assets.database.monitoring import replace_dates, retire_outcomes, rows_between

MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)


def decisions(*days: date, use_case: str = "fails", reason: str = 'quiet, "so far"') -> pa.Table:
    rows = [
        {
            "use_case": use_case,
            "decision_date": day,
            "outcome": "wait",
            "reason": reason,
            "numbers": '{"breaches": 0}',
            "decided_at": datetime(2026, 1, 7, tzinfo=UTC),
            "dagster_run_id": "run",
            "more": 1,
        }
        for day in days
    ]
    empty = {column.name: [] for column in RetrainingDecision.__table__.columns}
    return pa.Table.from_pylist(rows) if rows else pa.table(empty)


def found(url: str, use_case: str = "fails") -> list[tuple[date, str]]:
    rows = rows_between(url, RetrainingDecision, use_case, MONDAY, TUESDAY)
    return [(row["decision_date"], row["reason"]) for row in rows]


def test_only_the_dates_and_the_use_case_that_are_named_are_replaced(application_url: str) -> None:
    replace_dates(application_url, RetrainingDecision, "fails", [MONDAY, TUESDAY], decisions(MONDAY, TUESDAY))
    replace_dates(application_url, RetrainingDecision, "other", [MONDAY], decisions(MONDAY, use_case="other"))
    replace_dates(application_url, RetrainingDecision, "fails", [MONDAY], decisions(MONDAY, reason="anew"))
    assert found(application_url) == [(MONDAY, "anew"), (TUESDAY, 'quiet, "so far"')]
    replace_dates(application_url, RetrainingDecision, "fails", [TUESDAY], decisions())
    assert found(application_url) == [(MONDAY, "anew")]
    assert found(application_url, "other") == [(MONDAY, 'quiet, "so far"')]
    (row,) = rows_between(application_url, RetrainingDecision, "fails", MONDAY, MONDAY)
    assert row["numbers"] == {"breaches": 0}


def test_rows_that_lack_a_column_replace_nothing(application_url: str) -> None:
    replace_dates(application_url, RetrainingDecision, "fails", [MONDAY], decisions(MONDAY))
    with pytest.raises(ValueError, match="retraining_decisions lack the columns reason"):
        replace_dates(
            application_url, RetrainingDecision, "fails", [MONDAY], decisions(MONDAY).drop_columns(["reason"])
        )
    assert len(found(application_url)) == 1


@pytest.mark.parametrize(("months", "kept"), [(0, 0), (1, 1), (2, 2)])
def test_outcomes_go_with_the_predictions_of_their_months(application_url: str, months: int, kept: int) -> None:
    days = [date(2026, 1, 31), date(2026, 2, 1)]
    rows = [
        {
            "use_case": "fails",
            "outcome_date": day,
            "stage": "batch",
            "entity_id": "A",
            "decision_time": datetime(2026, 1, 5, tzinfo=UTC),
            "decision_date": MONDAY,
            "slot": "morning",
            "model_version": 1,
            "probability": 0.5,
            "cost_if_fail": 1.0,
            "expected_cost": 0.5,
            "on_list": True,
            "is_last": True,
            "control": False,
            "label": None,
            "label_known_at": None,
            "is_complete": False,
        }
        for day in days
    ]
    replace_dates(application_url, Outcome, "fails", days, pa.Table.from_pylist(rows))
    assert retire_outcomes(application_url, months=months, now=datetime(2026, 3, 15, tzinfo=UTC)) == 2 - kept
    left = rows_between(application_url, Outcome, "fails", *days)
    assert [row["outcome_date"] for row in left] == days[2 - kept :]
