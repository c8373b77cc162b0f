"""The saved model in a fresh process: it gives the pipeline's numbers, or it is found out."""

import dataclasses

import msgspec
import numpy as np
import pytest

from ml_assets.learning import candidates
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.golden import (
    GOLDEN_ROWS,
    GoldenSample,
    ServingCheckError,
    check,
    check_in_fresh_process,
    golden_sample,
)
from ml_assets.learning.training_set import part_of


@pytest.fixture(scope="module")
def saved(usecase, training_set, tmp_path_factory):
    """A saved LightGBM model and its golden sample."""
    fitted = fit_candidate(usecase, candidates.lightgbm(n_estimators=20, num_leaves=15), training_set)
    folder = tmp_path_factory.mktemp("saved")
    fitted.scorer.save(folder)
    sample = folder / "golden_sample.json"
    sample.write_text(golden_sample(fitted, part_of(training_set, "test")), encoding="utf-8")
    return fitted, folder, sample


def test_a_fresh_process_gives_the_pipeline_s_numbers(saved):
    _, folder, sample = saved
    found = check_in_fresh_process(folder, sample)
    assert found.rows == GOLDEN_ROWS
    assert found.max_abs_difference < 1e-6
    assert 0 < found.latency_ms < 1000
    assert len(found.model_hash) == 64


def test_the_sample_is_of_the_pipeline_and_not_of_the_export(saved, training_set):
    """Guards: numbers that the export itself had given would prove nothing."""
    fitted, _, _ = saved
    blind = dataclasses.replace(fitted, scorer=_NoModel(fitted.scorer.manifest))
    golden = msgspec.json.decode(golden_sample(blind, part_of(training_set, "test")), type=GoldenSample)
    assert len(golden.probabilities) == GOLDEN_ROWS
    assert len(np.unique(golden.probabilities)) > 50


class _NoModel:
    """A scorer that knows its manifest and cannot score."""

    def __init__(self, manifest):
        self.manifest = manifest


def test_another_model_under_the_same_name_is_found_out(saved, usecase, training_set, tmp_path):
    _, _, sample = saved
    other = fit_candidate(usecase, candidates.lightgbm(n_estimators=21, num_leaves=15), training_set)
    other.scorer.save(tmp_path)
    golden = msgspec.json.decode(sample.read_bytes(), type=GoldenSample)
    assert check(tmp_path, golden).max_abs_difference > 1e-6


def test_an_empty_sample_proves_nothing(saved):
    _, folder, sample = saved
    golden = msgspec.json.decode(sample.read_bytes(), type=GoldenSample)
    empty = GoldenSample({name: [] for name in golden.columns}, [])
    found = check(folder, empty)
    assert (found.max_abs_difference, found.latency_ms) == (None, None)


def test_a_model_that_does_not_load_says_so(saved, tmp_path):
    _, _, sample = saved
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ServingCheckError, match=r"lacks manifest\.json"):
        check_in_fresh_process(tmp_path, sample)
