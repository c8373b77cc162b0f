"""The work-list shows each entity once: its latest decision by the version that speaks for it."""

from datetime import UTC, date, datetime

from sqlalchemy import text

from ml_assets.database import next_outcome_date, scored_dates, upsert_predictions, work_list
from ml_assets.database.connect import begin
from ml_assets_tests.database.factories import OUTCOME_DATE, prediction, predictions


def shown(url: str, limit: int = 10) -> list[tuple[object, ...]]:
    rows = work_list(url, "fails", OUTCOME_DATE, limit)
    return [(row["priority"], row["entity_id"], row["expected_cost"], row["model_version"]) for row in rows]


def test_dearest_first_ties_by_entity_cut_at_capacity(application_url: str) -> None:
    upsert_predictions(application_url, predictions(prediction("C", 0.2), prediction("B", 0.2), prediction("A", 0.1)))
    assert shown(application_url) == [(1, "B", 200.0, 1), (2, "C", 200.0, 1), (3, "A", 100.0, 1)]
    assert shown(application_url, limit=1) == [(1, "B", 200.0, 1)]
    assert work_list(application_url, "fails", date(2026, 1, 7), 10) == []
    assert work_list(application_url, "fails", OUTCOME_DATE, 1)[0]["attributes"]["isin"] == "DE000A1EWWW0"


def test_a_later_decision_replaces_an_earlier_one(application_url: str) -> None:
    afternoon = datetime(2026, 1, 5, 15, tzinfo=UTC)
    upsert_predictions(application_url, predictions(prediction("A", 0.1, decision_time=afternoon)))
    upsert_predictions(application_url, predictions(prediction("A", 0.9), prediction("B", 0.5)))
    assert shown(application_url) == [(1, "B", 500.0, 1), (2, "A", 100.0, 1)]


def test_a_new_champion_and_a_rollback_each_take_the_list_over(application_url: str) -> None:
    """Guards the rollback: the old version's rows are unchanged and so older than those of the failed one."""
    old = predictions(prediction("A", 0.1))
    new = predictions(prediction("A", 0.9, model_version=2, scored_at=datetime(2026, 2, 1, tzinfo=UTC)))
    upsert_predictions(application_url, old)
    upsert_predictions(application_url, new)
    assert shown(application_url) == [(1, "A", 900.0, 2)]
    assert upsert_predictions(application_url, old).unchanged == 1
    assert shown(application_url) == [(1, "A", 100.0, 1)]


def test_a_reader_s_filter_reaches_the_index(application_url: str) -> None:
    """Guards against a view that sorts all of history for one morning's list."""
    rows = [prediction(f"E{n}", outcome_date=date(2026, 1, 1 + n % 28)) for n in range(3000)]
    upsert_predictions(application_url, predictions(*rows))
    with begin(application_url) as connection:
        connection.execute(text("ANALYZE predictions"))
        plan = "\n".join(
            connection.execute(
                text("EXPLAIN SELECT * FROM work_list WHERE use_case = 'fails' AND outcome_date = '2026-01-06'")
            ).scalars()
        )
    assert "on predictions_2026_01_use_case_outcome_date" in plan, plan
    assert "Seq Scan on predictions" not in plan


def test_status_counts_by_date_and_version(application_url: str) -> None:
    assert scored_dates(application_url) == []
    assert next_outcome_date(application_url, "fails") is None
    upsert_predictions(application_url, predictions(prediction("A", 0.25), prediction("B", 0.75)))
    upsert_predictions(application_url, predictions(prediction("A", 0.5, use_case="other")))
    (row,) = scored_dates(application_url, "fails")
    assert (row.predictions, row.mean_probability, row.expected_cost) == (2, 0.5, 1000.0)
    assert len(scored_dates(application_url)) == 2
    assert next_outcome_date(application_url, "fails") == OUTCOME_DATE
