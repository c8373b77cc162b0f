"""A weighted sample of labelled rows, for fitting a model on more rows than fit into memory.

The rarer outcome tells most, so its rows are kept and those of the other are thinned. Each row that stays counts for as
many as it stands for, so that probabilities need no other correction (weighting by the inverse of the chance of being
kept: Manski and Lerman 1977; King and Zeng 2001).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Sample(NamedTuple):
    """Positions of rows (k,), in order, and how many rows each of them stands for (k,)."""

    rows: NDArray[np.int64]
    weights: NDArray[np.float64]


def weighted_sample(labels: NDArray[np.int8], size: int | None, *, seed: int) -> Sample | None:
    """Return at most `size` of the rows with these labels (n,); None if they all fit.

    All with the label 1 are among them if they take at most half of the room. The weights of the rows with a label sum
    to the number of rows that have it. The same labels and seed give the same rows. Each label that is there is kept.
    """
    if size is None or len(labels) <= size:
        return None
    rng = np.random.default_rng(seed)
    ones, others = np.flatnonzero(labels == 1), np.flatnonzero(labels != 1)
    # Where the ones are many, or the others few, each label has the room that the other leaves.
    room = max(min(len(ones), size // 2), size - len(others))
    weights = np.zeros(len(labels))
    for rows, kept in ((ones, min(len(ones), room)), (others, size - min(len(ones), room))):
        if len(rows):
            kept = max(1, kept)
            weights[rng.choice(rows, kept, replace=False)] = len(rows) / kept
    chosen = np.flatnonzero(weights)
    return Sample(chosen, weights[chosen])
