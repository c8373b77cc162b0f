"""What a decision is about, beside its features: the value at stake, and the slices in which models are compared."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.duck import query_duckdb
from ml_assets.errors import InputError
from ml_assets.learning.window import SLICE_PREFIX, VALUE_COLUMN
from ml_assets.predictions.feedback import Line, by_entity, said_before
from ml_assets.spec import FEEDBACK, UseCase

_ATTRIBUTE = "attributes."


def with_slices(usecase: UseCase, training_set: pa.Table, attributes: pa.Table) -> pa.Table:
    """Return the training set with the columns that `Window.of` takes for value at stake and slices.

    Only the test part has values in them, which is where models are compared; it is the end of the table.
    `attributes` has entity_id, decision_time and attributes (a JSON object, or null) of the test decisions.

    Raises:
        ValueError: a source is neither a column nor `attributes.<key>`.
    """
    is_test = pc.equal(training_set["part"], "test")
    test = described(usecase, training_set.filter(is_test), attributes)
    return pa.concat_tables([training_set.filter(pc.invert(is_test)), test], promote_options="default")


def described(usecase: UseCase, rows: pa.Table, attributes: pa.Table) -> pa.Table:
    """Return rows, sorted by decision time and entity, with value at stake and slices.

    What people said at the desk is not in the lake: its slice is null, until `with_feedback` says it.

    Raises:
        ValueError: a source is neither a column nor `attributes.<key>`.
    """
    sources = {SLICE_PREFIX + spec.name: spec.source for spec in usecase.gate.slices if spec.source != FEEDBACK}
    rows = with_sources(usecase, rows, attributes, sources)
    for name in _of_feedback(usecase):
        rows = rows.append_column(name, pa.nulls(rows.num_rows, pa.string()))
    if not usecase.value:
        return rows
    return with_sources(usecase, rows, attributes, {VALUE_COLUMN: usecase.value}, kind="DOUBLE")


def with_feedback(
    usecase: UseCase, rows: pa.Table, read: Callable[[Collection[date]], Mapping[date, Sequence[Line]]]
) -> pa.Table:
    """Return described rows with what people had said of them before each decision, in the slices that ask for it.

    `read` returns the lines of the lists of some outcome dates, by date and in order; it is called if a slice asks.
    """
    if not (names := _of_feedback(usecase)):
        return rows
    said = read(rows["outcome_date"].unique().to_pylist())
    lines = {(day, entity): own for day, of_day in said.items() for entity, own in by_entity(of_day).items()}
    keys = (rows[name].to_pylist() for name in ("outcome_date", "entity_id", "decision_time"))
    words = pa.array(
        [said_before(lines.get((day, entity), ()), at.astimezone(UTC)) for day, entity, at in zip(*keys, strict=True)],
        pa.string(),
    )
    for name in names:
        there = name in rows.column_names  # a training set of before the slice has no such column
        rows = rows.set_column(rows.column_names.index(name), name, words) if there else rows.append_column(name, words)
    return rows


def _of_feedback(usecase: UseCase) -> list[str]:
    return [SLICE_PREFIX + spec.name for spec in usecase.gate.slices if spec.source == FEEDBACK]


def with_sources(
    usecase: UseCase,
    rows: pa.Table,
    attributes: pa.Table,
    sources: Mapping[str, str],
    *,
    kind: Literal["VARCHAR", "DOUBLE"] = "VARCHAR",
) -> pa.Table:
    """Return rows, sorted by decision time and entity, with one more column per source; null where it has no value.

    `sources` maps the name of the column to a column of the rows, or to `attributes.<key>`.

    Raises:
        ValueError: a source is neither.
    """
    if not sources:
        return rows
    columns = {name: f"try_cast({_source(usecase, source, rows)} AS {kind})" for name, source in sources.items()}
    selected = ", ".join(f'{sql} AS "{name}"' for name, sql in columns.items())
    with query_duckdb() as db:
        db.register("rows", rows)
        db.register("described", attributes)
        found: pa.Table = db.sql(
            f"SELECT {selected} "
            "FROM rows LEFT JOIN described USING (entity_id, decision_time) ORDER BY decision_time, entity_id"
        ).to_arrow_table()
    for name in columns:
        rows = rows.append_column(name, found[name])
    return rows


def slice_columns(usecase: UseCase) -> list[str]:
    """Return the columns of the features table that value at stake and slices are taken from."""
    sources = [*(spec.source for spec in usecase.gate.slices if spec.source != FEEDBACK), usecase.value]
    return list(dict.fromkeys(source for source in sources if source and not source.startswith(_ATTRIBUTE)))


def _source(usecase: UseCase, source: str, rows: pa.Table) -> str:
    """Return the SQL of a source."""
    if source.startswith(_ATTRIBUTE):
        return f"json_extract_string(described.attributes, '$.{source.removeprefix(_ATTRIBUTE)}')"
    if source not in rows.column_names:
        raise InputError(
            f"use case {usecase.name}: {source!r} is no column of the training set; name a feature, or a key of the "
            "attributes as attributes.<key>"
        )
    return f"rows.{source}"
