"""Signs of a leak in a training set: one feature that alone ranks the outcomes almost perfectly."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.learning.frames import FeatureNames, model_arrays
from ml_assets.learning.metrics import roc_auc
from ml_assets.spec import Feature

Floats = NDArray[np.float64]

# Rows on which each feature is ranked; the newest ones.
_ROWS = 200_000


def single_feature_auc(features: Iterable[Feature], rows: pa.Table) -> pd.Series:
    """Return by feature the AUC with which it alone ranks the labels of `rows`, best first; NaN if it cannot be known.

    Falling as well as rising counts, so that it is at least 0.5, and so does being missing: a value that is only there
    once the outcome is known tells it. Categories are ranked by their rate of fails in the other half of the rows.
    """
    rows = rows.slice(max(0, rows.num_rows - _ROWS))
    names = FeatureNames.of(features)
    numbers, categories = model_arrays(names, rows)
    labels = rows["label"].to_numpy().astype(np.float64)
    found = {name: _numeric_auc(labels, numbers[:, i].astype(np.float64)) for i, name in enumerate(names.numeric)}
    found |= {name: _categorical_auc(labels, categories[:, i]) for i, name in enumerate(names.categorical)}
    return pd.Series(found, name="auc", dtype=np.float64).sort_values(ascending=False, kind="stable")


def _numeric_auc(labels: Floats, values: Floats) -> float:
    missing = np.isnan(values)
    return max(_either_way(labels, np.where(missing, edge, values)) for edge in (-np.inf, np.inf))


def _categorical_auc(labels: Floats, values: NDArray[np.object_]) -> float:
    codes, _ = pd.factorize(values)
    half = np.arange(len(labels)) % 2 == 0
    rate = np.empty(len(labels))
    for part in (half, ~half):
        fails = np.bincount(codes[~part], weights=labels[~part], minlength=codes.max(initial=0) + 1)
        count = np.bincount(codes[~part], minlength=codes.max(initial=0) + 1)
        rate[part] = ((fails + labels.mean()) / (count + 1))[codes[part]] if len(labels) else 0
    return _either_way(labels, rate)


def _either_way(labels: Floats, values: Floats) -> float:
    auc = roc_auc(labels, values)
    return auc if np.isnan(auc) else max(auc, 1 - auc)
