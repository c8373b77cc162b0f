"""What a model's calibration window looked like: kept in its manifest, so that scores can be held against it."""

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.learning.drift_reference import DriftReference
from ml_assets.learning.frames import MISSING_CATEGORY, FeatureNames, model_arrays
from ml_assets.learning.stability import group_edges, group_shares


class SlotReference(msgspec.Struct, frozen=True):
    """The calibration window at one slot, or at all.

    `scores` is the share of the scores in each group that the reference's edges cut (half a row added to each),
    `missing` the share of missing values by feature, `unknown` the share of values that the train part had not seen,
    by categorical feature.
    """

    rows: int
    mean: float
    scores: tuple[float, ...]
    missing: dict[str, float]
    unknown: dict[str, float]


class ScoreReference(msgspec.Struct, frozen=True):
    """The calibration window: at each slot by name, and whole. `categories` are the values that the model has learned.

    By slot, since decisions of another slot are scored another way, and a date may have had one slot so far. `drift` is
    the whole training set, day by day; None if the model was made before it was kept.
    """

    edges: tuple[float, ...]
    whole: SlotReference
    slots: dict[str, SlotReference]
    categories: dict[str, tuple[str, ...]]
    drift: DriftReference | None = None


def reference_of(
    names: FeatureNames, train: pa.Table, calibration: pa.Table, scores: NDArray[np.float64]
) -> ScoreReference:
    """Return the reference of a model that gives these `scores` (n,) to the `calibration` rows (n)."""
    edges = group_edges(scores)
    learned = _distinct(names, train)
    numbers, texts = model_arrays(names, calibration)

    def part(chosen: NDArray[np.bool_]) -> SlotReference:
        return SlotReference(
            rows=int(chosen.sum()),
            mean=float(scores[chosen].mean()),
            scores=tuple(group_shares(scores[chosen], edges).tolist()),
            missing=missing_shares(names, numbers[chosen], texts[chosen]),
            unknown=unknown_shares(names, texts[chosen], learned),
        )

    slot = calibration["slot"].to_numpy()
    later = _distinct(names, calibration)
    return ScoreReference(
        edges=tuple(edges.tolist()),
        whole=part(np.ones(len(scores), dtype=np.bool_)),
        slots={name: part(slot == name) for name in sorted(set(slot))},
        categories={name: tuple(sorted({*values, *later[name]})) for name, values in learned.items()},
    )


def missing_shares(names: FeatureNames, numbers: NDArray[np.float32], texts: NDArray[np.object_]) -> dict[str, float]:
    """Return the share of missing values of each feature, of the arrays that `model_arrays` makes."""
    shares = {name: float(np.isnan(numbers[:, i]).mean()) for i, name in enumerate(names.numeric)}
    return shares | {name: float((texts[:, i] == MISSING_CATEGORY).mean()) for i, name in enumerate(names.categorical)}


def unknown_shares(
    names: FeatureNames, texts: NDArray[np.object_], known: Mapping[str, Iterable[str]]
) -> dict[str, float]:
    """Return the share of values of each categorical feature that are none of the `known`; missing is no value."""
    shares = {}
    for i, name in enumerate(names.categorical):
        values = pa.array(texts[:, i], pa.string())
        found = pc.is_in(values, pa.array([MISSING_CATEGORY, *known[name]], pa.string()))
        shares[name] = 1 - float(np.mean(found.to_numpy(zero_copy_only=False)))
    return shares


def _distinct(names: FeatureNames, rows: pa.Table) -> dict[str, list[str]]:
    return {name: [v for v in pc.unique(rows[name].cast(pa.string())).to_pylist() if v] for name in names.categorical}
