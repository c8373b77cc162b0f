"""A frozen model on days that it has never seen, against the rule of the same training."""

from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray
from sqlalchemy import Engine

from ml_assets.errors import InputError, NotFoundError
from ml_assets.lake import Lake, features_table, labels_table
from ml_assets.learning.gate import ModelEvidence
from ml_assets.learning.metrics import evaluate
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.slices import with_slices
from ml_assets.learning.training_set import labelled
from ml_assets.learning.window import Window
from ml_assets.lifecycle.champion import settle
from ml_assets.lifecycle.evaluation import read_model_evidence
from ml_assets.registry import ModelRegistry
from ml_assets.spec import UseCase

WHOLE = "all"
# Metrics of model and rule that a month's row shows.
_SHOWN = ("per_day_pr_auc", "roc_auc", "calibration_error")


@dataclass(frozen=True)
class Backtest:
    """A version of the model and the rule on labelled decisions, the probabilities in the order of the window: (n,).

    `trained_until` is when the last label was known that one of the two was fitted or calibrated on.
    """

    version: int
    trained_until: datetime
    window: Window
    model: NDArray[np.float64]
    rule: NDArray[np.float64]


def backtest(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    first: date,
    last: date,
    *,
    version: int | None = None,
    threads: int = 0,
) -> Backtest:
    """Return a version, by default the champion, and its rule on the decisions of these dates that have an outcome.

    Both are scored as they were saved; nothing is fitted or calibrated.

    Raises:
        LookupError: there is no such version, no rule of its training, or no labelled decision of these dates.
        ValueError: a label that the models learned from was known only after the first of these decisions, so the dates
            are not unseen; or the features are no longer those of the version.
    """
    champion = settle(registry, engine, usecase) if version is None else None
    if version is not None:
        model = registry.version(usecase.name, version)
    elif champion is not None:
        model = champion.version
    else:
        raise NotFoundError(f"use case {usecase.name} has no champion; name a version, or run its retraining job first")
    trained = date.fromisoformat(registry.run(model.run_id).tags["training_date"])
    runs = registry.candidate_runs(usecase.name, trained)
    if usecase.rule.name not in runs:
        raise NotFoundError(f"use case {usecase.name}: no MLflow run of the rule {usecase.rule.name!r} for {trained}")
    run_ids = (model.run_id, runs[usecase.rule.name].run_id)
    rows = read_labelled(lake, usecase, first, last)
    window = Window.of(rows)
    until = _trained_until(usecase, [read_model_evidence(registry, run_id) for run_id in run_ids], window)
    hashes = (champion.model_hash if champion else None, None)
    scorers = [
        Scorer.from_files(registry.download_model(run_id, expected), threads=threads)
        for run_id, expected in zip(run_ids, hashes, strict=True)
    ]
    if scorers[0].manifest.feature_set_hash != usecase.feature_set_hash:
        raise InputError(
            f"use case {usecase.name}: version {model.version} was trained on another definition of the features than "
            "the lake holds now; retrain, or check out the code of that version"
        )
    return Backtest(model.version, until, window, *(scorer.score(rows) for scorer in scorers))


def read_labelled(lake: Lake, usecase: UseCase, first: date, last: date) -> pa.Table:
    """Return the decisions of these dates that have an outcome, with features, label and slices.

    Raises:
        LookupError: there are none.
    """
    decided = (ds.field("decision_date") >= first) & (ds.field("decision_date") <= last)
    features, labels = lake.dataset(features_table(usecase)), lake.dataset(labels_table(usecase))
    if features is not None and labels is not None:
        found = features.to_table(filter=decided)
        attributes = found.select(["entity_id", "decision_time", "attributes"])
        outcomes = labels.to_table(filter=ds.field("outcome_date") >= first).drop_columns(
            ["known_date", "outcome_date"]
        )
        rows = labelled(found.drop_columns(["attributes"]), outcomes)
        if rows.num_rows:
            part = pa.array(["test"] * rows.num_rows)
            return with_slices(usecase, rows.append_column("part", part), attributes)
    raise NotFoundError(
        f"use case {usecase.name} has no decision from {first} to {last} with a known outcome; "
        f"`ml-assets ingest {usecase.name}` makes features and labels of what has landed"
    )


def by_month(usecase: UseCase, window: Window, model: NDArray[np.float64], rule: NDArray[np.float64]) -> pd.DataFrame:
    """Return model and rule by month, for all decisions and for the focus of each slice that has one.

    Columns: decisions (`all`, or the slice's name), month (`all` for the whole window), n, base_rate, of each of
    per_day_pr_auc, roc_auc and calibration_error the model's and the `rule_` one, and gain, the share by which the
    model's per_day_pr_auc is above the rule's. A metric is NaN where it is not defined.
    """
    months = window.dates.astype("datetime64[M]").astype(str)
    focused = {
        s.name: window.slices[s.name] == s.focus for s in usecase.gate.slices if s.focus and s.name in window.slices
    }
    rows = []
    for name, among in {WHOLE: np.ones(len(window), dtype=np.bool_), **focused}.items():
        for month in [*np.unique(months), WHOLE]:
            chosen = among & ((months == month) | (month == WHOLE))
            if not chosen.any():
                continue
            part = window.take(chosen)
            ours, other = (
                evaluate(part, p[chosen], capacity=usecase.capacity, action=usecase.action) for p in (model, rule)
            )
            rows.append(
                {
                    "decisions": name,
                    "month": str(month),
                    "n": len(part),
                    "base_rate": ours["base_rate"],
                    **{metric: ours[metric] for metric in _SHOWN},
                    **{f"rule_{metric}": other[metric] for metric in _SHOWN},
                    "gain": ours["per_day_pr_auc"] / other["per_day_pr_auc"] - 1,
                }
            )
    return pd.DataFrame(rows)


def _trained_until(usecase: UseCase, models: list[ModelEvidence], window: Window) -> datetime:
    """Return the time by which the models had seen all that they learned from, if that is before the window."""
    known = [model.trained_until for model in models]
    first = window.first_decision_time
    times = [moment for moment in known if moment is not None]
    if len(times) < len(known) or first is None:
        raise InputError(f"use case {usecase.name}: it is not known until when the models were trained")
    if max(times) >= first:
        raise InputError(
            f"use case {usecase.name}: the models learned from labels known until {max(times):%Y-%m-%d %H:%M}, after "
            f"the first of these decisions ({first:%Y-%m-%d %H:%M}); choose later dates"
        )
    return max(times)
