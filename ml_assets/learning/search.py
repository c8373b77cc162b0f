"""Search for hyperparameters within a budget, on walk-forward folds; trials that fall behind are given up early.

The first trial is the candidate as it is written, so that a search never ends below it on the folds. The same seed,
data and number of trials give the same trials; a budget of seconds may end earlier on a slower machine, which is why
what was found is recorded and a model is made again from the record, not from another search.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from ml_assets.errors import InputError
from ml_assets.learning.bootstrap import metric_value
from ml_assets.learning.folds import Fold, walk_forward
from ml_assets.learning.frames import FeatureNames
from ml_assets.learning.pipelines import fit_pipeline, predict_rows
from ml_assets.learning.window import Window
from ml_assets.spec import Candidate, Choice, Integer, SearchSpec, Uniform, UseCase

if TYPE_CHECKING:
    import optuna

Value = bool | int | float | str | None
# Trials before any is given up: the median of fewer says little.
_STARTUP_TRIALS = 4


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One set of parameters: the metric on each fold that was fitted, and their mean if none was left out."""

    number: int
    state: Literal["complete", "pruned"]
    parameters: Mapping[str, Value]
    folds: tuple[float, ...]
    value: float | None
    seconds: float


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """All trials of a search in a metric, in order; `best` is the parameters to fit with."""

    metric: str
    best: Mapping[str, Value]
    trials: tuple[Trial, ...]

    @property
    def gain(self) -> float:
        """By how much the best trial is better on the folds than the candidate as it is written."""
        values = [trial.value for trial in self.trials if trial.value is not None]
        return max(values) - values[0]


def search_parameters(
    usecase: UseCase, candidate: Candidate, search: SearchSpec, training_set: pa.Table, *, threads: int = 1
) -> Search:
    """Return the search of a candidate's parameters on the folds of the train part.

    Raises:
        ValueError: there are no folds, or the candidate's own value of a parameter lies outside the space.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folds = walk_forward(training_set, usecase.split)
    if not folds:
        raise InputError(
            f"use case {usecase.name}: no walk-forward fold to search the parameters of {candidate.name!r} on; the "
            "train part is too short or has one outcome only. Lower fold_days in the SplitSpec, or drop the search"
        )
    own = _own_parameters(usecase, candidate, search)
    deadline = time.monotonic() + search.seconds
    scores: dict[int, list[float]] = {}

    def objective(trial: optuna.Trial) -> float:
        parameters = {name: _suggest(trial, name, over) for name, over in search.space.items()}
        found = scores.setdefault(trial.number, [])
        for fold in folds:
            if trial.number and time.monotonic() > deadline:
                raise optuna.TrialPruned
            found.append(score_fold(usecase, candidate, fold, parameters, threads=threads))
            trial.report(float(np.mean(found)), len(found))
            if len(found) < len(folds) and trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(found))

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=usecase.seed, n_startup_trials=_STARTUP_TRIALS),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=0),
    )
    study.enqueue_trial(own)
    study.optimize(objective, n_trials=search.trials, timeout=search.seconds)
    trials = tuple(
        Trial(
            number=trial.number,
            state="complete" if trial.state == optuna.trial.TrialState.COMPLETE else "pruned",
            parameters=trial.params,
            folds=tuple(scores.get(trial.number, ())),
            # Of a pruned trial optuna gives the value so far, over fewer folds.
            value=trial.value if trial.state == optuna.trial.TrialState.COMPLETE else None,
            seconds=trial.duration.total_seconds() if trial.duration else 0.0,
        )
        for trial in study.trials
    )
    return Search(metric=usecase.gate.metric, best=study.best_params, trials=trials)


def score_fold(
    usecase: UseCase, candidate: Candidate, fold: Fold, parameters: Mapping[str, Value], *, threads: int = 1
) -> float:
    """Return the gate's metric of a candidate fitted on the past of a fold, uncalibrated, on the days after."""
    estimator = fit_pipeline(usecase, candidate, fold.rows, parameters, threads=threads, among=fold.trained)
    validation = fold.validation
    p = predict_rows(estimator, FeatureNames.of(usecase.features), validation)
    return metric_value(Window.of(validation), p, usecase.gate.metric)


def _own_parameters(usecase: UseCase, candidate: Candidate, search: SearchSpec) -> dict[str, Any]:
    estimator: Any = candidate.build(usecase.features, usecase.seed)
    given = estimator.steps[-1][1].get_params()
    own = {}
    for name, over in search.space.items():
        if name not in given:
            raise InputError(f"candidate {candidate.name!r}: its model has no parameter {name!r} to search over")
        own[name] = given[name]
        inside = own[name] in over.options if isinstance(over, Choice) else over.low <= own[name] <= over.high
        if not inside:
            raise InputError(
                f"candidate {candidate.name!r}: {name}={own[name]!r} is not in the space {over}; the search begins "
                "with the candidate as it is written"
            )
    return own


def _suggest(trial: optuna.Trial, name: str, over: Uniform | Integer | Choice) -> Any:
    if isinstance(over, Choice):
        return trial.suggest_categorical(name, over.options)
    if isinstance(over, Integer):
        return trial.suggest_int(name, over.low, over.high, log=over.log)
    return trial.suggest_float(name, over.low, over.high, log=over.log)
