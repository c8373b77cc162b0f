"""Walk-forward folds: the train part is cut several times into a past and the days after it, as in production."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.learning.training_set import chosen_of, part_of
from ml_assets.spec import SplitSpec


@dataclass(frozen=True)
class Fold:
    """Rows, which of them to fit on, and which later ones to measure on (masks, (n,)): no row is kept twice."""

    rows: pa.Table
    trained: NDArray[np.bool_]
    validated: NDArray[np.bool_]

    @property
    def train(self) -> pa.Table:
        """The rows to fit on."""
        return chosen_of(self.rows, pa.array(self.trained))

    @property
    def validation(self) -> pa.Table:
        """The rows to measure on."""
        return chosen_of(self.rows, pa.array(self.validated))


def walk_forward(training_set: pa.Table, split: SplitSpec) -> list[Fold]:
    """Return up to `split.folds` folds of the train part, the earliest first; calibration and test are not touched.

    The last decision dates are validated, `split.fold_days` per fold. Each fold trains on earlier decisions whose label
    was known at least `split.embargo` before its first validated decision, so late labels are missing as they would
    have been. A fold whose training or validation rows all have the same outcome is left out.
    """
    rows = part_of(training_set, "train")
    dates, day = np.unique(rows["decision_date"].to_numpy(), return_inverse=True)
    decided, known = rows["decision_time"].to_numpy(), rows["label_known_at"].to_numpy()
    labels = rows["label"].to_numpy()
    folds = []
    for number in range(split.folds, 0, -1):
        first = len(dates) - number * split.fold_days
        if first <= 0:
            continue
        validated = (day >= first) & (day < first + split.fold_days)
        known_by = decided[validated].min() - np.timedelta64(split.embargo)
        trained = (day < first) & (known <= known_by)
        if all(len(np.unique(labels[mask])) == 2 for mask in (trained, validated)):
            folds.append(Fold(rows, trained, validated))
    return folds
