"""The work-list as a reader sees it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Engine, text

from ml_assets.database.connect import begin
from ml_assets.spec import FREE_ACTION, ActionSpec


def next_outcome_date(where: Engine | str, use_case: str) -> date | None:
    """Return the first date whose outcome is open after the newest decisions, or None if nothing has been scored.

    Decisions look one or more days ahead: of these, the next day's work-list is complete and the most urgent. A scoring
    at which nothing was open counts as decisions too.
    """
    with begin(where) as connection:
        following: date | None = connection.execute(
            text(
                "SELECT coalesce("
                "(SELECT min(outcome_date) FROM predictions WHERE use_case = :use_case AND outcome_date > ("
                "SELECT max(decision_time AT TIME ZONE 'UTC')::date FROM scorings WHERE use_case = :use_case)), "
                "(SELECT max(outcome_date) FROM predictions WHERE use_case = :use_case))"
            ),
            {"use_case": use_case},
        ).scalar()
        return following


def left_work_list(where: Engine | str, use_case: str, decision_times: Sequence[datetime]) -> int:
    """Return how many entities these scorings removed from work-lists: decided before, and no longer open.

    An entity that is on the lists of two outcome dates counts twice.
    """
    with begin(where) as connection:
        left: int = connection.execute(
            text("""
                SELECT count(DISTINCT (before.outcome_date, before.entity_id, scored.decision_time))
                FROM scorings AS scored
                JOIN predictions AS before
                    ON before.use_case = scored.use_case AND before.decision_time < scored.decision_time
                    AND scored.decides @> before.outcome_date
                JOIN scorings AS speaking
                    ON (speaking.use_case, speaking.decision_time, speaking.mlflow_run_id)
                        = (before.use_case, before.decision_time, before.mlflow_run_id)
                WHERE scored.use_case = :use_case AND scored.decision_time = ANY(:times)
                    AND NOT EXISTS (
                        SELECT FROM scorings AS between_them
                        WHERE between_them.use_case = :use_case AND between_them.decides @> before.outcome_date
                            AND between_them.decision_time > before.decision_time
                            AND between_them.decision_time < scored.decision_time)
                    AND NOT EXISTS (
                        SELECT FROM predictions AS now
                        WHERE (now.use_case, now.decision_time, now.mlflow_run_id, now.entity_id, now.outcome_date)
                            = (:use_case, scored.decision_time, scored.mlflow_run_id, before.entity_id,
                                before.outcome_date))
            """),
            {"use_case": use_case, "times": list(decision_times)},
        ).scalar_one()
        return left


def work_list(
    where: Engine | str, use_case: str, outcome_date: date, limit: int, action: ActionSpec = FREE_ACTION
) -> list[dict[str, Any]]:
    """Return the first `limit` rows of the view `work_list`, by priority, each as its columns by name.

    The view holds what is still open; see `predictions.work_list`. `limit` is the team's capacity. Rows that are not
    worth acting on (`action.pays`) are left out. `attributes` and `reason_codes` are decoded JSON, or None.
    """
    with begin(where) as connection:
        rows = connection.execute(
            text(
                "SELECT * FROM work_list WHERE use_case = :use_case AND outcome_date = :outcome_date "
                "ORDER BY priority LIMIT :limit"
            ),
            {"use_case": use_case, "outcome_date": outcome_date, "limit": limit},
        )
        return [dict(row) for row in rows.mappings() if action.pays(row["expected_cost"])]
