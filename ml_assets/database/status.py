"""Small counts for `ml-assets status`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Engine, func, select

from ml_assets.database.connect import begin
from ml_assets.database.models import Prediction


@dataclass(frozen=True, slots=True)
class ScoredDate:
    """How many predictions a model version made for a decision date, and when."""

    use_case: str
    decision_date: date
    model_version: int
    predictions: int
    mean_probability: float
    expected_cost: float
    last_scored_at: datetime


def scored_dates(where: Engine | str, use_case: str | None = None, *, limit: int = 20) -> list[ScoredDate]:
    """Return the newest decision dates of one use case or of all, at most `limit` rows, newest first."""
    group = (Prediction.use_case, Prediction.decision_date, Prediction.model_version)
    query = (
        select(
            *group,
            func.count(),
            func.avg(Prediction.probability),
            func.sum(Prediction.expected_cost),
            func.max(Prediction.scored_at),
        )
        .group_by(*group)
        .order_by(Prediction.decision_date.desc(), Prediction.use_case, Prediction.model_version.desc())
        .limit(limit)
    )
    if use_case is not None:
        query = query.where(Prediction.use_case == use_case)
    with begin(where) as connection:
        return [ScoredDate(*row) for row in connection.execute(query)]
