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

# Soon after the outcomes of `_tables`, and after those of 2026.
LATE, SOON = datetime(2021, 5, 1, tzinfo=UTC), datetime(2026, 3, 10, tzinfo=UTC)


def _tables(delays_hours: list[int]) -> tuple[pa.Table, pa.Table]:
    """Two decisions per day; each label becomes known a fixed number of hours after its decision."""
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
    as_of = pc.max(labels["label_known_at"]).as_py()
    one = build_training_set(features, labels, usecase.split, as_of)
    two = build_training_set(*shuffled, usecase.split, as_of)
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


def days_of_outcomes(days: list[date], rate: float = 0.1, *, wrong: dict[date, float] | None = None, n: int = 200):
    """So many decisions a date, of which the share has the outcome; each is known on the next day."""
    ids, times, labels = [], [], []
    for day in days:
        share = (wrong or {}).get(day, rate)
        for number in range(n):
            ids.append(f"{number}")
            times.append(datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=7))
            labels.append(int(number < share * n))
    schema = features_schema([Feature("x", "")])
    dates = [t.date() for t in times]
    features = pa.table(
        {
            "entity_id": ids,
            "decision_time": pa.array(times, TIMESTAMP),
            "decision_date": dates,
            "slot": ["morning"] * len(ids),
            "outcome_date": dates,
            "cost_if_fail": np.ones(len(ids)),
            "attributes": pa.nulls(len(ids), pa.string()),
            "x": np.zeros(len(ids)),
        },
        schema=schema,
    )
    known = pa.array([t + timedelta(days=1) for t in times], TIMESTAMP)
    made = {
        "entity_id": ids, "decision_time": pa.array(times, TIMESTAMP), "outcome_date": dates,
        "label": pa.array(labels, pa.int8()), "label_known_at": known,
    }  # fmt: skip
    return features, pa.table(made, schema=LABELS_SCHEMA)


def consecutive(first: date, number: int) -> list[date]:
    return [first + timedelta(days=ahead) for ahead in range(number)]


BEFORE_THE_GAP, AFTER_IT = consecutive(date(2024, 1, 1), 60), consecutive(date(2026, 1, 1), 12)


def test_after_a_gap_it_says_which_dates_there_are_and_when_there_will_be_enough() -> None:
    """Guards against 'lower test_days', which nobody can act on, two years after the last file."""
    features, labels = days_of_outcomes([*BEFORE_THE_GAP, *AFTER_IT])
    with pytest.raises(TrainingSetError) as error:
        build_training_set(features, labels, SplitSpec(20, 5, 5), datetime(2026, 1, 14, tzinfo=UTC))
    said = str(error.value)
    assert "2024-01-01 to 2024-02-29 (60 dates), then none for 672 days, 2026-01-01 to 2026-01-12 (12 dates)" in said
    assert "more than 45 days without labels (longest_gap)" in said
    assert "enough on about 2026-01" in said
    assert "If the events between 2024-02-29 and 2026-01-01 can still be had" in said
    assert "lower test_days" not in said


def test_labels_of_which_the_newest_is_old_teach_nothing_and_the_message_says_what_to_do() -> None:
    """Guards a model of 2024 that is trained in 2026, because nothing had come since."""
    features, labels = days_of_outcomes(BEFORE_THE_GAP)
    with pytest.raises(TrainingSetError) as error:
        build_training_set(features, labels, SplitSpec(40, 5, 5), SOON)
    said = str(error.value)
    assert "is of 2024-02-29 and became known on 2024-03-01, 738 days before 2026-03-10" in said
    assert "ingest" in said
    window = {"test_first": date(2024, 2, 20), "test_last": date(2024, 2, 29)}
    asked = build_training_set(features, labels, SplitSpec(40, 5, 5), SOON, **window)
    assert pc.max(asked["decision_date"]).as_py() == date(2024, 2, 29), "a person who gives the window may"


def test_nothing_is_trained_or_tested_across_a_gap() -> None:
    features, labels = days_of_outcomes([*BEFORE_THE_GAP, *consecutive(date(2026, 1, 1), 32)])
    rows = build_training_set(features, labels, SplitSpec(40, 5, 5), SOON)
    assert pc.min(rows["decision_date"]).as_py() == date(2026, 1, 1)
    with pytest.raises(TrainingSetError, match="the test window from 2024-02-20 has a gap"):
        build_training_set(features, labels, SplitSpec(10, 5, 5), SOON, test_first=date(2024, 2, 20))
    earlier = build_training_set(
        features, labels, SplitSpec(10, 5, 5), SOON, test_first=date(2024, 2, 20), test_last=date(2024, 2, 29)
    )
    assert pc.max(earlier["decision_date"]).as_py() == date(2024, 2, 29)


def test_a_gap_that_the_use_case_declares_is_no_gap() -> None:
    features, labels = days_of_outcomes([*BEFORE_THE_GAP, *consecutive(date(2026, 1, 1), 10)])
    rows = build_training_set(features, labels, SplitSpec(40, 5, 5, longest_gap=timedelta(days=1000)), SOON)
    assert pc.min(rows["decision_date"]).as_py() == date(2024, 1, 20)


@pytest.mark.parametrize(("share", "how"), [(1.0, "higher"), (0.0, "lower")])
@pytest.mark.parametrize("at", [3, 25, 49])
def test_a_date_whose_base_rate_leaves_its_band_is_refused(share: float, how: str, at: int) -> None:
    """Guards against labels that a late feed has made: all of a date's, or none, have the outcome."""
    days = consecutive(date(2026, 1, 1), 50)
    features, labels = days_of_outcomes(days, wrong={days[at]: share}, n=800)
    with pytest.raises(TrainingSetError, match=rf"on {days[at]} have the outcome, and 10.0% .* times {how}"):
        build_training_set(features, labels, SplitSpec(40, 5, 5), SOON)
    wide = SplitSpec(40, 5, 5, base_rate_band=float("inf"))
    assert days[at] in build_training_set(features, labels, wide, SOON)["decision_date"].to_pylist()


def test_a_part_whose_base_rate_leaves_its_band_is_refused() -> None:
    """Guards: each date alone may be chance where a date has few decisions, all of them together are not."""
    days = consecutive(date(2026, 1, 1), 60)
    features, labels = days_of_outcomes(days, wrong=dict.fromkeys(days[-5:], 1.0), n=5)
    with pytest.raises(TrainingSetError, match="in the test part"):
        build_training_set(features, labels, SplitSpec(40, 5, 5), SOON)


def test_stress_and_drift_are_trained_on() -> None:
    """A market in which three times as many fail is no error of the labels, nor is one with a few outcomes a date."""
    days = consecutive(date(2026, 1, 1), 50)
    stress = days_of_outcomes(days, 0.05, wrong=dict.fromkeys(days[30:40], 0.15))
    assert days[35] in build_training_set(*stress, SplitSpec(40, 5, 5), SOON)["decision_date"].to_pylist()
    rare = days_of_outcomes(days, 0.0, wrong=dict.fromkeys(days[::3], 0.02))
    assert days[33] in build_training_set(*rare, SplitSpec(40, 5, 5), SOON)["decision_date"].to_pylist()
