"""Pipelines of scikit-learn as candidates build them: fitted on labelled rows, and asked for probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.learning.frames import FeatureNames, model_frame
from ml_assets.learning.sampling import weighted_sample
from ml_assets.learning.training_set import TrainingSetError
from ml_assets.spec import Candidate, UseCase

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


# Rows that are turned into a pipeline's frame at a time.
_AT_ONCE = 262_144


def fit_pipeline(
    usecase: UseCase,
    candidate: Candidate,
    rows: pa.Table,
    parameters: Mapping[str, Any],
    *,
    threads: int = 1,
    among: NDArray[np.bool_] | None = None,
) -> Pipeline:
    """Return the candidate's pipeline fitted on labelled rows; `parameters` override those of its last step.

    With `among` (a mask, (n,)) only those rows count. If there are more rows than `SplitSpec.fit_rows`, it is fitted on
    a weighted sample of them.

    Raises:
        TrainingSetError: the rows have only one outcome.
    """
    y = rows["label"].to_numpy()
    chosen = None if among is None else np.flatnonzero(among)
    if chosen is not None:
        y = y[chosen]
    if len(np.unique(y)) < 2:
        raise TrainingSetError(
            f"use case {usecase.name}: all {len(y)} labels of the train part are alike; there is nothing to "
            "learn. Look at label.sql and at the curated events of those dates"
        )
    estimator: Any = candidate.build(usecase.features, usecase.seed)
    last_step = estimator.steps[-1][1]
    if last_step.get_params().get("n_jobs") is not None:
        last_step.set_params(n_jobs=threads)
    last_step.set_params(**parameters)
    sample = weighted_sample(y, usecase.split.fit_rows, seed=usecase.seed)
    weights = {}
    if sample is not None:
        chosen, y = sample.rows if chosen is None else chosen[sample.rows], y[sample.rows]
        weights[f"{estimator.steps[-1][0]}__sample_weight"] = sample.weights
    names = FeatureNames.of(usecase.features)
    frame = model_frame(names, rows if chosen is None else rows.select(names.all).take(pa.array(chosen)))
    with limited_threads(threads):
        estimator.fit(frame, y, **weights)
    return estimator


def predict(estimator: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the uncalibrated probabilities of a pipeline: (n,)."""
    if not len(frame):
        return np.empty(0)
    return np.asarray(estimator.predict_proba(frame)[:, 1], dtype=np.float64)


def predict_rows(estimator: Any, names: FeatureNames, rows: pa.Table) -> NDArray[np.float64]:
    """Return the uncalibrated probabilities of a pipeline for rows (n): (n,); some of them at a time are in memory."""
    starts = range(0, rows.num_rows, _AT_ONCE)
    parts = [predict(estimator, model_frame(names, rows.slice(start, _AT_ONCE))) for start in starts]
    return np.concatenate(parts) if parts else np.empty(0)


def limited_threads(threads: int) -> Any:
    """Return a context in which BLAS and OpenMP use at most `threads` threads; 0 is one per core."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=threads or None)
