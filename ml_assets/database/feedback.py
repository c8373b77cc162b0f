"""Feedback in PostgreSQL: adding what people said, and reading it; see `models.Feedback`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.exc import ProgrammingError

from ml_assets.database.connect import begin
from ml_assets.database.models import Feedback
from ml_assets.errors import StateError
from ml_assets.predictions.feedback import Line, Said, Shown, by_entity, colleague, lease, why_not

_LINE: Final = tuple(Feedback.__table__.c[name] for name in Line.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Conflict:
    """What a person said and what a colleague had said of the same row: neither is lost, and the person decides."""

    yours: Said
    theirs: Line


@dataclass(frozen=True, slots=True)
class Written:
    """What became of what was said, by entity: the id of the line that was written, or why there is none.

    `repeated` had been written before with the same key, and are written once.
    """

    saved: Mapping[str, int] = field(default_factory=dict)
    repeated: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


def write_feedback(
    where: Engine | str,
    use_case: str,
    outcome_date: date,
    said: Sequence[tuple[Said, Shown]],
    *,
    now: datetime,
    lease_length: timedelta,
    causes: Collection[str],
) -> Written:
    """Add what was said of rows of a list, with what was shown of each; what cannot be said does not stop the rest.

    Who writes is alone on the list, so of two who claim one row the second sees the first. It is one transaction.

    Raises:
        StateError: this login may not write feedback.
    """
    saved: dict[str, int] = {}
    repeated: list[str] = []
    conflicts: list[Conflict] = []
    refused: dict[str, str] = {}
    try:
        with begin(where) as connection:
            connection.execute(
                text("SELECT public.feedback_hold(:use_case, :outcome_date)"),
                {"use_case": use_case, "outcome_date": outcome_date},
            )
            known = by_entity(_lines(connection, use_case, outcome_date, [one.entity_id for one, _ in said]))
            for one, shown in said:
                lines = known.get(one.entity_id, [])
                if any(line.request_key == one.request_key for line in lines):
                    repeated.append(one.entity_id)
                elif (theirs := colleague(one, lines, now)) is not None:
                    conflicts.append(Conflict(one, theirs))
                elif why := why_not(one, lines, now, causes):
                    refused[one.entity_id] = why
                else:
                    row = _row(use_case, outcome_date, one, shown, now, lease_length)
                    saved[one.entity_id] = connection.execute(
                        insert(Feedback).values(row).returning(Feedback.id)
                    ).scalar_one()
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == "42501":  # insufficient privilege
            raise StateError(
                "this login may not write feedback", to_do="members of the role ml_assets_desk may"
            ) from error
        raise
    return Written(saved, tuple(repeated), tuple(conflicts), refused)


def feedback_lines(
    where: Engine | str, use_case: str, outcome_date: date, entity_id: str = "", *, after: int = 0
) -> list[Line]:
    """Return what was said of a list, or of one of its rows, in order; of the lines behind `after` alone."""
    with begin(where) as connection:
        return _lines(connection, use_case, outcome_date, [entity_id] if entity_id else None, after)


def feedback_about(where: Engine | str, use_case: str, outcome_dates: Collection[date]) -> dict[date, list[Line]]:
    """Return what was said of the lists of some outcome dates, in order; a date of which nothing was is missing."""
    query = select(Feedback.outcome_date, *_LINE).where(
        Feedback.use_case == use_case, Feedback.outcome_date.in_(set(outcome_dates))
    )
    found: dict[date, list[Line]] = {}
    with begin(where) as connection:
        for row in connection.execute(query.order_by(Feedback.id)).mappings():
            said = dict(row)
            found.setdefault(said.pop("outcome_date"), []).append(Line(**said))
    return found


def ledger_after(where: Engine | str, use_case: str, after: int) -> list[dict[str, Any]]:
    """Return the lines of a use case whose id is above `after`, in order, each as its columns by name."""
    query = select(Feedback.__table__).where(Feedback.use_case == use_case, Feedback.id > after).order_by(Feedback.id)
    with begin(where) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _lines(
    connection: Connection, use_case: str, outcome_date: date, entities: Sequence[str] | None, after: int = 0
) -> list[Line]:
    query = select(*_LINE).where(
        Feedback.use_case == use_case, Feedback.outcome_date == outcome_date, Feedback.id > after
    )
    if entities is not None:
        query = query.where(Feedback.entity_id.in_(set(entities)))
    return [Line(**row) for row in connection.execute(query.order_by(Feedback.id)).mappings()]


def _row(
    use_case: str, outcome_date: date, said: Said, shown: Shown, now: datetime, lease_length: timedelta
) -> dict[str, Any]:
    return {
        "use_case": use_case,
        "outcome_date": outcome_date,
        "entity_id": said.entity_id,
        "what": said.what,
        "value": said.value,
        "note": said.note,
        "undoes": said.undoes,
        "actor": said.actor,
        "at": now,
        "until": lease(said, now, lease_length),
        "request_key": said.request_key,
        "decision_time": shown.decision_time,
        "shown_priority": shown.priority,
        "shown_probability": shown.probability,
        "shown_expected_cost": shown.expected_cost,
        "shown_cause": shown.cause,
        "model_version": shown.model_version,
        "mlflow_run_id": shown.mlflow_run_id,
        "cut_off_at": shown.cut_off_at,
    }
