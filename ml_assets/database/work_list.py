"""The work-list as a reader sees it."""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import Engine, text

from ml_assets.database.connect import begin


def next_outcome_date(where: Engine | str, use_case: str) -> date | None:
    """Return the first date whose outcome is open after the newest decisions, or None if nothing has been scored.

    Decisions look one or more days ahead: of these, the next day's work-list is complete and the most urgent.
    """
    with begin(where) as connection:
        following: date | None = connection.execute(
            text(
                "SELECT coalesce(min(outcome_date) FILTER (WHERE outcome_date > newest), max(outcome_date)) "
                "FROM predictions, "
                "(SELECT max(decision_date) AS newest FROM predictions WHERE use_case = :use_case) AS newest_decision "
                "WHERE use_case = :use_case"
            ),
            {"use_case": use_case},
        ).scalar()
        return following


def work_list(where: Engine | str, use_case: str, outcome_date: date, limit: int) -> list[dict[str, Any]]:
    """Return the `limit` dearest rows of the view `work_list`, by priority, each as its columns by name.

    `limit` is the team's capacity. `attributes` and `reason_codes` are decoded JSON, or None.
    """
    with begin(where) as connection:
        rows = connection.execute(
            text(
                "SELECT * FROM work_list WHERE use_case = :use_case AND outcome_date = :outcome_date "
                "ORDER BY priority LIMIT :limit"
            ),
            {"use_case": use_case, "outcome_date": outcome_date, "limit": limit},
        )
        return [dict(row) for row in rows.mappings()]
