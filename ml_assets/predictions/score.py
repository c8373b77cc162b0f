"""Rows and a model in, predictions out. Pure: a service uses `score` alone, without scikit-learn, MLflow or pandas.

`score` gives probabilities and reasons; `predictions_for` adds expected cost, rank and provenance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.database.schema import KEY, PREDICTIONS_SCHEMA, PROVENANCE_COLUMNS, VALUE_COLUMNS
from ml_assets.errors import InputError
from ml_assets.learning.reasons import reason_codes
from ml_assets.learning.score_checks import DateVerdict, ScoresRefusedError, judge_batch, refusal
from ml_assets.learning.scorer import Scorer
from ml_assets.predictions.control import in_control_group, marked
from ml_assets.predictions.work_list import listed, priorities
from ml_assets.spec import UseCase


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which model, data, code and run made predictions. `data_versions` maps lake tables to Delta versions."""

    model_name: str
    model_version: int
    mlflow_run_id: str
    feature_set_hash: str
    data_versions: Mapping[str, int]
    git_commit: str
    dagster_run_id: str
    scored_at: datetime


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of rows, in their order.

    Attributes:
        probabilities: (n,), calibrated.
        reasons: one JSON text per row; None where no reasons were asked for, or the use case declares no causes.
        judged: one verdict per decision date, the earliest first.
    """

    probabilities: npt.NDArray[np.float64]
    reasons: list[str | None]
    judged: Sequence[DateVerdict]


def score(
    usecase: UseCase,
    model: Scorer,
    rows: pa.Table,
    *,
    explain: npt.NDArray[np.bool_] | None = None,
    despite: str = "",
) -> Scored:
    """Return the model's scores of `rows` (n rows in `features_schema`).

    The scores of each decision date are judged against the model's calibration window. With a reason in `despite` they
    are returned whatever the verdict. `explain` (n,) says which rows get reasons; without it, those of `flagged` do.

    Raises:
        ValueError: the model was trained on another definition of the features.
        MissingColumnsError: the rows lack a feature of the model.
        ScoresRefusedError: the scores of a date break a limit of the use case's `gate.batch`.
    """
    manifest = model.manifest
    if manifest.feature_set_hash != usecase.feature_set_hash:
        raise InputError(
            f"use case {usecase.name}: the model was trained on feature set {manifest.feature_set_hash}, now it is "
            f"{usecase.feature_set_hash}; retrain before scoring"
        )
    probabilities = model.score(rows)
    judged = judge_batch(usecase.gate.batch, manifest.features, manifest.reference, rows, probabilities)
    if not despite and not all(one.verdict.passed for one in judged):
        raise ScoresRefusedError(refusal(usecase.name, judged), judged)
    explained = flagged(usecase, rows, probabilities) if explain is None else explain
    reasons: list[str | None] = [None] * rows.num_rows
    found = reason_codes(usecase, model, rows.filter(pa.array(explained)), probabilities[explained])
    for row, text in zip(np.flatnonzero(explained), found, strict=True):
        reasons[row] = text
    return Scored(probabilities, reasons, judged)


def predictions_for(
    usecase: UseCase,
    features: pa.Table,
    probabilities: npt.NDArray[np.floating[Any]],
    provenance: Provenance,
    reason_codes: Sequence[str | None] | None = None,
) -> pa.Table:
    """Return one prediction per row of `features` (in `features_schema`), in `PREDICTIONS_SCHEMA`, sorted by its key.

    Expected cost is probability x cost_if_fail, in the currency of the use case. `rank` counts from 1 within a
    decision time by falling expected cost; equal costs are ranked by entity_id. `reason_codes` are JSON texts. The
    attributes of the control group say that it goes the usual way.

    Raises:
        ValueError: `probabilities` is not one number in [0, 1] per row, `reason_codes` is not one text per row, or an
            expected cost is not finite or is negative.
    """
    rows = features.num_rows
    if probabilities.shape != (rows,):
        raise InputError(
            f"{usecase.name}: probabilities have shape {probabilities.shape}; {rows} decisions need ({rows},)"
        )
    if bad := int((~((probabilities >= 0) & (probabilities <= 1))).sum()):
        raise InputError(f"{usecase.name}: {bad} of {rows} probabilities are not in [0, 1]; the model is not usable")
    if reason_codes is not None and len(reason_codes) != rows:
        raise InputError(f"{usecase.name}: {len(reason_codes)} reason codes for {rows} decisions")
    probability = probabilities.astype(np.float64)
    expected_cost = probability * features.column("cost_if_fail").to_numpy()
    _refuse_costs(usecase, features, expected_cost)
    said: dict[str, Any] = {
        "use_case": usecase.name,
        "model_version": provenance.model_version,
        "model_name": provenance.model_name,
        "mlflow_run_id": provenance.mlflow_run_id,
        "feature_set_hash": provenance.feature_set_hash,
        "data_versions": json.dumps(dict(provenance.data_versions), sort_keys=True),
        "git_commit": provenance.git_commit,
        "dagster_run_id": provenance.dagster_run_id,
        "scored_at": provenance.scored_at,
    }
    made: dict[str, Any] = {
        "probability": probability,
        "expected_cost": expected_cost,
        "rank": priorities(_times(features), features.column("entity_id"), expected_cost),
        "reason_codes": pa.nulls(rows, pa.string()) if reason_codes is None else pa.array(reason_codes, pa.string()),
    }
    for name, value in said.items():
        made[name] = pa.repeat(pa.scalar(value, PREDICTIONS_SCHEMA.field(name).type), rows)
    costs = features.column("cost_if_fail").to_numpy()
    usual = in_control_group(usecase, features.column("entity_id"), costs)
    made["attributes"] = marked(features.column("attributes"), usual)
    decided = {name: features.column(name) for name in PREDICTIONS_SCHEMA.names if name not in made}
    return _as_predictions({**decided, **made})


def _refuse_costs(usecase: UseCase, features: pa.Table, expected_cost: npt.NDArray[np.float64]) -> None:
    """Refuse costs that cannot order a list: the last guard after those of curation and features."""
    bad = np.flatnonzero(~(np.isfinite(expected_cost) & (expected_cost >= 0)))
    if len(bad):
        entity = features.column("entity_id")[int(bad[0])].as_py()
        raise InputError(
            f"{usecase.name}: {len(bad)} of {len(expected_cost)} expected costs are not finite or are negative: that "
            f"of {entity!r} is {expected_cost[bad[0]]}; make the features of these dates again, and look at what their "
            "asset says was left out"
        )


def flagged(
    usecase: UseCase, features: pa.Table, probabilities: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.bool_]:
    """Return which rows the team is to act on, of the work-list of each outcome date as each decision time makes it.

    Rows of earlier decision times on the same list can only push these rows down. So the rows returned include all that
    end up listed.
    """
    expected_cost = probabilities.astype(np.float64) * features.column("cost_if_fail").to_numpy()
    _, lists = np.unique(_times(features), return_inverse=True)
    days, outcome = np.unique(features.column("outcome_date").to_numpy(), return_inverse=True)
    return listed(
        lists * max(1, len(days)) + outcome, features.column("entity_id"), expected_cost,
        capacity=usecase.capacity, action=usecase.action,
    )  # fmt: skip


def retain_provenance(rows: pa.Table, before: pa.Table) -> pa.Table:
    """Return `rows` in which predictions equal to those in `before` keep the provenance that they had there.

    Both are in `PREDICTIONS_SCHEMA`. With this, scoring a partition again gives the very rows that are there
    already, unless a value has changed: then the row is new in all its columns.
    """
    names = [*VALUE_COLUMNS, *PROVENANCE_COLUMNS]
    known = before.select([*KEY, *names]).rename_columns([*KEY, *(f"before_{name}" for name in names)])
    known = known.append_column("known", pa.repeat(True, known.num_rows))
    joined = rows.join(known, keys=list(KEY), join_type="left outer")
    same = pc.fill_null(joined.column("known"), False)
    for name in VALUE_COLUMNS:
        now, then = joined.column(name), joined.column(f"before_{name}")
        equal = pc.or_(pc.fill_null(pc.equal(now, then), False), pc.and_(pc.is_null(now), pc.is_null(then)))
        same = pc.and_(same, equal)
    columns = {name: joined.column(name) for name in PREDICTIONS_SCHEMA.names}
    for name in PROVENANCE_COLUMNS:
        columns[name] = pc.if_else(same, joined.column(f"before_{name}"), columns[name])
    return _as_predictions(columns)


def _times(features: pa.Table) -> npt.NDArray[np.int64]:
    return np.asarray(features.column("decision_time").cast(pa.int64()).to_numpy())


def _as_predictions(columns: Mapping[str, Any]) -> pa.Table:
    rows = pa.table([columns[name] for name in PREDICTIONS_SCHEMA.names], names=PREDICTIONS_SCHEMA.names)
    return rows.cast(PREDICTIONS_SCHEMA).sort_by([(name, "ascending") for name in KEY])
