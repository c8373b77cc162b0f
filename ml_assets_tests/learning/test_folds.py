from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.learning.folds import walk_forward
from ml_assets.learning.training_set import part_of
from ml_assets.spec import UseCase


def test_each_fold_knows_only_labels_of_its_own_past(usecase: UseCase, training_set: pa.Table) -> None:
    """Guards against the fold that trains on outcomes which were not known when its days were decided."""
    split = replace(usecase.split, folds=3, fold_days=2)
    folds = walk_forward(training_set, split)
    assert len(folds) == 3
    for fold in folds:
        first = pc.min(fold.validation["decision_time"]).as_py()
        assert pc.max(fold.train["label_known_at"]).as_py() <= first - split.embargo
        assert pc.max(fold.train["decision_date"]).as_py() < pc.min(fold.validation["decision_date"]).as_py()
        assert len(pc.unique(fold.validation["decision_date"])) == 2
    starts = [pc.min(fold.validation["decision_date"]).as_py() for fold in folds]
    assert starts == sorted(set(starts))
    sizes = [fold.train.num_rows for fold in folds]
    assert sizes == sorted(sizes), "a later fold has more of a past"


def test_folds_leave_calibration_and_test_alone(usecase: UseCase, training_set: pa.Table) -> None:
    train = part_of(training_set, "train")
    last = pc.max(train["decision_time"])
    for fold in walk_forward(training_set, replace(usecase.split, folds=4, fold_days=3)):
        for rows in (fold.train, fold.validation):
            assert pc.unique(rows["part"]).to_pylist() == ["train"]
            assert pc.max(rows["decision_time"]).as_py() <= last.as_py()


def test_a_fold_without_a_past_or_with_one_outcome_is_left_out(usecase: UseCase, training_set: pa.Table) -> None:
    assert len(walk_forward(training_set, replace(usecase.split, folds=8, fold_days=2))) < 8
    assert walk_forward(training_set, usecase.split) == [], "none is asked for"
    index = training_set.column_names.index("label")
    settled = training_set.set_column(index, "label", pa.array(np.zeros(len(training_set), dtype=np.int8)))
    assert walk_forward(settled, replace(usecase.split, folds=3, fold_days=2)) == []
