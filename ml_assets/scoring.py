"""From probabilities to predictions: expected cost, rank, and who made them of what. Pure: tables in, tables out."""

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


def predictions_for(
    usecase: UseCase,
    features: pa.Table,
    probabilities: npt.NDArray[np.floating[Any]],
    provenance: Provenance,
    reason_codes: Sequence[str | None] | None = None,
) -> pa.Table:
    """Return a prediction a row of `features` (in `features_schema`), in `PREDICTIONS_SCHEMA`, sorted by its key.

    Expected cost is probability x cost_if_fail, in the currency of the use case. `rank` counts from 1 within a
    decision time by falling expected cost; equal costs are ranked by entity_id. `reason_codes` are JSON texts.

    Raises:
        ValueError: `probabilities` is not one number in [0, 1] a row, or `reason_codes` not one a row.
    """
    rows = features.num_rows
    if probabilities.shape != (rows,):
        raise ValueError(
            f"{usecase.name}: probabilities have shape {probabilities.shape}; {rows} decisions need ({rows},)"
        )
    if bad := int((~((probabilities >= 0) & (probabilities <= 1))).sum()):
        raise ValueError(f"{usecase.name}: {bad} of {rows} probabilities are not in [0, 1]; the model is not usable")
    if reason_codes is not None and len(reason_codes) != rows:
        raise ValueError(f"{usecase.name}: {len(reason_codes)} reason codes for {rows} decisions")
    probability = probabilities.astype(np.float64)
    expected_cost = probability * features.column("cost_if_fail").to_numpy()
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
        "rank": _ranks(features, expected_cost),
        "reason_codes": pa.nulls(rows, pa.string()) if reason_codes is None else pa.array(reason_codes, pa.string()),
    }
    for name, value in said.items():
        made[name] = pa.repeat(pa.scalar(value, PREDICTIONS_SCHEMA.field(name).type), rows)
    decided = {name: features.column(name) for name in PREDICTIONS_SCHEMA.names if name not in made}
    return _as_predictions({**decided, **made})


def flagged(
    usecase: UseCase, features: pa.Table, probabilities: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.bool_]:
    """Return which rows the team is to act on: the first `capacity` of each decision time, by expected cost."""
    expected_cost = probabilities.astype(np.float64) * features.column("cost_if_fail").to_numpy()
    return np.asarray(_ranks(features, expected_cost) <= usecase.capacity)


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


def _ranks(features: pa.Table, expected_cost: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Return the rank of each row within its decision time."""
    time = features.column("decision_time").cast(pa.int64()).to_numpy()
    # numpy compares no Arrow strings; their dense rank stands for them.
    entity = pc.rank(features.column("entity_id"), tiebreaker="dense").to_numpy()
    order = np.lexsort((entity, -expected_cost, time))
    starts = np.flatnonzero(np.diff(time[order], prepend=time[order][:1] - 1))
    sizes = np.diff(starts, append=len(order))
    ranks = np.empty(len(order), dtype=np.int32)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, sizes) + 1
    return ranks


def _as_predictions(columns: Mapping[str, Any]) -> pa.Table:
    rows = pa.table([columns[name] for name in PREDICTIONS_SCHEMA.names], names=PREDICTIONS_SCHEMA.names)
    return rows.cast(PREDICTIONS_SCHEMA).sort_by([(name, "ascending") for name in KEY])
