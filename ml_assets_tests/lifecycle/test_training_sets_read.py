"""A training set is read as it was made, in little memory."""

from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.lake import Lake, training_set_table
from ml_assets.learning.frames import CODED, FeatureNames, model_arrays
from ml_assets.lifecycle import training
from ml_assets.lifecycle.training import memory_needed, read_training_set
from ml_assets.spec import SplitSpec, UseCase
from ml_assets_tests.learning.conftest import small_training_set, small_usecase

DAY = date(2024, 2, 15)
ORDER = [("decision_time", "ascending"), ("entity_id", "ascending")]


@pytest.fixture(scope="module")
def usecase(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return small_usecase(tmp_path_factory.mktemp("usecase"))


def written(lake: Lake, usecase: UseCase, rows: pa.Table) -> pa.Table:
    """Write rows as the training set of the day, and return what is read for models."""
    said = rows.append_column("training_date", pa.array([DAY] * len(rows), pa.date32()))
    said = said.append_column("made_from", pa.array(["{}"] * len(rows)))
    lake.replace(training_set_table(usecase), said, "training_date", [DAY])
    return read_training_set(lake, usecase, DAY, for_models=True)


@pytest.mark.parametrize("cuts", [[], [1], [700, 2_000, 2_001, 5_000]])
def test_runs_that_have_changed_places_are_put_back(lake: Lake, usecase: UseCase, cuts: list[int]) -> None:
    """Guards memory: the writer lets whole runs change places, and to put them back all rows were copied."""
    made = small_training_set(usecase)
    ends = [*zip([0, *cuts], [*cuts, len(made)], strict=True)]
    moved = pa.concat_tables(made.slice(first, last - first) for first, last in reversed(ends)).combine_chunks()
    read = written(lake, usecase, moved)
    for name in ("entity_id", "decision_time", "label", "part", "asset_class"):
        assert read[name].cast(made.schema.field(name).type).to_pylist() == made[name].to_pylist()
    before = pa.total_allocated_bytes()
    again = training._sorted(moved)
    assert pa.total_allocated_bytes() - before < moved.nbytes / 10
    assert again.equals(made)


def test_rows_in_no_order_are_sorted(lake: Lake, usecase: UseCase, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small_training_set(usecase)
    mixed = made.take(pa.array(np.random.default_rng(0).permutation(len(made))))
    assert training._sorted(mixed).equals(made)
    overlapping = pa.concat_tables([made.filter(pa.array(np.arange(len(made)) % 2 == odd)) for odd in (1, 0)])
    assert training._sorted(overlapping).equals(made)
    monkeypatch.setattr(training, "_RUNS", 10)
    assert training._sorted(mixed).equals(made)


def test_texts_are_read_as_codes_and_what_is_missing_stays_so(lake: Lake, usecase: UseCase) -> None:
    made = small_training_set(usecase)
    read = written(lake, usecase, made)
    assert read.schema.field("asset_class").type == read.schema.field("part").type == CODED
    assert read.schema.field("market_value").type == pa.float32()
    assert read["asset_class"].null_count == made["asset_class"].null_count > 0
    names = FeatureNames.of(usecase.features)
    for ours, other in zip(model_arrays(names, read), model_arrays(names, made), strict=True):
        assert np.array_equal(ours.astype(str), other.astype(str))


def test_memory_that_a_training_needs_grows_with_rows_and_with_the_sample_until_it_is_full() -> None:
    split = SplitSpec(train_days=10, calibration_days=2, test_days=2, fit_rows=1_000)
    some, sampled, more = (memory_needed(rows, split) for rows in (1_000, 2_000, 3_000))
    assert sampled - some == more - sampled < some - memory_needed(0, split)
