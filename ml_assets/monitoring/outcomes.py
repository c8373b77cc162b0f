"""Predictions joined to their outcomes, one row per prediction.

Everything that is reported about a model in use is computed from this table: no other code joins predictions to labels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.contracts import TIMESTAMP
from ml_assets.learning.slices import described, slice_columns
from ml_assets.learning.window import SLICE_PREFIX, VALUE_COLUMN
from ml_assets.predictions.control import is_marked
from ml_assets.predictions.work_list import listed, standing
from ml_assets.spec import UseCase

BATCH, ONLINE = "batch", "online"
_KEYS = ["entity_id", "decision_time"]
# The columns that the outcomes table takes over from a prediction unchanged.
PREDICTED = (
    "entity_id", "decision_time", "decision_date", "slot", "outcome_date", "model_version", "mlflow_run_id",
    "probability", "cost_if_fail", "expected_cost",
)  # fmt: skip
_PREDICTED_TYPES = {
    "entity_id": pa.string(),
    "decision_time": TIMESTAMP,
    "decision_date": pa.date32(),
    "slot": pa.string(),
    "outcome_date": pa.date32(),
    "model_version": pa.int32(),
    "mlflow_run_id": pa.string(),
    "probability": pa.float64(),
    "cost_if_fail": pa.float64(),
    "expected_cost": pa.float64(),
}
OUTCOMES_SCHEMA = pa.schema(
    [
        pa.field("use_case", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        *(pa.field(name, _PREDICTED_TYPES[name], nullable=False) for name in PREDICTED),
        pa.field("on_list", pa.bool_(), nullable=False),
        pa.field("is_last", pa.bool_(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("label_known_at", TIMESTAMP),
        pa.field("known_date", pa.date32()),
        pa.field("is_complete", pa.bool_(), nullable=False),
        pa.field("control", pa.bool_()),
    ]
)

COUNTS_SCHEMA = pa.schema(
    [
        pa.field("use_case", pa.string(), nullable=False),
        pa.field("outcome_date", pa.date32(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("dimension", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("decisions", pa.int32(), nullable=False),
        pa.field("labelled", pa.int32(), nullable=False),
        pa.field("fails", pa.int32(), nullable=False),
        pa.field("promised", pa.float64(), nullable=False),
        pa.field("cost", pa.float64(), nullable=False),
        pa.field("is_complete", pa.bool_(), nullable=False),
        pa.field("known_at", TIMESTAMP),
    ]
)


@dataclass(frozen=True, slots=True)
class Completeness:
    """The number of predictions about an outcome date, how many have an outcome, and whether no more will come."""

    outcome_date: date
    predictions: int
    labelled: int
    is_complete: bool

    @property
    def share(self) -> float:
        """The share of predictions that have an outcome; 0 without predictions."""
        return self.labelled / self.predictions if self.predictions else 0.0


def outcomes_schema(usecase: UseCase) -> pa.Schema:
    """Return `OUTCOMES_SCHEMA` with the value at stake and one column per slice of the use case."""
    slices = [pa.field(SLICE_PREFIX + spec.name, pa.string()) for spec in usecase.gate.slices]
    return pa.schema([*OUTCOMES_SCHEMA, pa.field(VALUE_COLUMN, pa.float64()), *slices])


def join_outcomes(
    usecase: UseCase,
    predictions: Mapping[str, pa.Table],
    features: pa.Table | None,
    labels: pa.Table,
    mature: Collection[date],
) -> pa.Table:
    """Return the predictions with their outcomes, in `outcomes_schema`, sorted by decision time and entity.

    `predictions` maps a stage (`BATCH`, or that of the scoring service) to the predictions that it made and that count
    for their decision time, with the columns `PREDICTED` and `attributes`. Each decision time of a stage is one
    work-list. The service answers at any moment, so its work-lists are one per slot of a date. `features` has the keys
    and `slice_columns` of the same decisions; a decision without a row in it has no slices. `labels` are rows of the
    labels table, with `known_date`.

    `is_last` marks the newest prediction of an entity about an outcome date. `on_list` marks the predictions that the
    team was asked to act on. Both follow the work-list rule of `predictions.work_list`, as the metrics do. `control`
    marks the control group: its decisions are on the list and go the usual way.

    `mature` are the outcome dates whose labels have all had time to arrive. A mature date is complete if at least one
    label is there: a decision without an outcome, such as a cancelled instruction, never gets a label.
    """
    parts = [_of_stage(rows, stage) for stage, rows in predictions.items() if rows.num_rows]
    schema = outcomes_schema(usecase)
    if not parts:
        return schema.empty_table()
    rows = pa.concat_tables(parts, promote_options="default").sort_by([(n, "ascending") for n in reversed(_KEYS)])
    rows = _with_labels(rows, labels)
    rows = rows.append_column("use_case", pa.repeat(pa.scalar(usecase.name), rows.num_rows))
    stages = np.unique(rows["stage"].to_numpy(), return_inverse=True)[1]
    lists = np.unique(_lists(rows, stages), return_inverse=True)[1]
    costs = rows["expected_cost"].to_numpy()
    on_list = listed(lists, rows["entity_id"], costs, capacity=usecase.capacity, action=usecase.action)
    is_last = np.zeros(rows.num_rows, dtype=np.bool_)
    for stage in np.unique(stages):
        of_stage = stages == stage
        part = rows.filter(pa.array(of_stage))
        columns = (part["outcome_date"].to_numpy(), part["decision_time"].to_numpy())
        is_last[of_stage] = standing(part["entity_id"], *columns, {})
    rows = rows.append_column("on_list", pa.array(on_list)).append_column("is_last", pa.array(is_last))
    rows = rows.append_column("is_complete", _is_complete(rows, mature))
    rows = rows.append_column("control", pa.array(is_marked(rows["attributes"])))
    rows = _with_slices(usecase, rows, features)
    return rows.select(schema.names).cast(schema).combine_chunks()


def completeness(outcomes: pa.Table) -> list[Completeness]:
    """Return how complete each outcome date is, the earliest first."""
    counted = outcomes.group_by("outcome_date").aggregate(
        [("entity_id", "count"), ("label", "count"), ("is_complete", "all")]
    )
    return sorted(
        (
            Completeness(row["outcome_date"], row["entity_id_count"], row["label_count"], row["is_complete_all"])
            for row in counted.to_pylist()
        ),
        key=lambda one: one.outcome_date,
    )


def outcome_counts(usecase: UseCase, outcomes: pa.Table) -> pa.Table:
    """Return the counts of outcomes per outcome date, in `COUNTS_SCHEMA`: over all predictions and per slice value.

    Only the newest prediction of each entity about the date is counted. `promised` is the sum of the probabilities of
    predictions with an outcome, `cost` the cost of the fails, `known_at` the time when the date's last label was known.
    """
    known = outcomes.group_by("outcome_date").aggregate([("label_known_at", "max")])
    rows = outcomes.filter(outcomes["is_last"])
    is_labelled = pc.cast(pc.is_valid(rows["label"]), pa.float64())
    fails = pc.cast(pc.fill_null(rows["label"], 0), pa.float64())
    rows = rows.append_column("promised", pc.multiply(rows["probability"], is_labelled))
    rows = rows.append_column("cost", pc.multiply(rows["cost_if_fail"], fails))
    sums = [("entity_id", "count"), ("label", "count"), ("label", "sum"), ("promised", "sum"), ("cost", "sum"),
            ("is_complete", "all")]  # fmt: skip
    parts = []
    for dimension in ("all", *(spec.name for spec in usecase.gate.slices)):
        column = pa.repeat(pa.scalar("all"), rows.num_rows) if dimension == "all" else rows[SLICE_PREFIX + dimension]
        of = rows.append_column("value", pc.fill_null(column, "unknown"))
        made = of.group_by(["outcome_date", "stage", "value"]).aggregate(sums)
        parts.append(made.append_column("dimension", pa.repeat(pa.scalar(dimension), made.num_rows)))
    found = pa.concat_tables(parts).join(known, "outcome_date")
    names = {
        "decisions": "entity_id_count", "labelled": "label_count", "fails": "label_sum", "promised": "promised_sum",
        "cost": "cost_sum", "is_complete": "is_complete_all", "known_at": "label_known_at_max",
    }  # fmt: skip
    columns = {name: found[names.get(name, name)] for name in COUNTS_SCHEMA.names if name != "use_case"}
    columns["fails"] = pc.fill_null(columns["fails"], 0)
    columns["use_case"] = pa.repeat(pa.scalar(usecase.name), found.num_rows)
    keys = ["outcome_date", "stage", "dimension", "value"]
    made = pa.table({name: columns[name] for name in COUNTS_SCHEMA.names}).cast(COUNTS_SCHEMA)
    return made.sort_by([(name, "ascending") for name in keys])


def judged_rows(outcomes: pa.Table) -> pa.Table:
    """Return the predictions that performance is computed from: those with a label, about complete outcome dates."""
    return outcomes.filter(pc.and_(outcomes["is_complete"], pc.is_valid(outcomes["label"])))


def known_until(rows: pa.Table, day: date) -> pa.Table:
    """Return the judged predictions about outcome dates whose labels were all known by the end of `day`."""
    if not rows.num_rows:
        return rows
    newest = rows.group_by("outcome_date").aggregate([("known_date", "max")])
    known = newest.filter(pc.less_equal(newest["known_date_max"], pa.scalar(day)))["outcome_date"]
    return rows.filter(pc.is_in(rows["outcome_date"], known.combine_chunks()))


def _of_stage(rows: pa.Table, stage: str) -> pa.Table:
    """Return the columns of predictions that the join needs, with the stage that made them."""
    rows = rows.select([*PREDICTED, "attributes"])
    return rows.append_column("stage", pa.repeat(pa.scalar(stage), rows.num_rows))


def _lists(rows: pa.Table, stages: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return the name of each row's work-list, (n,)."""
    online = rows["stage"].to_numpy() == ONLINE
    times = rows["decision_time"].cast(pa.int64()).to_numpy().astype(str)
    slots = np.char.add(rows["decision_date"].to_numpy().astype(str), rows["slot"].to_numpy().astype(str))
    return np.char.add(stages.astype(str), np.char.add("/", np.where(online, slots, times)))


def _positions(rows: pa.Table) -> pa.Array:
    """Return the position of each row, by which to sort after a join: Arrow's joins do not keep the order."""
    return pa.array(np.arange(rows.num_rows))


def _with_labels(rows: pa.Table, labels: pa.Table) -> pa.Table:
    """Return the rows in the same order with label, label_known_at and known_date, which are null without a label."""
    known = labels.select([*_KEYS, "label", "label_known_at", "known_date"])
    rows = rows.append_column("row", _positions(rows))
    return rows.join(known, keys=_KEYS, join_type="left outer").sort_by("row").drop_columns(["row"])


def _is_complete(rows: pa.Table, mature: Collection[date]) -> pa.Array:
    labelled = pc.unique(rows.filter(pc.is_valid(rows["label"]))["outcome_date"]).to_pylist()
    complete = pa.array(sorted(set(mature) & set(labelled)), pa.date32())
    return pc.is_in(rows["outcome_date"], complete)


def _with_slices(usecase: UseCase, rows: pa.Table, features: pa.Table | None) -> pa.Table:
    wanted = [name for name in slice_columns(usecase) if name not in rows.column_names]
    if wanted and features is not None:
        rows = rows.append_column("row", _positions(rows))
        found = features.select([*_KEYS, *wanted])
        rows = rows.join(found, keys=_KEYS, join_type="left outer").sort_by("row").drop_columns(["row"])
    for name in wanted if features is None else []:
        rows = rows.append_column(name, pa.nulls(rows.num_rows, pa.string()))
    attributes = rows.select([*_KEYS, "stage", "attributes"])
    parts = []
    for stage in pc.unique(rows["stage"]).to_pylist():
        of_stage = pc.equal(rows["stage"], stage)
        parts.append(
            described(
                usecase,
                rows.filter(of_stage).drop_columns(["attributes"]),
                attributes.filter(of_stage).drop_columns(["stage"]),
            )
        )
    made = pa.concat_tables(parts).sort_by([(name, "ascending") for name in reversed(_KEYS)])
    for field in outcomes_schema(usecase):
        if field.name not in made.column_names:
            made = made.append_column(field.name, pa.nulls(made.num_rows, field.type))
    return made
