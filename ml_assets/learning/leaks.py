"""Signs of a leak in a training set: a feature or value that tells the outcome, outcomes before their decision."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.learning.frames import FeatureNames, model_arrays
from ml_assets.learning.statistics import roc_auc
from ml_assets.spec import Feature

Floats = NDArray[np.float64]

# Rows on which each feature is ranked; the newest ones.
_ROWS = 200_000
# A value alone tells the outcome if at least `_TELLING_ROWS` rows have it and at least the share `_TELLING_RATE` of
# them has the same outcome, which at most the share `_USUAL` of all rows has.
_TELLING_ROWS, _TELLING_RATE, _USUAL = 50, 0.95, 0.8
# A numeric feature with at most this many values is treated as a category.
_FEW_NUMBERS = 10
# An outcome that has happened stays. A label that only means that nothing has happened yet can change.
_STAYS, _ENOUGH = 0.98, 20


@dataclass(frozen=True, slots=True)
class Settled:
    """How many decisions have the outcome 1, and for how many of these it had happened when they were decided."""

    settled: int = 0
    positives: int = 0

    @property
    def share(self) -> float:
        """Return the share of the positives that had happened; 0 without a positive."""
        return self.settled / self.positives if self.positives else 0.0


@dataclass(frozen=True, slots=True)
class TellingValue:
    """A value of a feature that alone tells the outcome: `rate` is the share of its `n` rows with the label 1."""

    feature: str
    value: str
    rate: float
    n: int


def settled_when_decided(rows: pa.Table) -> Settled:
    """Return how many positives had happened when decided.

    `rows` are decisions with `group` (decisions that are alike in what they ask, such as those of a slot), `early` (the
    label as of the decision; null if there was none), `dated` (whether that label says itself that it was known by
    then) and `label` (the outcome, or null). A dated 1 has happened. Another early 1 has happened if the early 1s of
    its group, or all of them, stay 1. If a label is 1 because nothing has been seen yet (no payment), many become 0.
    """
    frame = rows.to_pandas()
    dated = frame["dated"].fillna(False).astype(bool) & (frame["early"] == 1)
    open_ = (frame["early"] == 1) & ~dated & frame["label"].notna()
    stays = frame["label"] == 1
    if open_.sum() >= _ENOUGH and stays[open_].mean() >= _STAYS:
        settled = open_ & stays
    else:
        by_group = stays[open_].groupby(frame["group"][open_]).agg(["size", "mean"])
        sure = by_group.index[(by_group["size"] >= _ENOUGH) & (by_group["mean"] >= _STAYS)]
        settled = open_ & stays & frame["group"].isin(sure)
    return Settled(int((dated | settled).sum()), int((dated | stays).sum()))


def telling_values(features: Iterable[Feature], rows: pa.Table) -> list[TellingValue]:
    """Return the values of categories (missing is one) that alone tell the outcome, the most frequent first.

    Numeric features with few values count as categories. Such a value is no proof of a leak, but somebody should be
    able to explain it.
    """
    rows = rows.slice(max(0, rows.num_rows - _ROWS))
    names = FeatureNames.of(features)
    labels = rows["label"].to_numpy().astype(np.float64)
    base = float(labels.mean()) if len(labels) else 0.0
    found = list[TellingValue]()
    for name in (*names.categorical, *names.numeric):
        values = pd.Series(rows[name].to_pandas(), dtype=object)
        if name in names.numeric and values.nunique() > _FEW_NUMBERS:
            continue
        found += _telling(name, values, labels, base)
    return sorted(found, key=lambda one: -one.n)


def _telling(name: str, values: pd.Series, labels: Floats, base: float) -> Iterator[TellingValue]:
    by_value = pd.Series(labels).groupby(values.to_numpy(), dropna=False).agg(["size", "mean"])
    for value, n, rate in by_value.itertuples():
        bad = rate >= _TELLING_RATE and base <= _USUAL
        good = rate <= 1 - _TELLING_RATE and base >= 1 - _USUAL
        if n >= _TELLING_ROWS and (bad or good):
            yield TellingValue(name, "missing" if pd.isna(value) else str(value), float(rate), int(n))


def single_feature_auc(features: Iterable[Feature], rows: pa.Table) -> pd.Series:
    """Return, for each feature, the AUC with which it alone ranks the labels of `rows`, best first; NaN if undefined.

    The AUC is that of the better direction, so it is at least 0.5. A missing value counts as the lowest or the highest,
    since a value that is only there once the outcome is known is a leak. Categories are ranked by their rate of fails
    in the other half of the rows.
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
