"""Pipelines of scikit-learn as candidates build them: fitted on labelled rows, and asked for probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.learning.frames import FeatureNames, model_frame
from ml_assets.learning.training_set import TrainingSetError
from ml_assets.spec import Candidate, UseCase

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def fit_pipeline(
    usecase: UseCase, candidate: Candidate, rows: pa.Table, parameters: Mapping[str, Any], *, threads: int = 1
) -> Pipeline:
    """Return the candidate's pipeline fitted on labelled rows; `parameters` override those of its last step.

    Raises:
        TrainingSetError: the rows have only one outcome.
    """
    y = rows["label"].to_numpy()
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
    with limited_threads(threads):
        estimator.fit(model_frame(FeatureNames.of(usecase.features), rows), y)
    return estimator


def predict(estimator: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the uncalibrated probabilities of a pipeline: (n,)."""
    if not len(frame):
        return np.empty(0)
    return np.asarray(estimator.predict_proba(frame)[:, 1], dtype=np.float64)


def limited_threads(threads: int) -> Any:
    """Return a context in which BLAS and OpenMP use at most `threads` threads; 0 is one per core."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=threads or None)
