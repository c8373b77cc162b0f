"""Walk-forward folds: the train part is cut several times into a past and the days after it, as in production."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ml_assets.learning.training_set import part_of
from ml_assets.spec import SplitSpec


@dataclass(frozen=True)
class Fold:
    """Rows to fit on, and later rows to measure on."""

    train: pa.Table
    validation: pa.Table


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
            folds.append(Fold(rows.filter(pa.array(trained)), rows.filter(pa.array(validated))))
    return folds
