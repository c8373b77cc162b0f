"""Fit one candidate: train, calibrate, export, prove the export, measure on the unseen window."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.learning.bootstrap import metric_value
from ml_assets.learning.calibration import Calibration, choose_calibration, with_level
from ml_assets.learning.drift_reference import drift_reference
from ml_assets.learning.export import ExportMismatchError, round_thresholds, to_onnx
from ml_assets.learning.folds import walk_forward
from ml_assets.learning.frames import MISSING_CATEGORY, FeatureNames, model_frame
from ml_assets.learning.gate import PARITY_TOLERANCE, ModelEvidence
from ml_assets.learning.metrics import evaluate
from ml_assets.learning.pipelines import fit_pipeline, limited_threads, predict, predict_rows
from ml_assets.learning.reasons import Explainer, choose_background
from ml_assets.learning.reference import ScoreReference, reference_of
from ml_assets.learning.scorer import Manifest, Scorer
from ml_assets.learning.search import Search, score_fold, search_parameters
from ml_assets.learning.stability import population_stability
from ml_assets.learning.statistics import average_precision
from ml_assets.learning.training_set import part_of
from ml_assets.learning.window import Window
from ml_assets.spec import Candidate, UseCase

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# Rows on which the export is proved and the importances are measured: enough to meet rare branches, a second
# of work.
PARITY_ROWS = 20_000
IMPORTANCE_ROWS = 10_000


@dataclass(frozen=True)
class FittedCandidate:
    """A fitted, calibrated and exported model, and how it did on the test part.

    `estimator` is the uncalibrated pipeline; `scorer` is what scores. `importances` maps each feature to the
    PR-AUC lost on the test part when its values are shuffled (0 or below: not used there). `trained_until` is
    when the last label was known that it was fitted or calibrated on. `parameters` are those of the
    pipeline's last step, `searched` those of them that were searched, `search` how. `folds` is the gate's metric on
    each walk-forward fold, earliest first. The challenger is chosen by `metrics["validation"]`: the mean over the
    folds or, without folds, the gate's metric on the calibration window.
    """

    name: str
    is_rule: bool
    estimator: Pipeline
    scorer: Scorer
    calibration: Calibration
    metrics: dict[str, float]
    probabilities: NDArray[np.float64]
    window_hash: str
    trained_until: datetime
    parity_max_abs_difference: float
    importances: dict[str, float]
    parameters: dict[str, Any]
    rows: Mapping[str, int]
    seconds: float
    folds: tuple[float, ...] = ()
    searched: Mapping[str, Any] = field(default_factory=dict)
    search: Search | None = None
    calibrations: Mapping[str, float] = field(default_factory=dict)

    @property
    def evidence(self) -> ModelEvidence:
        """The evidence that the gate judges."""
        return ModelEvidence(
            name=self.name,
            window_hash=self.window_hash,
            metrics=self.metrics,
            trained_until=self.trained_until,
            parity_max_abs_difference=self.parity_max_abs_difference,
        )


def fit_candidate(
    usecase: UseCase,
    candidate: Candidate,
    training_set: pa.Table,
    *,
    threads: int = 1,
    parameters: Mapping[str, Any] | None = None,
    acted_on: pa.Table | None = None,
) -> FittedCandidate:
    """Return the candidate fitted on `train`, calibrated on `calibration` and measured on `test`.

    With `SplitSpec.refit` the model that scores is then fitted on both parts; the shape of its calibration stays.
    Before that, the candidate is measured on walk-forward folds of `train`, and its parameters are searched there if it
    has a `SearchSpec`. `training_set` is from `build_training_set`; `threads` 0 means one per core. `parameters` are
    the result of an earlier search: with them there is no search and there are no folds.

    `acted_on` are the decisions of the same dates that are not in the training set because the team acted on them, with
    `part`, features and slices. Nothing is learned from them, but a live date has such decisions, so the reference with
    which later dates are compared has them too.

    Raises:
        TrainingSetError: the train part has only one outcome.
        ExportMismatchError: the ONNX model and the pipeline differ by more than `PARITY_TOLERANCE` in
        probability.
    """
    started = time.perf_counter()
    train, calibration, test = (part_of(training_set, part) for part in ("train", "calibration", "test"))
    tuned = _tune(usecase, candidate, training_set, parameters, threads=threads)
    fitted = _fit_calibrated(usecase, candidate, train, calibration, tuned.parameters, threads=threads)
    with limited_threads(threads):
        scorer = _export(usecase, candidate, fitted, calibration, threads=threads)
        parity = prove_export(fitted.estimator, scorer, pa.concat_tables([calibration, test]), seed=usecase.seed)
    scores = scorer.score(calibration)
    reference = _reference(usecase, scorer, training_set, scores, acted_on)
    scorer.manifest = msgspec.structs.replace(scorer.manifest, reference=reference)
    window = Window.of(test)
    probabilities = scorer.score(test)
    metrics = evaluate(window, probabilities, capacity=usecase.capacity, action=usecase.action)
    metrics["score_psi"] = population_stability(scores, probabilities)
    metrics |= _validation(usecase, calibration, fitted.uncalibrated, tuned.folds)
    return FittedCandidate(
        name=candidate.name,
        is_rule=candidate.is_rule,
        estimator=fitted.estimator,
        scorer=scorer,
        calibration=fitted.calibration,
        metrics=metrics,
        probabilities=probabilities,
        window_hash=window.hash,
        trained_until=pc.max(pa.concat_tables([train, calibration])["label_known_at"]).as_py().astimezone(UTC),
        parity_max_abs_difference=parity,
        importances=permutation_importances(scorer, test, seed=usecase.seed),
        parameters=fitted.estimator.steps[-1][1].get_params(),
        rows={"train": train.num_rows, "calibration": calibration.num_rows, "test": test.num_rows},
        seconds=time.perf_counter() - started,
        folds=tuned.folds,
        searched=tuned.parameters,
        search=tuned.search,
        calibrations=fitted.calibrations,
    )


class _Tuned(NamedTuple):
    """Parameters for the last step, the gate's metric on each fold, and the search that found them, if there was."""

    parameters: dict[str, Any]
    folds: tuple[float, ...]
    search: Search | None


class _Fitted(NamedTuple):
    """A pipeline with its calibration; `uncalibrated` (n,) is what the first fit gave to the calibration rows."""

    estimator: Pipeline
    calibration: Calibration
    calibrations: dict[str, float]
    uncalibrated: NDArray[np.float64]


def _tune(
    usecase: UseCase,
    candidate: Candidate,
    training_set: pa.Table,
    parameters: Mapping[str, Any] | None,
    *,
    threads: int,
) -> _Tuned:
    """Search the parameters on folds, or measure the candidate there as written; given parameters are used as such."""
    if parameters is not None:
        return _Tuned(dict(parameters), (), None)
    if candidate.search is not None:
        search = search_parameters(usecase, candidate, candidate.search, training_set, threads=threads)
        best = max(search.trials, key=lambda t: -np.inf if t.value is None else t.value)
        return _Tuned(dict(search.best), best.folds, search)
    cut = walk_forward(training_set, usecase.split)
    return _Tuned({}, tuple(score_fold(usecase, candidate, fold, {}, threads=threads) for fold in cut), None)


def _fit_calibrated(
    usecase: UseCase,
    candidate: Candidate,
    train: pa.Table,
    calibration: pa.Table,
    parameters: Mapping[str, Any],
    *,
    threads: int,
) -> _Fitted:
    """Fit on the train rows, calibrate on the calibration rows, and fit again on both if the use case says so."""
    names = FeatureNames.of(usecase.features)
    learned = pa.concat_tables([train, calibration])
    estimator = fit_pipeline(usecase, candidate, train, parameters, threads=threads)
    with limited_threads(threads):
        round_thresholds(estimator)
        # A level of all days learned from needs the train days' too; the calibration days come after them.
        wanted = learned if usecase.split.level_from == "learned" else calibration
        predicted = predict_rows(estimator, names, wanted)
        uncalibrated = predicted[len(predicted) - calibration.num_rows :]
        chosen, calibrations = choose_calibration(uncalibrated, calibration["label"].to_numpy())
        if usecase.split.level_from == "learned":
            chosen = with_level(chosen, predicted, learned["label"].to_numpy())
        if usecase.split.refit:
            estimator = fit_pipeline(usecase, candidate, learned, parameters, threads=threads)
            round_thresholds(estimator)
            # The refitted model knows the level of the calibration days: the first model's shift must not count twice.
            predicted = predict_rows(estimator, names, wanted)
            chosen = with_level(chosen, predicted, wanted["label"].to_numpy())
    return _Fitted(estimator, chosen, calibrations, uncalibrated)


def _export(usecase: UseCase, candidate: Candidate, fitted: _Fitted, calibration: pa.Table, *, threads: int) -> Scorer:
    """Return the scorer of a fitted candidate, without the reference for judging its scores."""
    names = FeatureNames.of(usecase.features)
    manifest = Manifest(
        usecase=usecase.name,
        candidate=candidate.name,
        feature_set_hash=usecase.feature_set_hash,
        features=names,
        calibration=fitted.calibration,
        background=choose_background(names, calibration, fitted.uncalibrated),
    )
    return Scorer(to_onnx(fitted.estimator, names), manifest, threads=threads)


def _reference(
    usecase: UseCase,
    scorer: Scorer,
    training_set: pa.Table,
    scores: NDArray[np.float64],
    acted_on: pa.Table | None,
) -> ScoreReference:
    """Return what later dates are compared with: all decisions of the training set's dates, as they were decided.

    `scores` (n,) are those of the calibration rows of the training set.
    """
    names = scorer.manifest.features
    decided = training_set
    if acted_on is not None and acted_on.num_rows:
        decided = pa.concat_tables([training_set.select(acted_on.column_names), acted_on])
        scores = np.concatenate([scores, scorer.score(part_of(acted_on, "calibration"))])
    reference = reference_of(names, part_of(training_set, "train"), part_of(decided, "calibration"), scores)
    explain = Explainer(usecase, scorer).mean_contributions if usecase.causes else None
    return msgspec.structs.replace(reference, drift=drift_reference(names, decided, scorer.score, explain))


def _validation(
    usecase: UseCase, calibration: pa.Table, uncalibrated: NDArray[np.float64], folds: tuple[float, ...]
) -> dict[str, float]:
    """Return the metric by which challengers are chosen, and its deviation over the folds if there are any."""
    if folds:
        return {"validation": float(np.mean(folds)), "folds_deviation": float(np.std(folds))}
    return {"validation": metric_value(Window.of(calibration), uncalibrated, usecase.gate.metric)}


def prove_export(estimator: Pipeline, scorer: Scorer, rows: pa.Table, *, seed: int) -> float:
    """Return the largest difference in probability of pipeline and scorer, before or after calibration.

    Proved on up to `PARITY_ROWS` of the rows, and on as many copies whose values are missing or unknown here
    and there.

    Raises:
        ExportMismatchError: it is above `PARITY_TOLERANCE`, or a probability is not a number.
    """
    names = scorer.manifest.features
    rng = np.random.default_rng(seed)
    if rows.num_rows > PARITY_ROWS:
        rows = rows.take(np.sort(rng.choice(rows.num_rows, PARITY_ROWS, replace=False)))
    real = model_frame(names, rows)
    frame = pd.concat([real, _with_gaps(real, names, rng)], ignore_index=True)
    pipeline, exported = predict(estimator, frame), scorer.score_uncalibrated(frame)
    calibrate = scorer.manifest.calibration.apply
    differences = [np.abs(pipeline - exported), np.abs(calibrate(pipeline) - calibrate(exported))]
    largest = float(np.max(differences))
    if not largest <= PARITY_TOLERANCE:
        worst = int(np.argmax(differences[0]))
        raise ExportMismatchError(
            f"candidate {scorer.manifest.candidate!r}: the ONNX model gives {exported[worst]:.9f} where the "
            f"pipeline gives {pipeline[worst]:.9f}, and {largest:.2e} is above {PARITY_TOLERANCE:.0e}; do "
            f"not register it. The row: {frame.iloc[worst].to_dict()}"
        )
    return largest


def permutation_importances(scorer: Scorer, rows: pa.Table, *, seed: int) -> dict[str, float]:
    """Return by feature the loss in PR-AUC when its values are shuffled, largest first; NaN without a
    positive.

    Breiman 2001, on up to `IMPORTANCE_ROWS` rows, one shuffle each.
    """
    rng = np.random.default_rng(seed)
    if rows.num_rows > IMPORTANCE_ROWS:
        rows = rows.take(np.sort(rng.choice(rows.num_rows, IMPORTANCE_ROWS, replace=False)))
    names = scorer.manifest.features
    frame, labels = model_frame(names, rows), rows["label"].to_numpy().astype(np.float64)
    score = average_precision(labels, scorer.score(frame))
    order = rng.permutation(len(frame))
    losses = {}
    for name in names.all:
        shuffled = frame.copy(deep=False)
        shuffled[name] = frame[name].to_numpy()[order]
        losses[name] = score - average_precision(labels, scorer.score(shuffled))
    return dict(sorted(losses.items(), key=lambda item: -item[1]))


def _with_gaps(frame: pd.DataFrame, names: FeatureNames, rng: np.random.Generator) -> pd.DataFrame:
    """Return the frame with a tenth of its values missing, and a tenth of its categories never seen."""
    gaps = frame.copy()
    for name in names.all:
        gaps.loc[rng.random(len(gaps)) < 0.1, name] = np.nan if name in names.numeric else MISSING_CATEGORY
    for name in names.categorical:
        gaps.loc[rng.random(len(gaps)) < 0.1, name] = "never seen before"
    return gaps
