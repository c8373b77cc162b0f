"""Fit one candidate: train, calibrate, export, prove the export, measure on the unseen window."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.learning.bootstrap import metric_value
from ml_assets.learning.calibration import Calibration, choose_calibration, with_level
from ml_assets.learning.export import ExportMismatchError, round_thresholds, to_onnx
from ml_assets.learning.folds import walk_forward
from ml_assets.learning.frames import MISSING_CATEGORY, FeatureNames, model_frame
from ml_assets.learning.gate import PARITY_TOLERANCE, ModelEvidence
from ml_assets.learning.metrics import average_precision, evaluate, population_stability
from ml_assets.learning.reasons import choose_background
from ml_assets.learning.scorer import Manifest, Scorer
from ml_assets.learning.training_set import TrainingSetError, part_of
from ml_assets.learning.window import Window
from ml_assets.spec import Candidate, UseCase

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from ml_assets.learning.search import Search

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
    pipeline's last step, `searched` those of them that were searched for, `search` how. `folds` is the gate's metric
    on each walk-forward fold, earliest first. `metrics["validation"]`, what the challenger is chosen by, is their mean
    or, without folds, the gate's metric on the calibration window.
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
        """What the gate asks of it."""
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
) -> FittedCandidate:
    """Return the candidate fitted on `train`, calibrated on `calibration` and measured on `test`.

    With `SplitSpec.refit` what scores is then fitted on both parts; the shape of its calibration stays.
    Before that, it is measured on walk-forward folds of `train`, and its parameters are searched there if it asks for
    it. `training_set` is from `build_training_set`; `threads` 0 is one a core. `parameters` are what an earlier search
    found: with them, there is no search and there are no folds.

    Raises:
        TrainingSetError: the train part has only one outcome.
        ExportMismatchError: the ONNX model and the pipeline differ by more than `PARITY_TOLERANCE` in
        probability.
    """
    from ml_assets.learning.search import score_fold, search_parameters

    started = time.perf_counter()
    names = FeatureNames.of(usecase.features)
    train, calibration, test = (part_of(training_set, part) for part in ("train", "calibration", "test"))
    learned = pa.concat_tables([train, calibration])
    search: Search | None = None
    folds: tuple[float, ...] = ()
    if parameters is None:
        if candidate.search is not None:
            search = search_parameters(usecase, candidate, candidate.search, training_set, threads=threads)
            folds = max(search.trials, key=lambda t: -np.inf if t.value is None else t.value).folds
        else:
            cut = walk_forward(training_set, usecase.split)
            folds = tuple(score_fold(usecase, candidate, fold, {}, threads=threads) for fold in cut)
    searched = dict(search.best if search is not None else parameters or {})
    estimator = fit_pipeline(usecase, candidate, train, searched, threads=threads)
    with _threads(threads):
        round_thresholds(estimator)
        # A level of all days learned from needs the train days' too; the calibration days come after them.
        wanted = learned if usecase.split.level_from == "learned" else calibration
        predicted = predict(estimator, model_frame(names, wanted))
        uncalibrated = predicted[len(predicted) - calibration.num_rows :]
        fitted_calibration, calibrations = choose_calibration(uncalibrated, calibration["label"].to_numpy())
        if usecase.split.level_from == "learned":
            fitted_calibration = with_level(fitted_calibration, predicted, learned["label"].to_numpy())
        if usecase.split.refit:
            estimator = fit_pipeline(usecase, candidate, learned, searched, threads=threads)
            round_thresholds(estimator)
            # It knows the level of the calibration days: what brought the first model there must not count twice.
            predicted = predict(estimator, model_frame(names, wanted))
            fitted_calibration = with_level(fitted_calibration, predicted, wanted["label"].to_numpy())
        manifest = Manifest(
            usecase=usecase.name,
            candidate=candidate.name,
            feature_set_hash=usecase.feature_set_hash,
            features=names,
            calibration=fitted_calibration,
            background=choose_background(names, calibration, uncalibrated),
        )
        scorer = Scorer(to_onnx(estimator, names), manifest, threads=threads)
        parity = prove_export(estimator, scorer, pa.concat_tables([calibration, test]), seed=usecase.seed)
    window = Window.of(test)
    probabilities = scorer.score(test)
    metrics = evaluate(window, probabilities, capacity=usecase.capacity, action=usecase.action)
    metrics["score_psi"] = population_stability(scorer.score(calibration), probabilities)
    metrics["validation"] = (
        float(np.mean(folds)) if folds else metric_value(Window.of(calibration), uncalibrated, usecase.gate.metric)
    )
    if folds:
        metrics["folds_deviation"] = float(np.std(folds))
    return FittedCandidate(
        name=candidate.name,
        is_rule=candidate.is_rule,
        estimator=estimator,
        scorer=scorer,
        calibration=fitted_calibration,
        metrics=metrics,
        probabilities=probabilities,
        window_hash=window.hash,
        trained_until=pc.max(learned["label_known_at"]).as_py().astimezone(UTC),
        parity_max_abs_difference=parity,
        importances=permutation_importances(scorer, test, seed=usecase.seed),
        parameters=estimator.steps[-1][1].get_params(),
        rows={"train": train.num_rows, "calibration": calibration.num_rows, "test": test.num_rows},
        seconds=time.perf_counter() - started,
        folds=folds,
        searched=searched,
        search=search,
        calibrations=calibrations,
    )


def fit_pipeline(
    usecase: UseCase, candidate: Candidate, rows: pa.Table, parameters: Mapping[str, Any], *, threads: int = 1
) -> Pipeline:
    """Return the candidate's pipeline fitted on labelled rows; `parameters` override those of its last step.

    Raises:
        TrainingSetError: the rows have only one outcome.
    """
    y = rows["label"].to_numpy()
    if len(np.unique(y)) < 2:
        raise TrainingSetError(
            f"use case {usecase.name}: all {len(y)} labels of the train part are alike; there is nothing to "
            "learn. Look at label.sql and at the curated events of those dates"
        )
    estimator: Any = candidate.build(usecase.features, usecase.seed)
    last_step = estimator.steps[-1][1]
    if last_step.get_params().get("n_jobs") is not None:
        last_step.set_params(n_jobs=threads)
    last_step.set_params(**parameters)
    with _threads(threads):
        estimator.fit(model_frame(FeatureNames.of(usecase.features), rows), y)
    return estimator


def predict(estimator: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the uncalibrated probabilities of a pipeline: (n,)."""
    if not len(frame):
        return np.empty(0)
    return np.asarray(estimator.predict_proba(frame)[:, 1], dtype=np.float64)


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


def _threads(threads: int) -> Any:
    """Return a context in which BLAS and OpenMP use so many threads; 0 is one a core."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=threads or None)


def _with_gaps(frame: pd.DataFrame, names: FeatureNames, rng: np.random.Generator) -> pd.DataFrame:
    """Return the frame with a tenth of its values missing, and a tenth of its categories never seen."""
    gaps = frame.copy()
    for name in names.all:
        gaps.loc[rng.random(len(gaps)) < 0.1, name] = np.nan if name in names.numeric else MISSING_CATEGORY
    for name in names.categorical:
        gaps.loc[rng.random(len(gaps)) < 0.1, name] = "never seen before"
    return gaps
