"""How far the values of one time are from those of another: effect sizes over groups that are kept. Numpy only.

An effect size has no sample in it: it says how far, where a p-value says how sure. `chance` is what the sample adds.
"""

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
    """Return the values at which the groups after the first begin: at most `bins` - 1, ascending.

    The groups hold about equal shares of the scores. A value is in one group only, so that a frequent one, such as 0
    or 1 of a flag, has a group of its own.
    """
    values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    group = np.floor(middle * bins / max(1, counts.sum()))
    return np.asarray(values[1:][np.diff(group) > 0])


def group_shares(scores: ArrayLike, edges: ArrayLike) -> Floats:
    """Return the share of the scores in each of the len(edges) + 1 groups, half a row added to each: they sum to 1."""
    values, inner = np.asarray(scores, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    return shares_of(np.bincount(np.searchsorted(inner, values, side="right"), minlength=len(inner) + 1))


def shares_of(counts: ArrayLike) -> Floats:
    """Return the share of each group of counts (..., groups), half a row added to each: they sum to 1."""
    rows = np.asarray(counts, dtype=np.float64) + 0.5
    return np.asarray(rows / rows.sum(axis=-1, keepdims=True))


def stability_index(expected: Floats, actual: Floats) -> float:
    """Return the population stability index of two sets of group shares: sum of (a - e) ln(a / e)."""
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def jensen_shannon(expected: Floats, actual: Floats) -> float:
    """Return the Jensen-Shannon distance of two sets of group shares, from 0 (equal) to 1 (nothing in common).

    The square root of the divergence in bits (Lin 1991, "Divergence measures based on the Shannon entropy"), which is
    a metric (Endres and Schindelin 2003, "A new metric for probability distributions").
    """
    middle = (expected + actual) / 2
    bits = expected * np.log2(expected / middle) + actual * np.log2(actual / middle)
    return math.sqrt(min(1.0, max(0.0, float(np.sum(bits)) / 2)))


def expected_by_chance(groups: int, rows: int, reference_rows: int) -> float:
    """Return the stability index that two samples of one population have on average: (groups - 1)(1/n + 1/m).

    Yurdakul and Naranjo 2020, "Statistical properties of the population stability index".
    """
    return max(0, groups - 1) * (1 / max(1, rows) + 1 / max(1, reference_rows))


def largest_by_chance(groups: int, rows: int, reference_rows: int, *, deviations: float = 3.1) -> float:
    """Return the stability index that two samples of one population exceed about once in a thousand times.

    The index over (1/n + 1/m) is about chi-squared with groups - 1 degrees of freedom (Yurdakul and Naranjo 2020),
    whose quantile is that of Wilson and Hilferty 1931; `deviations` is the quantile of the normal distribution.
    """
    freedom = groups - 1
    if freedom < 1:
        return 0.0
    spread = 2 / (9 * freedom)
    quantile = freedom * (1 - spread + deviations * math.sqrt(spread)) ** 3
    return quantile * (1 / max(1, rows) + 1 / max(1, reference_rows))
