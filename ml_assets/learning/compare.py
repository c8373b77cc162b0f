"""Choose the challenger on days before the test window, and compare models on identical rows of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Self

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.errors import InputError
from ml_assets.learning.metrics import evaluate
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.window import Window
from ml_assets.spec import FREE_ACTION, ActionSpec


@dataclass(frozen=True)
class Comparison:
    """Metrics of several models on one window.

    `metrics` has one row per model, the best in `metric` first; `probabilities` maps model to (n,) in the order of the
    window.
    """

    window: Window
    metrics: pd.DataFrame
    probabilities: Mapping[str, NDArray[np.float64]]
    metric: str = "pr_auc"
    action: ActionSpec = FREE_ACTION

    def of(self, model: str) -> dict[str, float]:
        """Return the metrics of one model."""
        return {str(name): float(value) for name, value in self.metrics.loc[model].to_dict().items()}


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What the candidates were worth on the same unseen decisions, of `first` to `last` and with so many positives.

    `models` has by model, the best first, its metrics on the window, and as `validation` the metric on the days before,
    by which the challenger is chosen; None is unknown.
    """

    first: date
    last: date
    decisions: int
    positives: int
    models: Mapping[str, Mapping[str, float | None]]

    @classmethod
    def of(cls, comparison: Comparison, validation: Mapping[str, float | None]) -> Self:
        """Return what a comparison says."""
        window = comparison.window
        models = {
            name: {"validation": validation.get(name), **comparison.of(name)}
            for name in map(str, comparison.metrics.index)
        }
        dates = window.dates.astype("datetime64[D]")
        return cls(
            first=dates.min().item(), last=dates.max().item(), decisions=len(window.labels),
            positives=int(window.labels.sum()), models=models,
        )  # fmt: skip


def choose_challenger(validation: Mapping[str, float | None], indifference: float = 0.0) -> str:
    """Return the first candidate whose validation metric is at most `indifference` below the best. It may be the rule.

    Candidates are given in order, the simplest first: if the difference is too small to tell, the simpler one is
    chosen. `validation` is the metric `validation` of each `fit_candidate`, on days before the test window. If the
    choice were made on the test window, the best of several would look better there than it is, and pass the gate.

    Raises:
        ValueError: it is not known for any.
    """
    known = {name: value for name, value in validation.items() if value is not None and np.isfinite(value)}
    if not known:
        raise InputError(
            f"none of {', '.join(validation)} has a metric `validation`: its folds and its calibration window have no "
            "fail, or it was trained by an earlier release. Train the candidates again, or on more days"
        )
    best = max(known.values())
    return next(name for name, value in known.items() if value >= best - indifference)


def compare(
    test_rows: pa.Table,
    scorers: Mapping[str, Scorer],
    *,
    capacity: int,
    action: ActionSpec = FREE_ACTION,
    metric: str = "pr_auc",
) -> Comparison:
    """Return the comparison of scorers (candidates, and the champion under a name of its own) on the rows.

    Raises:
        MissingColumnsError: the rows lack a feature of one of the models.
    """
    return compare_probabilities(
        Window.of(test_rows),
        {name: scorer.score(test_rows) for name, scorer in scorers.items()},
        capacity=capacity,
        action=action,
        metric=metric,
    )


def compare_probabilities(
    window: Window,
    probabilities: Mapping[str, NDArray[np.float64]],
    *,
    capacity: int,
    action: ActionSpec = FREE_ACTION,
    metric: str = "pr_auc",
) -> Comparison:
    """Return the comparison of probabilities that were computed already."""
    rows = {name: evaluate(window, p, capacity=capacity, action=action) for name, p in probabilities.items()}
    # Ties keep the order in which the models were given.
    table = pd.DataFrame.from_dict(rows, orient="index").sort_values(metric, ascending=False, kind="stable")
    return Comparison(window, table, dict(probabilities), metric, action)
