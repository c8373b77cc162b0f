"""Answers of the scoring service as predictions: which of them count, and how they get attributes and labels.

The service answers at any moment, so the decision time of an answer is not one of the batch's. The subject is the same,
an entity and an outcome date: the answer takes outcome, cost and attributes from the batch's decisions about it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.monitoring.outcomes import OUTCOMES_SCHEMA, PREDICTED
from ml_assets.spec import UseCase

# The fields of an answer that are read; see `ml_assets.answers.ServedScore`.
ANSWERED = (
    "entity_id", "decision_time", "slot", "outcome_date", "model_version", "mlflow_run_id", "probability",
    "expected_cost", "event_time", "stage", "what_if",
)  # fmt: skip
_TOLD = pa.array(["champion", "canary"])
_PREDICTIONS = pa.schema(
    [*(pa.field(name, OUTCOMES_SCHEMA.field(name).type) for name in PREDICTED), pa.field("attributes", pa.string())]
)
_ABOUT = ["entity_id", "outcome_date"]
_KEYS = ["entity_id", "decision_time"]


@dataclass(frozen=True, slots=True)
class OnlineDecisions:
    """Answers as the three tables that `join_outcomes` takes for the batch: predictions, features and labels."""

    predictions: pa.Table
    features: pa.Table
    labels: pa.Table


def online_decisions(usecase: UseCase, answers: pa.Table, features: pa.Table, labels: pa.Table) -> OnlineDecisions:
    """Return the answers that count as predictions.

    `answers` has the columns `ANSWERED`. `features` are the batch's decisions about the same outcome dates, with
    cost_if_fail, attributes and slices. `labels` are rows of the labels table with outcome_date.

    An answer counts if a caller received it, from the champion or the canary. A what-if does not count. If an entity
    has several answers for a slot of a date, the newest one counts, as on a work-list. An entity that the batch does
    not know has no attributes; its cost_if_fail is computed from the answer.
    """
    answers = _counted(usecase, answers)
    # A slice by slot takes the slot of the answer.
    told = [name for name in features.column_names if name in answers.column_names and name not in _ABOUT]
    known = _newest(features).drop_columns(told)
    rows = answers.join(known, keys=_ABOUT, join_type="left outer").sort_by(_in_order)
    of_answer = pc.divide(rows["expected_cost"], pc.max_element_wise(rows["probability"], 1e-12))
    cost = pc.coalesce(rows["cost_if_fail"], of_answer)
    rows = rows.set_column(rows.column_names.index("cost_if_fail"), "cost_if_fail", cost)
    came = _newest(labels).drop_columns(["decision_time"])
    labelled = answers.select([*_KEYS, "outcome_date"]).join(came, keys=_ABOUT, join_type="inner")
    # A label that was known before the request is not an outcome of the answer.
    labelled = labelled.filter(pc.greater(labelled["label_known_at"], labelled["decision_time"]))
    described = [name for name in features.column_names if name not in (*_ABOUT, "decision_time", "cost_if_fail")]
    return OnlineDecisions(
        rows.select(_PREDICTIONS.names).cast(_PREDICTIONS),
        rows.select([*_KEYS, *(name for name in described if name != "attributes")]),
        labelled.select([name for name in labels.column_names if name != "outcome_date"]),
    )


_in_order = [("decision_time", "ascending"), ("entity_id", "ascending")]


def _counted(usecase: UseCase, answers: pa.Table) -> pa.Table:
    told = pc.and_(pc.is_in(answers["stage"], value_set=_TOLD), pc.invert(answers["what_if"]))
    rows = answers.filter(told)
    days = {at: usecase.slots_at(at)[0].decision_date for at in pc.unique(rows["decision_time"]).to_pylist()}
    decided = pa.array([days[at] for at in rows["decision_time"].to_pylist()], pa.date32())
    newest = _last(rows.append_column("decision_date", decided), [*_ABOUT, "decision_date", "slot"], by="event_time")
    return newest.drop_columns(["event_time", "stage", "what_if"])


def _newest(rows: pa.Table) -> pa.Table:
    """Return the row of the newest decision about each entity and outcome date."""
    return _last(rows, _ABOUT, by="decision_time")


def _last(rows: pa.Table, keys: list[str], *, by: str) -> pa.Table:
    """Return one row per key: the last one in the order of column `by`."""
    rows = rows.sort_by([(by, "ascending")])
    rows = rows.append_column("row", pa.array(range(rows.num_rows), pa.int64()))
    last = rows.group_by(keys).aggregate([("row", "max")])["row_max"]
    return rows.take(last.combine_chunks()).drop_columns(["row"])
