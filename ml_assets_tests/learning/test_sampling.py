"""A model that is fitted on a weighted sample is that of all rows, but for noise."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.learning.estimators import IncreasingLogistic
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.frames import FeatureNames
from ml_assets.learning.metrics import evaluate
from ml_assets.learning.pipelines import fit_pipeline, predict_rows
from ml_assets.learning.sampling import weighted_sample
from ml_assets.learning.training_set import part_of
from ml_assets.learning.window import Window
from ml_assets.spec import UseCase


@given(st.lists(st.integers(0, 1), max_size=300), st.integers(2, 310), st.integers(0, 9))
def test_a_sample_stands_for_all_rows(labels: list[int], size: int, seed: int) -> None:
    """Guards the level of probabilities, the bound on memory, and the same rows whenever a model is made again."""
    y = np.array(labels, dtype=np.int8)
    sample = weighted_sample(y, size, seed=seed)
    if len(y) <= size:
        assert sample is None
        return
    assert sample is not None
    assert len(sample.rows) <= size
    assert (np.diff(sample.rows) > 0).all()
    for label in (0, 1):
        kept = y[sample.rows] == label
        assert sample.weights[kept].sum() == pytest.approx((y == label).sum())
        assert kept.any() == (y == label).any()
    if y.sum() <= size // 2:
        assert (y[sample.rows] == 1).sum() == y.sum(), "none with the outcome is left out"
    again = weighted_sample(y, size, seed=seed)
    assert again is not None
    assert np.array_equal(again.rows, sample.rows)


def test_without_a_limit_there_is_no_sample() -> None:
    assert weighted_sample(np.zeros(9, dtype=np.int8), None, seed=0) is None


@pytest.mark.parametrize("number", [1, 2])
def test_probabilities_keep_their_level(usecase: UseCase, training_set: pa.Table, number: int) -> None:
    """Guards a sample whose outcomes are twice as frequent, and a model that says so of every decision."""
    candidate = usecase.candidates[number]
    train, test = part_of(training_set, "train"), part_of(training_set, "test")
    sampled = replace(usecase, split=replace(usecase.split, fit_rows=2 * train.num_rows // 3))
    names = FeatureNames.of(usecase.features)
    every, some = (predict_rows(fit_pipeline(each, candidate, train, {}), names, test) for each in (usecase, sampled))
    assert not np.array_equal(every, some)
    assert some.mean() == pytest.approx(every.mean(), rel=0.08)
    fitted = fit_candidate(sampled, candidate, training_set)
    of_all = fit_candidate(usecase, candidate, training_set).metrics
    assert fitted.metrics["calibration_error"] <= of_all["calibration_error"] + 0.01
    window = Window.of(test)
    assert fitted.metrics["pr_auc"] == pytest.approx(evaluate(window, fitted.probabilities, capacity=20)["pr_auc"])
    assert fitted.metrics["pr_auc"] > 0.85 * of_all["pr_auc"]


def test_rows_are_predicted_alike_however_many_at_a_time(
    usecase: UseCase, training_set: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = FeatureNames.of(usecase.features)
    estimator = fit_pipeline(usecase, usecase.candidates[2], part_of(training_set, "train"), {})
    at_once = predict_rows(estimator, names, training_set)
    monkeypatch.setattr("ml_assets.learning.pipelines._AT_ONCE", 97)
    assert np.array_equal(predict_rows(estimator, names, training_set), at_once)
    assert not len(predict_rows(estimator, names, training_set.slice(0, 0)))


def test_a_rule_whose_column_says_nothing_has_the_weighted_base_rate() -> None:
    """Guards a rule on a sample, whose level would be that of the sample."""
    x, y = np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([0, 0, 1, 1])
    fitted = IncreasingLogistic().fit(x, y, np.array([9.0, 9.0, 1.0, 1.0]))
    assert fitted.intercept_[0] == pytest.approx(np.log(0.1 / 0.9))


def test_parts_that_lie_together_are_not_copied(training_set: pa.Table) -> None:
    """Guards memory: the parts of a training set were copies of it, several times over."""
    train = part_of(training_set, "train")
    before = pa.total_allocated_bytes()
    again = part_of(training_set, "train", "calibration")
    assert pa.total_allocated_bytes() - before < training_set.nbytes / 10
    mixed = training_set.take(pa.array(np.random.default_rng(0).permutation(training_set.num_rows)))
    order = [("decision_time", "ascending"), ("entity_id", "ascending")]
    assert part_of(mixed, "train").sort_by(order).equals(train.sort_by(order))
    assert again.num_rows == train.num_rows + part_of(training_set, "calibration").num_rows
    assert not part_of(training_set, "none").num_rows
