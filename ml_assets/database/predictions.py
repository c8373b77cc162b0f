"""Predictions into PostgreSQL, once: COPY into a staging table, then INSERT ... ON CONFLICT, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, Engine, text

from ml_assets.database.connect import begin
from ml_assets.database.copying import copy_rows
from ml_assets.database.models import Scoring
from ml_assets.database.schema import KEY, PREDICTIONS_SCHEMA, VALUE_COLUMNS
from ml_assets.errors import InputError
from ml_assets.spec import OutcomeDates

_COLUMNS: Final = ", ".join(PREDICTIONS_SCHEMA.names)
_CHANGED: Final = [name for name in PREDICTIONS_SCHEMA.names if name not in KEY]

_STAGE: Final = "CREATE TEMPORARY TABLE staged (LIKE predictions) ON COMMIT DROP"
# PostgreSQL has no statistics of a partitioned table that nobody analyzes, expects next to no row of it, and would go
# through all staged rows for each: before its version 16 a month's second scoring took minutes.
_INDEX: Final = f"CREATE UNIQUE INDEX ON staged ({', '.join(KEY)})"
_MAKE_MONTH: Final = text("SELECT predictions_make_month(:moment)")
# A row is written only if one of its values differs; the provenance alone is no reason. `known` is as it was before,
# since the whole statement sees one state. The bounds spare PostgreSQL the months that nothing is staged for.
_UPSERT: Final = text(f"""
    WITH known AS (
        SELECT {", ".join(KEY)} FROM predictions JOIN staged USING ({", ".join(KEY)})
        WHERE predictions.decision_time
            BETWEEN (SELECT min(decision_time) FROM staged) AND (SELECT max(decision_time) FROM staged)
    ), written AS (
        INSERT INTO predictions AS before ({_COLUMNS})
        SELECT {_COLUMNS} FROM staged
        ON CONFLICT ({", ".join(KEY)}) DO UPDATE
        SET ({", ".join(_CHANGED)}) = ROW ({", ".join(f"excluded.{name}" for name in _CHANGED)})
        WHERE ({", ".join(f"before.{name}" for name in VALUE_COLUMNS)})
            IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in VALUE_COLUMNS)})
        RETURNING {", ".join(f"before.{name}" for name in KEY)}
    )
    SELECT count(*) FILTER (WHERE known.use_case IS NULL), count(known.use_case)
    FROM written LEFT JOIN known USING ({", ".join(KEY)})
""")
_STAGE_SCORED: Final = """
    CREATE TEMPORARY TABLE scored (LIKE scorings, whole boolean NOT NULL, PRIMARY KEY (use_case, decision_time))
    ON COMMIT DROP
"""
_ADD_SCORED: Final = text("""
    INSERT INTO scored (use_case, decision_time, model_version, mlflow_run_id, decides, whole)
    VALUES (
        :use_case, :decision_time, :model_version, :mlflow_run_id,
        CASE WHEN CAST(:first AS date) IS NOT NULL THEN daterange(CAST(:first AS date), CAST(:last AS date), '[]') END,
        true
    )
""")
_ADD_PARTS: Final = text("""
    INSERT INTO scored (use_case, decision_time, model_version, mlflow_run_id, whole)
    SELECT DISTINCT use_case, decision_time, model_version, mlflow_run_id, false FROM staged
    ON CONFLICT DO NOTHING
""")
_DELETE_UNDECIDED: Final = text("""
    DELETE FROM predictions AS before
    USING scored
    WHERE scored.whole
        AND (before.use_case, before.decision_time, before.mlflow_run_id)
            = (scored.use_case, scored.decision_time, scored.mlflow_run_id)
        AND before.decision_time
            BETWEEN (SELECT min(decision_time) FROM scored) AND (SELECT max(decision_time) FROM scored)
        AND NOT EXISTS (
            SELECT FROM staged
            WHERE (staged.use_case, staged.entity_id, staged.decision_time, staged.mlflow_run_id)
                = (before.use_case, before.entity_id, before.decision_time, before.mlflow_run_id)
        )
""")
_SPOKEN: Final = tuple(column.name for column in Scoring.__table__.columns)
# Of a part nobody knows whether the rest is closed: what was decided as a whole stays so for the model that did it.
_SPEAK: Final = text(f"""
    INSERT INTO scorings AS before ({", ".join(_SPOKEN)})
    SELECT use_case, decision_time, scored.model_version, scored.mlflow_run_id,
        CASE WHEN whole THEN scored.decides WHEN known.mlflow_run_id = scored.mlflow_run_id THEN known.decides END,
        added.slot, added.decision_date, added.decisions, added.mean_probability
    FROM scored LEFT JOIN scorings AS known USING (use_case, decision_time) CROSS JOIN LATERAL (
        SELECT min(slot) AS slot, min(decision_date) AS decision_date, count(*) AS decisions,
            avg(probability::numeric)::double precision AS mean_probability
        FROM predictions AS p
        WHERE (p.use_case, p.decision_time, p.mlflow_run_id)
            = (scored.use_case, scored.decision_time, scored.mlflow_run_id)
    ) AS added
    ON CONFLICT (use_case, decision_time) DO UPDATE
    SET ({", ".join(_SPOKEN[2:])}) = ROW ({", ".join(f"excluded.{name}" for name in _SPOKEN[2:])})
    WHERE ({", ".join(f"before.{name}" for name in _SPOKEN[2:])})
        IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in _SPOKEN[2:])})
""")


@dataclass(frozen=True, slots=True)
class ScoredTime:
    """A decision time that a model has scored as a whole, whether anything was open or not.

    `decides` are the outcome dates of which everything open was decided, None if of none.
    """

    use_case: str
    decision_time: datetime
    model_version: int
    mlflow_run_id: str
    decides: OutcomeDates | None = None


@dataclass(frozen=True, slots=True)
class UpsertCount:
    """How many of the given rows were written or unchanged, and how many others were deleted."""

    inserted: int
    updated: int
    unchanged: int
    deleted: int = 0


def upsert_predictions(where: Engine | str, rows: pa.Table, *, scored: Sequence[ScoredTime] = ()) -> UpsertCount:
    """Write predictions, leave equal ones untouched, and make their model the one that counts at their decision times.

    `rows` are in `PREDICTIONS_SCHEMA`. At the decision times in `scored` they are all that was decided: predictions of
    the same use case, decision time and model for other entities are deleted, and the outcome dates in `decides` are
    noted, by which earlier decisions leave the work-list. Rows of other decision times are parts. Writing the same
    twice changes nothing the second time, whatever the provenance says.

    Raises:
        ValueError: columns are missing, a required value is null, a key is given twice, or two models score one
            decision time.
        psycopg.DataError: PostgreSQL refuses a value; the message has column and line.
    """
    staged = _checked(rows, scored)
    if staged.num_rows == 0 and not scored:
        return UpsertCount(0, 0, 0)
    with begin(where) as connection:  # for itself, since a new month keeps readers out until it is committed
        for month in pc.unique(pc.floor_temporal(staged["decision_time"], unit="month")).to_pylist():
            connection.execute(_MAKE_MONTH, {"moment": month})
    with begin(where) as connection:
        _stage(connection, staged, scored)
        deleted = connection.execute(_DELETE_UNDECIDED).rowcount if scored else 0
        inserted, updated = connection.execute(_UPSERT).one()
        connection.execute(_SPEAK)
    return UpsertCount(inserted, updated, staged.num_rows - inserted - updated, deleted)


def retire_predictions(where: Engine | str, *, months: int, now: datetime) -> list[str]:
    """Drop the predictions older than the last `months` full months (UTC) before this one; return their tables' names.

    The lake keeps them: PostgreSQL serves the work-list, reports and `explain-prediction`.
    """
    number = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1 - months
    first = datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
    with begin(where) as connection:
        return list(connection.execute(text("SELECT predictions_drop_months(:first)"), {"first": first}).scalars())


def scored_data_versions(where: Engine | str, use_case: str) -> list[tuple[date, Mapping[str, int]]]:
    """Return the Delta versions by table that the predictions of each decision date were made from, each set once."""
    with begin(where) as connection:
        rows = connection.execute(
            text("SELECT DISTINCT decision_date, data_versions FROM predictions WHERE use_case = :use_case"),
            {"use_case": use_case},
        )
        return [(day, versions) for day, versions in rows]


def find_prediction(
    where: Engine | str, use_case: str, entity_id: str, decision_time: datetime | None = None
) -> dict[str, Any] | None:
    """Return the row that counts for an entity, at its newest decision or at the given one; None if there is none."""
    with begin(where) as connection:
        row = connection.execute(
            text(
                "SELECT predictions.* FROM predictions JOIN scorings USING (use_case, decision_time, mlflow_run_id) "
                "WHERE use_case = :use_case AND entity_id = :entity_id "
                "AND (CAST(:decision_time AS timestamptz) IS NULL OR decision_time = :decision_time) "
                "ORDER BY decision_time DESC LIMIT 1"
            ),
            {"use_case": use_case, "entity_id": entity_id, "decision_time": decision_time},
        )
        found = row.mappings().one_or_none()
        return dict(found) if found else None


def decisions_of(where: Engine | str, use_case: str, outcome_date: date, entity_id: str) -> list[dict[str, Any]]:
    """Return the rows that count for an entity and an outcome date, one for each decision time, the oldest first."""
    with begin(where) as connection:
        rows = connection.execute(
            text(
                "SELECT predictions.* FROM predictions JOIN scorings USING (use_case, decision_time, mlflow_run_id) "
                "WHERE use_case = :use_case AND outcome_date = :outcome_date AND entity_id = :entity_id "
                "ORDER BY decision_time"
            ),
            {"use_case": use_case, "outcome_date": outcome_date, "entity_id": entity_id},
        )
        return [dict(row) for row in rows.mappings()]


def _stage(connection: Connection, rows: pa.Table, scored: Sequence[ScoredTime]) -> None:
    connection.execute(text(_STAGE))
    copy_rows(connection, "staged", rows)
    connection.execute(text(_INDEX))
    connection.execute(text(_STAGE_SCORED))
    if scored:
        connection.execute(_ADD_SCORED, [_scored_row(one) for one in scored])
    connection.execute(_ADD_PARTS)
    connection.execute(text("ANALYZE staged, scored"))


def _scored_row(scored: ScoredTime) -> dict[str, Any]:
    decides = scored.decides
    return {
        "use_case": scored.use_case,
        "decision_time": scored.decision_time,
        "model_version": scored.model_version,
        "mlflow_run_id": scored.mlflow_run_id,
        "first": decides.first if decides else None,
        "last": decides.last if decides else None,
    }


def _checked(rows: pa.Table, scored: Sequence[ScoredTime]) -> pa.Table:
    if missing := [name for name in PREDICTIONS_SCHEMA.names if name not in rows.column_names]:
        raise InputError(f"predictions lack the columns {', '.join(missing)}; see PREDICTIONS_SCHEMA")
    rows = rows.select(PREDICTIONS_SCHEMA.names)
    for field in PREDICTIONS_SCHEMA:
        if not field.nullable and rows.column(field.name).null_count:
            raise InputError(f"predictions have {rows.column(field.name).null_count} nulls in {field.name}")
    rows = rows.cast(PREDICTIONS_SCHEMA)
    if rows.group_by(list(KEY)).aggregate([]).num_rows < rows.num_rows:
        raise InputError(f"predictions have the same {', '.join(KEY)} more than once")
    model = ["use_case", "decision_time", "mlflow_run_id", "model_version"]
    models = {tuple(row.values()) for row in rows.group_by(model).aggregate([]).select(model).to_pylist()}
    models |= {(one.use_case, one.decision_time, one.mlflow_run_id, one.model_version) for one in scored}
    if len({key[:2] for key in models}) < len(models):
        raise InputError("predictions of one decision time come from two models; write one after the other")
    # In one order, two writers of the same rows wait for one another and do not deadlock.
    return rows.sort_by([(name, "ascending") for name in KEY])
