"""Past cases that are like a decision: the nearest by their vectors. Searched with pgvector; see `models.PastCase`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from ml_assets.database.connect import begin
from ml_assets.errors import InputError, StateError
from ml_assets.spec import Cause

# How many numbers a vector has, those that are not used being 0: the index of revision 0015 is made for so many.
DIMENSIONS: Final = 64
# How many candidates the index looks at before they are filtered, and again until enough have passed; and at most.
_CANDIDATES: Final = 100
_MOST_CANDIDATES: Final = 1_000
# By the index, of numbers of half precision; and by going through all cases.
_INDEXED, _EXACT = "halfvec", "vector"
_NEAREST: Final = """
    SELECT
        nearest.entity_id, nearest.decision_time, nearest.slot, nearest.outcome_date, nearest.model_version,
        nearest.probability, nearest.expected_cost, nearest.on_list, nearest.control, nearest.label,
        nearest.label_known_at, nearest.distance, predictions.attributes, predictions.reason_codes,
        done.action_for, done.result
    FROM (
        SELECT *, vector::{kind} <-> CAST(:vector AS {kind}) AS distance
        FROM past_cases
        WHERE use_case = :use_case AND space = :space AND slot = :slot AND label_known_at <= :as_of
            AND (entity_id <> :entity_id OR outcome_date <> :outcome_date)
        ORDER BY vector::{kind} <-> CAST(:vector AS {kind})
        LIMIT :limit
    ) AS nearest
    LEFT JOIN predictions USING (use_case, decision_time, mlflow_run_id, entity_id)
    LEFT JOIN LATERAL (
        SELECT acted_on.action_for, acted_on.result FROM acted_on
        WHERE acted_on.use_case = nearest.use_case AND acted_on.outcome_date = nearest.outcome_date
            AND acted_on.entity_id = nearest.entity_id
    ) AS done ON true
    ORDER BY nearest.distance, nearest.decision_time DESC, nearest.entity_id
"""
_VERSION: Final = text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")


@dataclass(frozen=True, slots=True)
class SimilarCase:
    """A past decision, what was said of it, and what came of it.

    `label` 1 is what the use case predicts, such as a fail. `distance` is in log-odds. `attributes` and `reason_codes`
    are those of the prediction, None once it is past its retention; only what was listed has reasons. `action_for` is
    the cause for which somebody acted, as said at the desk, and `result` what he says came of it; None if nobody said.
    """

    entity_id: str
    decision_time: datetime
    slot: str
    outcome_date: date
    model_version: int
    probability: float
    expected_cost: float
    on_list: bool
    control: bool | None
    label: int
    label_known_at: datetime
    distance: float
    attributes: Mapping[str, Any] | None
    reason_codes: Mapping[str, Any] | None
    action_for: str | None
    result: str | None

    def done(self, causes: Sequence[Cause]) -> str:
        """Return what was done about it in words: as said at the desk, else as far as the list tells."""
        if self.action_for is None:
            return self.action or self.handling
        said = next((cause.action for cause in causes if cause.code == self.action_for), "something else")
        return f"{said}: {self.result}" if self.result else said

    @property
    def handling(self) -> str:
        """What was done about it, as far as the list tells: `on the list`, `usual way` (control group), or neither."""
        if self.on_list:
            return "usual way" if self.control else "on the list"
        return "not on the list"

    @property
    def action(self) -> str | None:
        """The action that the list proposed; None if it was not on the list, or no cause raised its probability."""
        return self.reason_codes.get("action") if self.handling == "on the list" and self.reason_codes else None


def similar_cases(
    where: Engine | Connection | str, use_case: str, space: str, vector: Sequence[float], *, slot: str, entity_id: str,
    outcome_date: date, as_of: datetime, limit: int = 10,
) -> list[SimilarCase]:  # fmt: skip
    """Return the past cases of a slot that are nearest to a decision, the nearest first.

    Only cases whose outcome was known by `as_of` count, and none of the decision's own entity about its own outcome
    date: that would be the same case.

    Raises:
        StateError: pgvector is not in the database.
    """
    asked = {
        "use_case": use_case, "space": space, "slot": slot, "entity_id": entity_id, "outcome_date": outcome_date,
        "as_of": as_of, "limit": limit, "vector": _literal(vector, "[]"),
    }  # fmt: skip
    found: list[SimilarCase] = []
    with begin(where) as connection:
        _prefer_index(connection, limit)
        for kind in (_INDEXED, _EXACT):
            query = text(_NEAREST.format(kind=f"{kind}({DIMENSIONS})"))
            found = [SimilarCase(**row) for row in connection.execute(query, asked).mappings()]
            if len(found) == limit:
                break  # else few pass the filter, as of a time long before the newest case: the index gives up early
    return found


def case_space(where: Engine | Connection | str, use_case: str) -> str | None:
    """Return the space of the newest past cases of a use case, None if there are none."""
    with begin(where) as connection:
        newest: str | None = connection.execute(
            text("SELECT space FROM past_cases WHERE use_case = :use_case ORDER BY outcome_date DESC LIMIT 1"),
            {"use_case": use_case},
        ).scalar()
        return newest


def count_cases(where: Engine | Connection | str, use_case: str) -> dict[str, int]:
    """Return how many past cases of a use case each space has."""
    with begin(where) as connection:
        rows = connection.execute(
            text("SELECT space, count(*) AS cases FROM past_cases WHERE use_case = :use_case GROUP BY space"),
            {"use_case": use_case},
        )
        return {row.space: row.cases for row in rows}


def make_room(where: Engine | str, use_case: str) -> bool:
    """Make the partition of a use case; return whether its cases are indexed."""
    with begin(where) as connection:
        return bool(
            connection.execute(text("SELECT past_cases_make_use_case(:use_case)"), {"use_case": use_case}).scalar()
        )


def outcome_dates_known_on(where: Engine | str, use_case: str, first: datetime, until: datetime) -> list[date]:
    """Return the outcome dates of the past cases whose outcomes became known from `first` on and before `until`."""
    with begin(where) as connection:
        rows = connection.execute(
            text(
                "SELECT DISTINCT outcome_date FROM past_cases "
                "WHERE use_case = :use_case AND label_known_at >= :first AND label_known_at < :until"
            ),
            {"use_case": use_case, "first": first, "until": until},
        )
        return list(rows.scalars())


def stored(vector: Sequence[float]) -> str:
    """Return a vector as the text that the column takes."""
    return _literal(vector, "{}")


def _literal(vector: Sequence[float], brackets: str) -> str:
    if len(vector) != DIMENSIONS:
        raise InputError(f"a vector has {DIMENSIONS} numbers, not {len(vector)}")
    return brackets[0] + ",".join(f"{value:.4g}" for value in vector) + brackets[1]


def _prefer_index(connection: Connection, limit: int) -> None:
    version = connection.execute(_VERSION).scalar()
    if version is None:
        raise StateError(
            "similar cases are searched with pgvector, which this database does not have",
            to_do="an administrator installs it on the server, then runs `ml-assets roles-sql` on the database",
        )
    # Without statistics, which a partition does not have at first, all cases would be sorted.
    connection.execute(text("SET LOCAL enable_sort = off"))
    connection.execute(text("SET LOCAL jit = off"))
    if _number(version) >= (0, 8):
        connection.execute(text(f"SET LOCAL hnsw.ef_search = {min(_MOST_CANDIDATES, max(_CANDIDATES, 2 * limit))}"))
        connection.execute(text("SET LOCAL hnsw.iterative_scan = strict_order"))


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
