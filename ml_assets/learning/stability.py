"""The population stability index: how far the scores of one time are from those of another. Numpy only."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def population_stability(expected: ArrayLike, actual: ArrayLike, *, bins: int = 10) -> float:
    """Return the population stability index of scores: sum of (a - e) ln(a / e) over groups; NaN without rows.

    The groups hold equal shares of `expected`; e and a are the shares of the two in a group, each with half a row
    added so that an empty group counts as rare and not as infinite.
    """
    before, after = np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if not len(before) or not len(after):
        return math.nan
    edges = group_edges(before, bins=bins)
    return stability_index(group_shares(before, edges), group_shares(after, edges))


def group_edges(scores: ArrayLike, *, bins: int = 10) -> Floats:
    """Return the inner edges of groups that hold equal shares of the scores: at most `bins` - 1, ascending."""
    return np.unique(np.quantile(np.asarray(scores, dtype=np.float64), np.linspace(0, 1, bins + 1)[1:-1]))


def group_shares(scores: ArrayLike, edges: ArrayLike) -> Floats:
    """Return the share of the scores in each of the len(edges) + 1 groups, half a row added to each: they sum to 1."""
    values, inner = np.asarray(scores, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    rows = np.bincount(np.searchsorted(inner, values, side="right"), minlength=len(inner) + 1) + 0.5
    return np.asarray(rows / rows.sum())


def stability_index(expected: Floats, actual: Floats) -> float:
    """Return the population stability index of two sets of group shares: sum of (a - e) ln(a / e)."""
    return float(np.sum((actual - expected) * np.log(actual / expected)))
