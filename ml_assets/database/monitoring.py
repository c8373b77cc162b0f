"""What monitoring finds, in PostgreSQL, for SQL and for the sensor: copies that are replaced date by date."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import ColumnElement, Engine, delete, inspect, select, text

from ml_assets.database.connect import begin
from ml_assets.database.copying import copy_rows
from ml_assets.database.models import (
    Base,
    Drift,
    Estimate,
    Outcome,
    OutcomeCount,
    PastCase,
    Performance,
    RetrainingDecision,
    ShadowVerdictRow,
)
from ml_assets.errors import InputError

# By which date the rows of each table are replaced.
_DATE: Final[dict[type[Base], str]] = {
    Outcome: "outcome_date",
    OutcomeCount: "outcome_date",
    PastCase: "outcome_date",
    Performance: "outcome_date",
    Estimate: "outcome_date",
    RetrainingDecision: "decision_date",
    Drift: "decision_date",
    ShadowVerdictRow: "decision_date",
}


def replace_dates(where: Engine | str, table: type[Base], use_case: str, dates: Sequence[date], rows: pa.Table) -> None:
    """Replace the rows of a use case and some dates by `rows`, whose other columns are left out, in one transaction.

    Two that write to a table do it one after the other; readers see the rows from before until then.

    Raises:
        ValueError: `rows` lacks a column of the table.
    """
    columns = [column.name for column in table.__table__.columns]
    if missing := [name for name in columns if name not in rows.column_names]:
        raise InputError(f"rows for the table {table.__tablename__} lack the columns {', '.join(missing)}")
    day = getattr(table, _DATE[table])
    with begin(where) as connection:
        connection.execute(text(f"LOCK TABLE {table.__tablename__} IN SHARE ROW EXCLUSIVE MODE"))
        connection.execute(delete(table).where(table.__table__.c.use_case == use_case, day.in_(list(dates))))
        if rows.num_rows:
            copy_rows(connection, table.__tablename__, rows.select(columns))


def rows_between(
    where: Engine | str, table: type[Base], use_case: str, first: date, last: date
) -> list[dict[str, Any]]:
    """Return the rows of a use case from one date to another, both included, in order of their key."""
    day = getattr(table, _DATE[table])
    query = (
        select(table.__table__)
        .where(table.__table__.c.use_case == use_case, day >= first, day <= last)
        .order_by(*inspect(table).primary_key)
    )
    with begin(where) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def newest_retraining_decision(where: Engine | str, use_case: str) -> dict[str, Any] | None:
    """Return the decision on retraining of the newest date, None if nothing has been decided."""
    return _newest(where, RetrainingDecision, use_case)


def newest_shadow_verdict(where: Engine | str, use_case: str, run_id: str | None = None) -> dict[str, Any] | None:
    """Return the verdict on the model in the shadow of the newest date, None if nothing has been judged.

    With `run_id` it is that on the model of this MLflow run.
    """
    if run_id is None:
        return _newest(where, ShadowVerdictRow, use_case)
    return _newest(where, ShadowVerdictRow, use_case, ShadowVerdictRow.__table__.c.shadow_run_id == run_id)


def retire_outcomes(where: Engine | str, *, months: int, now: datetime) -> int:
    """Delete outcomes and past cases older than the last `months` full months (UTC) before this one.

    Return how many outcomes.

    The lake keeps them, as it does predictions.
    """
    number = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1 - months
    first = date(number // 12, number % 12 + 1, 1)
    with begin(where) as connection:
        connection.execute(delete(OutcomeCount).where(OutcomeCount.outcome_date < first))
        connection.execute(delete(PastCase).where(PastCase.outcome_date < first))
        return connection.execute(delete(Outcome).where(Outcome.outcome_date < first)).rowcount


def _newest(
    where: Engine | str, table: type[Base], use_case: str, *asked: ColumnElement[bool]
) -> dict[str, Any] | None:
    columns = table.__table__.c
    query = select(table.__table__).where(columns.use_case == use_case, *asked)
    with begin(where) as connection:
        row = connection.execute(query.order_by(columns[_DATE[table]].desc()).limit(1)).mappings().one_or_none()
        return dict(row) if row else None
