"""Columns as models read them, whether texts are written out or are codes of a dictionary."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.learning.estimators import AsinhScaler
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.folds import walk_forward
from ml_assets.learning.frames import CODED, FeatureNames, model_arrays, numbered, texts_of
from ml_assets.learning.training_set import part_of
from ml_assets.learning.window import Window
from ml_assets.spec import UseCase

TEXTS = st.lists(st.lists(st.sampled_from([None, "", "a", "b", "ä"]), max_size=6), max_size=4)


@given(TEXTS, st.booleans())
def test_texts_are_the_same_coded_or_not(chunks: list[list[str | None]], code: bool) -> None:
    """Guards null, for which `to_numpy` of a coded column gives another text, and chunks with their own dictionary."""
    arrays = [pa.array(chunk, pa.string()) for chunk in chunks]
    column = pa.chunked_array(
        [a.dictionary_encode() for a in arrays] if code else arrays, CODED if code else pa.string()
    )
    expected = [text for chunk in chunks for text in chunk]
    assert texts_of(column).tolist() == expected
    assert texts_of(column, "").tolist() == [text or "" for text in expected]
    if None not in expected:
        texts, number = numbered(column)
        distinct, inverse = np.unique(np.array(expected, dtype=str), return_inverse=True)
        assert texts == distinct.tolist()
        assert number.tolist() == inverse.tolist()


def coded(rows: pa.Table) -> pa.Table:
    """Return the rows with their texts coded, each chunk by a dictionary of its own, as they are read."""
    fields = [f.with_type(CODED) if f.type == pa.string() and f.name != "entity_id" else f for f in rows.schema]
    parts = [rows.slice(start, 1000).combine_chunks().cast(pa.schema(fields)) for start in range(0, len(rows), 1000)]
    return pa.concat_tables(parts).unify_dictionaries()


def test_a_model_is_the_same_whether_texts_are_coded(usecase: UseCase, training_set: pa.Table) -> None:
    """Guards figures of models: reading codes saves memory and changes nothing."""
    narrow = coded(training_set)
    assert narrow.schema.field("asset_class").type == CODED
    assert narrow["asset_class"].null_count
    names = FeatureNames.of(usecase.features)
    for ours, other in zip(model_arrays(names, narrow), model_arrays(names, training_set), strict=True):
        assert np.array_equal(ours.astype(str), other.astype(str))
    split = replace(usecase.split, folds=2, fold_days=3)
    folded = replace(usecase, split=split)
    ours, other = (fit_candidate(folded, usecase.candidates[2], rows) for rows in (narrow, training_set))
    assert np.array_equal(ours.probabilities, other.probabilities)
    assert ours.window_hash == other.window_hash
    assert ours.scorer.manifest == other.scorer.manifest
    assert ours.metrics == pytest.approx(other.metrics, abs=0, rel=0, nan_ok=True)


def test_many_rows_are_scored_as_few_are(
    usecase: UseCase, training_set: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards memory, for a test window of millions; the last part may have one row."""
    scorer = fit_candidate(usecase, usecase.candidates[1], training_set).scorer
    at_once = scorer.score(training_set)
    monkeypatch.setattr("ml_assets.learning.scorer._BATCH", (len(training_set) - 1) // 3)
    assert np.array_equal(scorer.score(training_set), at_once)
    assert np.array_equal(scorer.score(training_set.to_pandas()), at_once)
    assert not len(scorer.score(training_set.slice(0, 0)))


def test_folds_hold_no_rows_of_their_own(usecase: UseCase, training_set: pa.Table) -> None:
    """Guards memory: each fold was a copy of nearly all that a model is trained on."""
    split = replace(usecase.split, folds=3, fold_days=2)
    before = pa.total_allocated_bytes()
    folds = walk_forward(training_set, split)
    assert len(folds) == 3
    assert pa.total_allocated_bytes() - before < part_of(training_set, "train").nbytes / 10


def test_windows_of_slices_tell_what_is_not_known(training_set: pa.Table) -> None:
    test = part_of(training_set, "test")
    said = pa.array([None if at % 3 else f"market {at % 2}" for at in range(len(test))])
    for column in (said, said.dictionary_encode()):
        window = Window.of(test.append_column("slice__market", column))
        assert window.slices["market"].tolist() == said.to_pylist()


def test_scaled_numbers_are_what_the_formula_gives() -> None:
    rng = np.random.default_rng(0)
    x = np.exp(rng.normal(size=(500, 3)) * 4) * rng.choice([-1, 1], (500, 3))
    x[rng.random(x.shape) < 0.1] = np.nan
    before = x.copy()
    scaler = AsinhScaler().fit(x)
    made = scaler.transform(x)
    assert np.array_equal(x, before, equal_nan=True), "what was given is left alone"
    z = np.where(np.isnan(x), scaler.fill_, np.arcsinh(x / scaler.magnitude_))
    assert np.array_equal(made, np.hstack([(z - scaler.mean_) / scaler.scale_, np.isnan(x).astype(float)]))
