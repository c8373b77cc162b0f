from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import LABELS_SCHEMA, features_schema
from ml_assets.learning.training_set import PARTS, TrainingSetError, build_training_set, part_of
from ml_assets.spec import Feature, SplitSpec, UseCase
from ml_assets_tests.learning.conftest import draw

LATE = datetime(2030, 1, 1, tzinfo=UTC)


def _tables(delays_hours: list[int]) -> tuple[pa.Table, pa.Table]:
    """Two decisions a day; each label becomes known so many hours after its decision."""
    n = len(delays_hours)
    times = [datetime(2021, 3, 1, 7, tzinfo=UTC) + timedelta(days=i // 2) for i in range(n)]
    ids = [f"E{i % 2}" for i in range(n)]
    schema = features_schema([Feature("x", "")])
    features = pa.table(
        {
            "entity_id": ids,
            "decision_time": pa.array(times, TIMESTAMP),
            "decision_date": [t.date() for t in times],
            "slot": ["morning"] * n,
            "outcome_date": [t.date() for t in times],
            "cost_if_fail": np.ones(n),
            "attributes": pa.nulls(n, pa.string()),
            "x": np.arange(n, dtype=float),
        },
        schema=schema,
    )
    known = [t + timedelta(hours=h) for t, h in zip(times, delays_hours, strict=True)]
    labels = pa.table(
        {
            "entity_id": ids,
            "decision_time": pa.array(times, TIMESTAMP),
            "outcome_date": [t.date() for t in times],
            "label": np.arange(n, dtype=np.int8) % 2,
            "label_known_at": pa.array(known, TIMESTAMP),
        },
        schema=LABELS_SCHEMA,
    )
    return features, labels


@settings(max_examples=60, deadline=None)
@given(
    delays=st.lists(st.integers(1, 24 * 12), min_size=40, max_size=80),
    embargo_hours=st.integers(0, 72),
    test_days=st.integers(1, 6),
    as_of_day=st.integers(20, 60),
)
def test_parts_are_disjoint_ordered_and_train_on_mature_labels_only(
    delays: list[int], embargo_hours: int, test_days: int, as_of_day: int
) -> None:
    """Guards the classic leak: a label that was not known, with the embargo, when the test window began."""
    features, labels = _tables(delays)
    split = SplitSpec(train_days=10, calibration_days=3, test_days=test_days, embargo=timedelta(hours=embargo_hours))
    as_of = datetime(2021, 3, 1, tzinfo=UTC) + timedelta(days=as_of_day)
    try:
        rows = build_training_set(features, labels, split, as_of)
    except TrainingSetError:
        return
    train, calibration, test = (part_of(rows, part) for part in PARTS)
    assert train.num_rows + calibration.num_rows + test.num_rows == rows.num_rows
    assert len(set(zip(rows["entity_id"].to_pylist(), rows["decision_time"].to_pylist(), strict=True))) == len(rows)
    first_test = pc.min(test["decision_time"]).as_py()
    learned = pa.concat_tables([train, calibration])
    assert pc.max(learned["label_known_at"]).as_py() <= first_test - split.embargo
    assert pc.max(rows["label_known_at"]).as_py() <= as_of
    assert pc.max(train["decision_date"]).as_py() < pc.min(calibration["decision_date"]).as_py()
    assert pc.max(calibration["decision_date"]).as_py() < pc.min(test["decision_date"]).as_py()
    assert pc.count_distinct(train["decision_date"]).as_py() <= split.train_days
    assert pc.count_distinct(calibration["decision_date"]).as_py() == split.calibration_days
    assert pc.count_distinct(test["decision_date"]).as_py() == split.test_days


def test_order_of_the_input_does_not_matter(usecase: UseCase) -> None:
    """Guards reproducibility: the lake gives rows in any order."""
    features, labels, _ = draw()
    rng = np.random.default_rng(0)
    shuffled = features.take(rng.permutation(len(features))), labels.take(rng.permutation(len(labels)))
    one = build_training_set(features, labels, usecase.split, LATE)
    two = build_training_set(*shuffled, usecase.split, LATE)
    assert one.equals(two)
    assert one.column_names == [*features.column_names, "label", "label_known_at", "part"]


def test_explicit_window_and_cutoff() -> None:
    """Guards the published benchmark: trained on what was known by a date, tested months later."""
    features, labels = _tables([24] * 80)
    cutoff = datetime(2021, 3, 20, tzinfo=UTC)
    rows = build_training_set(
        features,
        labels,
        SplitSpec(train_days=15, calibration_days=3, test_days=99),
        LATE,
        train_cutoff=cutoff,
        test_first=date(2021, 4, 1),
        test_last=date(2021, 4, 5),
    )
    test = part_of(rows, "test")
    assert pc.min(test["decision_date"]).as_py() == date(2021, 4, 1)
    assert pc.max(test["decision_date"]).as_py() == date(2021, 4, 5)
    assert pc.max(part_of(rows, "train", "calibration")["label_known_at"]).as_py() <= cutoff


@pytest.mark.parametrize(
    ("split", "as_of", "message"),
    [
        (SplitSpec(5, 2, 2), datetime(2020, 1, 1, tzinfo=UTC), "no labelled decisions"),
        (SplitSpec(5, 2, 40), LATE, "the test window alone takes 40"),
        (SplitSpec(60, 10, 10), LATE, "of 14 more dates|of 11 more dates"),
    ],
)
def test_too_little_says_how_much_is_missing(split: SplitSpec, as_of: datetime, message: str) -> None:
    features, labels = _tables([24] * 80)
    with pytest.raises(TrainingSetError, match=message):
        build_training_set(features, labels, split, as_of)


def test_empty_explicit_window_names_what_there_is() -> None:
    features, labels = _tables([24] * 80)
    with pytest.raises(TrainingSetError, match=r"2021-03-01 to 2021-04-09"):
        build_training_set(features, labels, SplitSpec(5, 2, 2), LATE, test_first=date(2025, 1, 1))
