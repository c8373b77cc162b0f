"""Predictions into PostgreSQL, once: COPY into a staging table, then INSERT ... ON CONFLICT, in one transaction."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from sqlalchemy import Connection, Engine, text

from ml_assets.database.connect import begin
from ml_assets.database.schema import KEY, PREDICTIONS_SCHEMA, VALUE_COLUMNS

_COLUMNS: Final = ", ".join(PREDICTIONS_SCHEMA.names)
_CHANGED: Final = [name for name in PREDICTIONS_SCHEMA.names if name not in KEY]

_STAGE: Final = "CREATE TEMPORARY TABLE staged (LIKE predictions) ON COMMIT DROP"
_COPY: Final = f"COPY staged ({_COLUMNS}) FROM STDIN (FORMAT csv)"
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
_DELETE_UNDECIDED: Final = text("""
    DELETE FROM predictions AS before
    USING (SELECT DISTINCT use_case, decision_time, model_version FROM staged) AS scored
    WHERE (before.use_case, before.decision_time, before.model_version)
            = (scored.use_case, scored.decision_time, scored.model_version)
        AND before.decision_time
            BETWEEN (SELECT min(decision_time) FROM staged) AND (SELECT max(decision_time) FROM staged)
        AND NOT EXISTS (
            SELECT FROM staged
            WHERE (staged.use_case, staged.entity_id, staged.decision_time, staged.model_version)
                = (before.use_case, before.entity_id, before.decision_time, before.model_version)
        )
""")
_SPEAK: Final = text("""
    INSERT INTO scorings AS before (use_case, decision_time, model_version)
    SELECT DISTINCT use_case, decision_time, model_version FROM staged
    ON CONFLICT (use_case, decision_time) DO UPDATE SET model_version = excluded.model_version
    WHERE before.model_version <> excluded.model_version
""")


@dataclass(frozen=True, slots=True)
class UpsertCount:
    """What became of the rows that were given, and how many others were deleted."""

    inserted: int
    updated: int
    unchanged: int
    deleted: int = 0


def upsert_predictions(where: Engine | str, rows: pa.Table, *, complete: bool = False) -> UpsertCount:
    """Write predictions, leave equal ones untouched, and let their model version speak for their decision times.

    `rows` are in `PREDICTIONS_SCHEMA`. With `complete` they are all that was decided at their decision times, and
    predictions of the same use case, decision time and model version for other entities are deleted. Writing the
    same rows twice changes nothing the second time, whatever their provenance says.

    Raises:
        ValueError: columns are missing, a required value is null, a key is given twice, or two model versions
            score one decision time.
        psycopg.DataError: PostgreSQL refuses a value; the message has column and line.
    """
    staged = _checked(rows)
    if staged.num_rows == 0:
        return UpsertCount(0, 0, 0)
    with begin(where) as connection:  # for itself, since a new month keeps readers out until it is committed
        for month in pc.unique(pc.floor_temporal(staged["decision_time"], unit="month")).to_pylist():
            connection.execute(_MAKE_MONTH, {"moment": month})
    with begin(where) as connection:
        _stage(connection, staged)
        deleted = connection.execute(_DELETE_UNDECIDED).rowcount if complete else 0
        inserted, updated = connection.execute(_UPSERT).one()
        connection.execute(_SPEAK)
    return UpsertCount(inserted, updated, staged.num_rows - inserted - updated, deleted)


def retire_predictions(where: Engine | str, *, months: int, now: datetime) -> list[str]:
    """Drop the predictions of all months (UTC) but so many full ones before this; return the names of their tables.

    The lake keeps them: this is what the work-list, reports and `explain-prediction` look at.
    """
    number = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1 - months
    first = datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
    with begin(where) as connection:
        return list(connection.execute(text("SELECT predictions_drop_months(:first)"), {"first": first}).scalars())


def scored_data_versions(where: Engine | str, use_case: str) -> list[str]:
    """Return the Delta versions that the predictions of a use case were made from: JSON, by table, each set once."""
    with begin(where) as connection:
        rows = connection.execute(
            text("SELECT DISTINCT data_versions::text FROM predictions WHERE use_case = :use_case"),
            {"use_case": use_case},
        )
        return [str(versions) for (versions,) in rows]


def find_prediction(
    where: Engine | str, use_case: str, entity_id: str, decision_time: datetime | None = None
) -> dict[str, Any] | None:
    """Return the row that speaks for an entity, at its newest decision or at the given one; None if there is none."""
    with begin(where) as connection:
        row = connection.execute(
            text(
                "SELECT predictions.* FROM predictions JOIN scorings USING (use_case, decision_time, model_version) "
                "WHERE use_case = :use_case AND entity_id = :entity_id "
                "AND (CAST(:decision_time AS timestamptz) IS NULL OR decision_time = :decision_time) "
                "ORDER BY decision_time DESC LIMIT 1"
            ),
            {"use_case": use_case, "entity_id": entity_id, "decision_time": decision_time},
        )
        found = row.mappings().one_or_none()
        return dict(found) if found else None


def _stage(connection: Connection, rows: pa.Table) -> None:
    connection.execute(text(_STAGE))
    _copy(connection, rows)
    connection.execute(text(_INDEX))
    connection.execute(text("ANALYZE staged"))


def _checked(rows: pa.Table) -> pa.Table:
    if missing := [name for name in PREDICTIONS_SCHEMA.names if name not in rows.column_names]:
        raise ValueError(f"predictions lack the columns {', '.join(missing)}; see PREDICTIONS_SCHEMA")
    rows = rows.select(PREDICTIONS_SCHEMA.names)
    for field in PREDICTIONS_SCHEMA:
        if not field.nullable and rows.column(field.name).null_count:
            raise ValueError(f"predictions have {rows.column(field.name).null_count} nulls in {field.name}")
    rows = rows.cast(PREDICTIONS_SCHEMA)
    if rows.group_by(list(KEY)).aggregate([]).num_rows < rows.num_rows:
        raise ValueError(f"predictions have the same {', '.join(KEY)} more than once")
    times = ["use_case", "decision_time"]
    scored = rows.group_by([*times, "model_version"]).aggregate([])
    if scored.group_by(times).aggregate([]).num_rows < scored.num_rows:
        raise ValueError("predictions of one decision time come from two model versions; write one after the other")
    # In one order, two writers of the same rows wait for one another and do not deadlock.
    return rows.sort_by([(name, "ascending") for name in KEY])


def _copy(connection: Connection, rows: pa.Table) -> None:
    """Send rows as CSV: Arrow writes it without a Python object a value, a null as nothing and a string in quotes."""
    buffer = io.BytesIO()
    csv.write_csv(rows, buffer, csv.WriteOptions(include_header=False))
    raw: Any = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)  # noqa: S101 - `connect` makes no other
    with raw.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(buffer.getbuffer())
