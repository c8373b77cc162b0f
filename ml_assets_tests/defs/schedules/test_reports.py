"""Which reports are made on which morning."""

from datetime import UTC, date, datetime

import dagster as dg
import pytest

from ml_assets.defs.schedules import report_schedule
from ml_assets.lifecycle.reports import report_of
from ml_assets.reports.spec import due_date
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

FRIDAY, MONDAY, TUESDAY = date(2026, 1, 30), date(2026, 2, 2), date(2026, 2, 3)


@pytest.mark.parametrize(
    ("name", "today", "due"),
    [
        ("daily_operations", MONDAY, MONDAY),
        ("penalty_cost", MONDAY, FRIDAY),
        ("penalty_cost", TUESDAY, MONDAY),
        ("model_performance", MONDAY, FRIDAY),
        ("model_performance", TUESDAY, None),
    ],
)
def test_a_report_is_due_once_its_time_is_over(name: str, today: date, due: date | None) -> None:
    """Guards a page of a day or month that is not over, which would be another one in the evening."""
    assert due_date(report_of(USE_CASE, name), today) == due


def test_the_schedule_asks_for_each_date_once() -> None:
    def asked(today: date) -> dict[str, set[str]]:
        context = dg.build_schedule_context(
            scheduled_execution_time=datetime(today.year, today.month, today.day, 8, 15, tzinfo=UTC)
        )
        made = list(report_schedule(USE_CASE)(context))
        assert len({request.run_key for request in made}) == len(made)
        return {request.partition_key: {key.path[-1] for key in request.asset_selection} for request in made}

    daily = {"penalty_cost", "acted_on", "data_quality", "feed_lateness"}
    assert asked(TUESDAY) == {"2026-02-03": {"daily_operations"}, "2026-02-02": daily}
    assert asked(MONDAY) == {
        "2026-02-02": {"daily_operations"},
        "2026-01-30": {*daily, "alert_history", "model_performance", "promotion_history"},
    }
