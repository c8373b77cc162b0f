import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.learning import candidates
from ml_assets.learning.calibration import Calibration
from ml_assets.learning.export import round_thresholds, to_onnx
from ml_assets.learning.fit import prove_export
from ml_assets.learning.frames import FeatureNames, MissingColumnsError, model_frame
from ml_assets.learning.scorer import Manifest, Scorer
from ml_assets.learning.training_set import part_of
from ml_assets.spec import Candidate, Feature, UseCase

CATEGORIES = ("asset_class", "settlement_place")
KINDS = (
    candidates.rule("market_value", description="largest first"),
    candidates.logistic(),
    candidates.lightgbm(n_estimators=60, min_child_samples=5),
    candidates.hist_gradient_boosting(max_iter=40, min_samples_leaf=5),
)


def _fitted(usecase: UseCase, candidate: Candidate, rows: pa.Table) -> tuple[object, Scorer]:
    names = FeatureNames.of(usecase.features)
    estimator = candidate.build(usecase.features, 1)
    estimator.fit(model_frame(names, rows), rows["label"].to_numpy())
    round_thresholds(estimator)
    manifest = Manifest(
        usecase=usecase.name,
        candidate=candidate.name,
        feature_set_hash="",
        features=names,
        calibration=Calibration(),
    )
    return estimator, Scorer(to_onnx(estimator, names), manifest)


def _hard_rows(rows: pa.Table) -> pd.DataFrame:
    """Real rows where every column is in turn missing, unknown, huge or exactly as it was."""
    frame = rows.select(["scarcity", "market_value", "days_open", "fail_rate_20d", "empty", *CATEGORIES]).to_pandas()
    step = {name: slice(i, None, 9) for i, name in enumerate(frame.columns)}
    for name in ("scarcity", "days_open", "market_value", "fail_rate_20d", "empty"):
        frame.iloc[step[name], frame.columns.get_loc(name)] = np.nan
        frame.iloc[slice(step[name].start + 1, None, 31), frame.columns.get_loc(name)] = 1e30
        frame.iloc[slice(step[name].start + 2, None, 37), frame.columns.get_loc(name)] = -1e300
    for name in CATEGORIES:
        frame[name] = frame[name].astype(object)
        frame.iloc[step[name], frame.columns.get_loc(name)] = None
        frame.iloc[slice(step[name].start + 1, None, 11), frame.columns.get_loc(name)] = "unheard of"
    return frame


@pytest.mark.parametrize("candidate", KINDS, ids=lambda c: c.name)
def test_export_equals_pipeline_on_hard_rows(usecase: UseCase, training_set: pa.Table, candidate: Candidate) -> None:
    """Guards the float32 thresholds of trees, and missing values where training had none."""
    estimator, scorer = _fitted(usecase, candidate, part_of(training_set, "train"))
    hard = _hard_rows(training_set)
    expected = estimator.predict_proba(model_frame(scorer.manifest.features, hard))[:, 1]
    for rows in (hard, pa.Table.from_pandas(hard)):
        given = scorer.score(rows)
        assert given.dtype == np.float64
        assert given.shape == (len(hard),)
        assert np.abs(given - expected).max() <= 1e-6
    assert prove_export(estimator, scorer, training_set, seed=1) <= 1e-6


@pytest.mark.parametrize("candidate", [c for c in KINDS if not c.is_rule], ids=lambda c: c.name)
def test_fits_a_frame_as_it_comes(usecase: UseCase, training_set: pa.Table, candidate: Candidate) -> None:
    """Guards use by hand: float64 numbers and categories that may be None."""
    frame = training_set.select([f.name for f in usecase.features]).to_pandas()
    estimator = candidate.build(usecase.features, 1).fit(frame, training_set["label"].to_numpy())
    assert np.isfinite(estimator.predict_proba(frame)).all()


def test_export_on_numeric_features_only(training_set: pa.Table, usecase: UseCase) -> None:
    """Guards use cases without categories, whose graph has one input."""
    names = FeatureNames(numeric=("scarcity", "days_open"), categorical=())
    features = tuple(f for f in usecase.features if f.name in names.all)
    for candidate in (candidates.rule("days_open", description=""), *KINDS[1:]):
        frame = model_frame(names, training_set)
        estimator = candidate.build(features, 1).fit(frame, training_set["label"].to_numpy())
        round_thresholds(estimator)
        manifest = Manifest(usecase="u", candidate="c", feature_set_hash="", features=names, calibration=Calibration())
        given = Scorer(to_onnx(estimator, names), manifest).score(training_set)
        assert np.abs(given - estimator.predict_proba(frame)[:, 1]).max() <= 1e-6


def test_lightgbm_thresholds_next_to_the_data() -> None:
    """Guards rounding: neighbouring float32 values fall on the same side in both."""
    rng = np.random.default_rng(3)
    near = np.float32(2**24) + np.arange(64, dtype=np.float32) * 2
    x = rng.choice(near, 4000)
    y = (rng.random(4000) < np.where(np.arange(64)[((x - 2**24) / 2).astype(int)] % 2, 0.8, 0.2)).astype(int)
    rows = pd.DataFrame({"x": x.astype(np.float64)})
    names = FeatureNames(("x",), ())
    for candidate in (
        candidates.lightgbm(n_estimators=20, min_child_samples=5, max_bin=255),
        candidates.hist_gradient_boosting(max_iter=20, min_samples_leaf=5),
    ):
        estimator = candidate.build((Feature("x", ""),), 1).fit(model_frame(names, rows), y)
        before = estimator.predict_proba(model_frame(names, rows))[:, 1]
        round_thresholds(estimator)
        after = estimator.predict_proba(model_frame(names, rows))[:, 1]
        assert np.array_equal(before, after)
        manifest = Manifest(usecase="u", candidate="c", feature_set_hash="", features=names, calibration=Calibration())
        assert np.abs(Scorer(to_onnx(estimator, names), manifest).score(rows) - after).max() <= 1e-6


@pytest.mark.parametrize("sign", [1, -1])
def test_rule_ranks_by_its_column_whatever_the_data_say(usecase: UseCase, training_set: pa.Table, sign: int) -> None:
    """Guards a rule against being turned upside down by one odd period, and values near 1e9."""
    values = np.concatenate([[0.0, 1e-3, 1.0], np.linspace(1e9, 1.1e9, 500), [1e12]])
    fails = (np.random.default_rng(1).random(len(values)) < (0.3 + 0.2 * sign * np.tanh(values - 1e9))).astype(int)
    rows = (
        training_set.select(FeatureNames.of(usecase.features).all)
        .slice(0, len(values))
        .to_pandas()
        .assign(market_value=values)
    )
    estimator = candidates.rule("market_value", description="").build(usecase.features, 1)
    names = FeatureNames.of(usecase.features)
    estimator.fit(model_frame(names, rows), fails)
    manifest = Manifest(usecase="u", candidate="rule", feature_set_hash="", features=names, calibration=Calibration())
    scores = Scorer(to_onnx(estimator, names), manifest).score(rows)
    assert (np.diff(scores) >= 0).all()
    assert len(np.unique(scores)) > 450


def test_rule_by_a_column_that_is_not_a_number(usecase: UseCase) -> None:
    with pytest.raises(ValueError, match="asset_class"):
        candidates.rule("asset_class", description="").build(usecase.features, 1)


def test_missing_columns_are_named(usecase: UseCase, training_set: pa.Table) -> None:
    names = FeatureNames.of(usecase.features)
    with pytest.raises(MissingColumnsError, match="lack 2 of the model's 7 features: days_open, scarcity"):
        model_frame(names, training_set.drop_columns(["scarcity", "days_open"]))


def test_nothing_to_score(usecase: UseCase, training_set: pa.Table) -> None:
    """Guards the empty day."""
    _, scorer = _fitted(usecase, candidates.logistic(), training_set)
    assert scorer.score(training_set.slice(0, 0)).shape == (0,)
    assert scorer.score(training_set.slice(0, 0).to_pandas()).shape == (0,)


def test_importing_the_candidates_imports_no_learning_library() -> None:
    """Guards the start of the code server: scikit-learn and LightGBM come when a model is built."""
    import subprocess
    import sys

    code = (
        "import sys, ml_assets.learning.candidates as c; c.lightgbm(); c.rule('x', description='');"
        "sys.exit(bool({'sklearn', 'lightgbm', 'onnx', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
