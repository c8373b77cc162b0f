"""Evaluation: every candidate and the champion on the same unseen window, and what the gate says."""

from collections.abc import Iterator

import dagster as dg
import pandas as pd

from ml_assets.assets.common import common, dates_of, key, numbers, partitions, picture, retrying_outages_only, table
from ml_assets.resources import Platform
from ml_assets.spec import UseCase

_SHOWN = [
    "pr_auc",
    "per_day_pr_auc",
    "lift",
    "roc_auc",
    "brier",
    "calibration_error",
    "precision_at_capacity",
    "recall_at_capacity",
    "cost_captured_at_capacity",
]


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition]:
    """Yield the evaluation of a use case."""

    @dg.asset(
        key=key(usecase, "evaluation"),
        deps=[key(usecase, "training_set"), *(key(usecase, "candidates", c.name) for c in usecase.candidates)],
        partitions_def=partitions(usecase),
        kinds={"mlflow", "pandas"},
        description=(
            "Candidates and champion scored on the same unseen window by the code that scores in production. The best "
            "PR-AUC becomes the challenger; the evidence is written to its MLflow run."
        ),
        **common(usecase, "evaluation"),
    )
    @retrying_outages_only
    def evaluation(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.evaluation import evaluate_candidates

        (training_date,) = dates_of(context)
        report = evaluate_candidates(
            platform.lake, platform.registry, usecase, training_date, threads=platform.settings.threads
        )
        return dg.MaterializeResult(
            metadata={
                "challenger": report.challenger,
                "would be promoted": report.verdict.passed,
                **numbers(report.comparison.of(report.challenger)),
                "models on the same window": table(_named(report.comparison.metrics, "model")),
                "challenger by slot": table(_named(report.by_slot, "slot")),
                "challenger by month": table(_named(report.by_month, "month")),
                **{name: picture(png, name) for name, png in report.plots.items()},
            }
        )

    yield evaluation


def _named(metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the shown metrics with the index as a first column."""
    return metrics[[m for m in _SHOWN if m in metrics]].rename_axis(name).reset_index()
