from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.learning.calibration import Calibration, with_level
from ml_assets.learning.compare import choose_challenger, compare
from ml_assets.learning.evidence import build_evidence
from ml_assets.learning.export import ExportMismatchError
from ml_assets.learning.fit import FittedCandidate, fit_candidate, prove_export
from ml_assets.learning.frames import FeatureNames, model_frame
from ml_assets.learning.gate import ServingEvidence, judge
from ml_assets.learning.metrics import evaluate, share_of_best
from ml_assets.learning.pipelines import fit_pipeline, predict
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.training_set import TrainingSetError, part_of
from ml_assets.learning.window import Window
from ml_assets.spec import GateSpec, SliceSpec, UseCase
from ml_assets_tests.learning.conftest import draw


@pytest.fixture(scope="module")
def fitted(usecase: UseCase, training_set: pa.Table) -> dict[str, FittedCandidate]:
    return {c.name: fit_candidate(usecase, c, training_set, threads=1) for c in usecase.candidates}


def test_candidates_find_what_is_there(fitted: dict[str, FittedCandidate], training_set: pa.Table) -> None:
    """Minimum functionality: better than the rule, near the truth, driven by the features that matter."""
    features, _, truth = draw()
    true_p = dict(zip(features["entity_id"].to_pylist(), truth, strict=True))
    test = part_of(training_set, "test")
    window = Window.of(test)
    best = evaluate(window, [true_p[i] for i in test["entity_id"].to_pylist()], capacity=20)
    assert 0.5 < share_of_best(fitted["logistic"].metrics, best) < 1.1
    for name in ("logistic", "lightgbm", "hist_gradient_boosting"):
        assert fitted[name].metrics["pr_auc"] > fitted["rule"].metrics["pr_auc"]
        assert next(iter(fitted[name].importances)) in {"scarcity", "fail_rate_20d"}
        assert fitted[name].metrics["calibration_error"] < 0.05
    assert fitted["rule"].is_rule


def test_saved_scorer_scores_the_same(
    fitted: dict[str, FittedCandidate], training_set: pa.Table, usecase: UseCase, tmp_path: Path
) -> None:
    for name, candidate in fitted.items():
        candidate.scorer.save(tmp_path / name)
        loaded = Scorer.from_files(tmp_path / name)
        assert np.array_equal(loaded.score(training_set), candidate.scorer.score(training_set))
        assert loaded.manifest == candidate.scorer.manifest
        assert loaded.manifest.feature_set_hash == usecase.feature_set_hash
    assert sorted(p.name for p in (tmp_path / "logistic").iterdir()) == ["manifest.json", "model.onnx"]
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        Scorer.from_files(tmp_path)


@pytest.mark.parametrize("candidate", ["rule", "logistic", "lightgbm", "hist_gradient_boosting"])
def test_order_and_batches_do_not_matter(
    fitted: dict[str, FittedCandidate], training_set: pa.Table, candidate: str
) -> None:
    """Guards replay: one row alone gives the number that it gave in a batch, also of a linear model."""
    scorer = fitted[candidate].scorer
    whole = scorer.score(training_set)
    for size in (1, 2, 7):
        parts = [scorer.score(training_set.slice(at, size)) for at in range(0, 300, size)]
        assert np.array_equal(whole[: 300 + -300 % size], np.concatenate(parts))


def test_fitting_twice_gives_the_same_model(
    fitted: dict[str, FittedCandidate], usecase: UseCase, training_set: pa.Table
) -> None:
    """Guards reproducibility: same data and seed, same probabilities."""
    again = fit_candidate(usecase, usecase.candidates[2], training_set, threads=2)
    assert np.array_equal(again.probabilities, fitted["lightgbm"].probabilities)
    assert again.estimator.steps[-1][1].n_jobs == 2


def test_wrong_export_is_refused(fitted: dict[str, FittedCandidate], training_set: pa.Table) -> None:
    """Guards the registry: a scorer of another model does not pass for this one's."""
    with pytest.raises(ExportMismatchError, match="do not register"):
        prove_export(fitted["logistic"].estimator, fitted["lightgbm"].scorer, training_set, seed=1)


def test_one_outcome_is_nothing_to_learn(usecase: UseCase, training_set: pa.Table) -> None:
    index = training_set.column_names.index("label")
    settled = training_set.set_column(index, "label", pa.array(np.zeros(len(training_set), dtype=np.int8)))
    with pytest.raises(TrainingSetError, match="nothing to learn"):
        fit_candidate(usecase, usecase.rule, settled)


def test_test_window_without_a_fail_is_undefined_not_an_error(usecase: UseCase, training_set: pa.Table) -> None:
    """Guards the quiet week: metrics are NaN, and the gate says no."""
    labels = pc.if_else(pc.equal(training_set["part"], "test"), pa.scalar(0, pa.int8()), training_set["label"])
    quiet = training_set.set_column(training_set.column_names.index("label"), "label", labels)
    logistic = fit_candidate(usecase, usecase.candidates[1], quiet)
    assert np.isnan(logistic.metrics["pr_auc"])
    comparison = compare(part_of(quiet, "test"), {"rule": logistic.scorer, "logistic": logistic.scorer}, capacity=20)
    evidence = build_evidence(
        GateSpec(), comparison, dict.fromkeys(("rule", "logistic"), logistic.evidence),
        challenger="logistic", rule="rule", champion=None, seed=1,
    )  # fmt: skip
    undefined = {"lift", "pr_auc_against_rule", "gain_over_rule_low"}
    assert undefined <= {c.name for c in judge(GateSpec(), evidence).failures}


def test_a_stress_in_the_calibration_days_does_not_stay(usecase: UseCase, training_set: pa.Table) -> None:
    """Guards the level: days of twice the fails once made every later probability twice too high."""
    stressed = training_set["label"].to_numpy().copy()
    rng = np.random.default_rng(0)
    stressed[
        (training_set["part"].to_numpy(zero_copy_only=False) == "calibration") & (rng.random(len(stressed)) < 0.2)
    ] = 1
    rows = training_set.set_column(training_set.column_names.index("label"), "label", pa.array(stressed, pa.int8()))
    everyday = replace(usecase, split=replace(usecase.split, level_from="learned"))
    of_days, of_all = (fit_candidate(each, usecase.candidates[1], rows) for each in (usecase, everyday))
    base_rate = part_of(rows, "test")["label"].to_numpy().mean()
    assert of_days.probabilities.mean() > 1.5 * base_rate
    assert of_all.probabilities.mean() < 1.3 * base_rate
    assert np.array_equal(np.argsort(of_all.probabilities), np.argsort(of_days.probabilities)), "the shape is the same"
    learned = part_of(rows, "train", "calibration")
    assert of_all.scorer.score(learned).mean() == pytest.approx(learned["label"].to_numpy().mean(), abs=1e-6)


def test_challenger_is_chosen_before_the_test_window(
    fitted: dict[str, FittedCandidate], usecase: UseCase, training_set: pa.Table
) -> None:
    """Guards the gate's evidence: other outcomes in the test window choose the same challenger."""
    validation = {name: candidate.metrics["validation"] for name, candidate in fitted.items()}
    assert choose_challenger(validation) == max(validation, key=lambda name: validation[name])
    flipped = pc.if_else(
        pc.equal(training_set["part"], "test"),
        pc.subtract(pa.scalar(1, pa.int8()), training_set["label"]), training_set["label"],
    )  # fmt: skip
    other = training_set.set_column(training_set.column_names.index("label"), "label", flipped)
    again = fit_candidate(usecase, usecase.candidates[1], other)
    assert again.metrics["pr_auc"] != fitted["logistic"].metrics["pr_auc"]
    assert again.metrics["validation"] == fitted["logistic"].metrics["validation"]


def test_challenger_of_which_nothing_is_known_is_an_error() -> None:
    """Guards the choice: a metric that is missing or not a number does not win, nor does one of several by chance."""
    assert choose_challenger({"a": None, "b": float("nan"), "c": 0.1}) == "c"
    assert choose_challenger({"rule": 0.2, "a": 0.2}) == "rule"
    assert choose_challenger({"rule": 0.2, "simple": 0.35, "a": 0.351, "b": 0.34}, 0.002) == "simple"
    assert choose_challenger({"rule": 0.2, "simple": 0.348, "a": 0.351}, 0.002) == "a"
    with pytest.raises(ValueError, match="none of a, b has a metric `validation`"):
        choose_challenger({"a": None, "b": float("nan")})


def test_compare_then_judge(fitted: dict[str, FittedCandidate], usecase: UseCase, training_set: pa.Table) -> None:
    test = part_of(training_set, "test")
    test = test.append_column("slice__class", test["asset_class"])
    comparison = compare(
        test,
        {name: c.scorer for name, c in fitted.items()} | {"champion": fitted["rule"].scorer},
        capacity=20,
    )
    chosen = choose_challenger({name: candidate.metrics["validation"] for name, candidate in fitted.items()})
    assert chosen in {"logistic", "lightgbm", "hist_gradient_boosting"}
    of_training = {name: fitted["rule"].metrics[name] for name in ("score_psi", "validation")}
    once_more = comparison.of("champion") | of_training
    assert once_more == pytest.approx(fitted["rule"].metrics, nan_ok=True)
    best = fitted[chosen]
    assert best.trained_until < comparison.window.first_decision_time
    sliced = SliceSpec("class", "asset_class", min_positives=20, focus="ETF", focus_gain=0.05)
    gate = replace(usecase.gate, min_test_positives=50, slices=(sliced,))
    models = {name: c.evidence for name, c in fitted.items()} | {"champion": fitted["rule"].evidence}
    evidence = build_evidence(
        gate, comparison, models, challenger=chosen, rule="rule", champion="champion", seed=usecase.seed
    )
    served = ServingEvidence(model_hash="m", rows=100, max_abs_difference=0.0, latency_ms=0.1, load_ms=1.0)
    assert not judge(gate, msgspec.structs.replace(evidence, serving=served)).failures
    by_class = {part.value: part for part in evidence.slices}
    assert set(by_class) == {"BOND", "EQUITY", "ETF", "unknown"}
    assert sum(part.n for part in by_class.values()) == len(comparison.window)
    assert evidence.gain_over_champion == evidence.gain_over_rule, "the champion is the rule here"
    (focus,) = evidence.focuses
    assert (focus.n, focus.positives) == (by_class["ETF"].n, by_class["ETF"].positives)
    assert focus.gain.value == pytest.approx(by_class["ETF"].challenger / by_class["ETF"].reference - 1)
    assert focus.gain.relative
    assert focus.gain.low < focus.gain.value < focus.gain.high
    assert best.trained_until.tzinfo is UTC
    assert best.trained_until < datetime(2024, 2, 1, tzinfo=UTC)
    assert isinstance(best.calibration, Calibration)


def test_a_refit_learns_from_the_calibration_days_and_is_calibrated_by_a_model_that_did_not(
    fitted: dict[str, FittedCandidate], usecase: UseCase, training_set: pa.Table
) -> None:
    """Guards the newest outcomes, which the model that scores must have seen, and the calibration, which must not."""
    refit = replace(usecase, split=replace(usecase.split, refit=True))
    once, again = fitted["logistic"], fit_candidate(refit, usecase.candidates[1], training_set)
    assert again.metrics["validation"] == once.metrics["validation"]
    by_hand = fit_pipeline(usecase, usecase.candidates[1], part_of(training_set, "train", "calibration"), {})
    names = FeatureNames.of(usecase.features)
    test = part_of(training_set, "test")
    days = part_of(training_set, "calibration")
    level = with_level(once.calibration, predict(by_hand, model_frame(names, days)), days["label"].to_numpy())
    expected = level.apply(predict(by_hand, model_frame(names, test)))
    assert np.abs(again.probabilities - expected).max() < 1e-6
    assert np.abs(again.probabilities - once.probabilities).max() > 1e-4
    assert again.scorer.score(days).mean() == pytest.approx(days["label"].to_numpy().mean(), abs=1e-6)
