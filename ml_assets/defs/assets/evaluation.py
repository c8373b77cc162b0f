"""Evaluation: every candidate and the champion on the same unseen window, and the gate's verdict."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from ml_assets.defs.common import (
    common,
    dates_of,
    key,
    numbers,
    partitions,
    picture,
    retrying_outages_only,
    run_link,
    table,
)
from ml_assets.defs.resources import Platform
from ml_assets.spec import UseCase

if TYPE_CHECKING:
    from ml_assets.learning.gate import Evidence, Verdict

_RANKING = ["pr_auc", "per_day_pr_auc", "lift", "roc_auc"]
_PROBABILITY = [
    "brier",
    "brier_skill",
    "brier_reliability",
    "brier_resolution",
    "brier_uncertainty",
    "calibration_error",
    "calibration_error_low",
    "calibration_error_high",
]
_DECISION = [
    "precision_at_capacity",
    "recall_at_capacity",
    "value_precision_at_capacity",
    "value_recall_at_capacity",
    "cost_captured_at_capacity",
    "saved_per_day",
    "lead_hours_at_capacity",
]
_SHOWN = [*_RANKING, "brier", "calibration_error", *_DECISION]


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition]:
    """Yield the evaluation of a use case, and the gate's verdict on it."""
    yield evaluation_asset(usecase)
    yield verdict_asset(usecase)


def evaluation_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of the comparison."""

    @dg.asset(
        key=key(usecase, "evaluation"),
        deps=[key(usecase, "training_set"), *(key(usecase, "candidates", c.name) for c in usecase.candidates)],
        partitions_def=partitions(usecase),
        kinds={"mlflow", "pandas"},
        description=(
            "Candidates and champion scored on the same unseen window by the code that scores in production. The "
            f"challenger is the candidate with the best {usecase.gate.metric} before that window (`validation`); the "
            "evidence is written to its MLflow run."
        ),
        **common(usecase, "evaluation"),
    )
    @retrying_outages_only
    def evaluation(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.evaluation import evaluate_candidates

        (training_date,) = dates_of(context)
        report = evaluate_candidates(
            platform.lake,
            platform.registry,
            platform.engine,
            usecase,
            training_date,
            threads=platform.settings.threads,
        )
        chosen_by = pd.Series(report.validation, dtype=float, name="validation")
        return dg.MaterializeResult(
            metadata={
                "challenger": report.challenger,
                "would be promoted": report.verdict.passed,
                **numbers(report.comparison.of(report.challenger)),
                "ranking": table(_named(report.comparison.metrics.join(chosen_by), ["validation", *_RANKING], "model")),
                "probabilities": table(_named(report.comparison.metrics, _PROBABILITY, "model")),
                f"decisions at capacity, {usecase.currency}": table(decisions(usecase, report.comparison.metrics)),
                "gains of the challenger": table(gains(report.evidence)),
                "slices": table(slices(usecase, report.evidence)),
                "challenger by slot": table(_named(report.by_slot, _SHOWN, "slot")),
                "challenger by month": table(_named(report.by_month, _SHOWN, "month")),
                **{name: picture(png, name) for name, png in report.plots.items()},
            }
        )

    return evaluation


def verdict_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of the gate's verdict on the challenger of a date."""

    @dg.asset(
        key=key(usecase, "verdict"),
        deps=[key(usecase, "evaluation")],
        partitions_def=partitions(usecase),
        kinds={"mlflow"},
        description=(
            "What the gate says of the challenger, condition by condition, from the evidence on its MLflow run. "
            "Missing evidence, a metric that is not a number or another champion than the one compared with means no. "
            "The promotion judges again; it does not read this."
        ),
        **common(usecase, "evaluation"),
    )
    @retrying_outages_only
    def verdict(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.evaluation import judge_challenger

        (training_date,) = dates_of(context)
        run_id, judged = judge_challenger(platform.registry, platform.engine, usecase, training_date)
        return dg.MaterializeResult(
            metadata={
                "passed": judged.passed,
                "failed conditions": len(judged.failures),
                "gate": conditions(judged),
                "mlflow_run": run_link(platform, usecase, run_id),
            }
        )

    return verdict


def conditions(verdict: "Verdict") -> dg.MetadataValue:
    """Return one row per condition, those that fail first."""
    from ml_assets.governance.conditions import condition_rows

    return table(condition_rows(verdict.conditions))


def decisions(usecase: UseCase, metrics: pd.DataFrame) -> pd.DataFrame:
    """Return what each model's work-lists bring, and what it saves a day against the rule and against no model."""
    shown = _named(metrics, _DECISION, "model").rename(columns={"saved_per_day": "saved a day against no model"})
    saved = metrics["saved_per_day"]
    shown["saved a day against the rule"] = (saved - saved[usecase.rule.name]).to_numpy()
    return shown


def gains(evidence: "Evidence") -> list[dict[str, Any]]:
    """Return how much better the challenger is than rule and champion, with the interval.

    In the focus of a slice the gain is a share of the rule's metric.
    """
    measured = {"rule": evidence.gain_over_rule, "champion": evidence.gain_over_champion}
    measured |= {f"rule, share of it where {f.slice} is {f.value}": f.gain for f in evidence.focuses}
    return [
        {
            "over": name,
            "metric": gain.metric,
            "gain": gain.value,
            "low": gain.low,
            "high": gain.high,
            "confidence": gain.confidence,
            "days resampled": gain.days,
        }
        for name, gain in measured.items()
        if gain is not None
    ]


def slices(usecase: UseCase, evidence: "Evidence") -> list[dict[str, Any]]:
    """Return every part of every slice, whether it has enough fails to be judged, and what was lost in it."""
    specs = {spec.name: spec for spec in usecase.gate.slices}
    return [
        {
            "slice": part.slice,
            "value": part.value,
            "decisions": part.n,
            "fails": part.positives,
            part.metric: part.challenger,
            f"{part.against}'s": part.reference,
            "lost": part.loss,
            "limit": specs[part.slice].max_loss,
            "judged": part.positives >= specs[part.slice].min_positives,
        }
        for part in evidence.slices
    ]


def _named(metrics: pd.DataFrame, shown: list[str], name: str) -> pd.DataFrame:
    """Return the shown metrics with the index as a first column."""
    return metrics[[m for m in shown if m in metrics]].rename_axis(name).reset_index()
