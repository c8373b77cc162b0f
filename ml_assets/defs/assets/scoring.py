"""Scoring: predictions by the champion, and the work-list that people read."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from ml_assets.defs.checks.registration import judge_ledger, ledger_check
from ml_assets.defs.checks.scoring import judge_scores, score_check
from ml_assets.defs.common import (
    by_date,
    common,
    dates_of,
    freshness,
    key,
    origin,
    retrying_outages_only,
    rounded,
    run_link,
    table,
    version_link,
    when_updated,
)
from ml_assets.defs.resources import Platform
from ml_assets.lake import predictions_table, shadow_table
from ml_assets.spec import UseCase

# Rows of the work-list shown in the Dagster UI.
_SHOWN = 10


class ScoringConfig(dg.Config):
    """How a date is scored other than usually."""

    despite: str = Field("", description="publish scores that the check refuses, for this reason, which is shown")


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition | dg.AssetSpec]:
    """Yield predictions and work-list of a use case."""
    yield predictions_asset(usecase)
    yield shadow_predictions_asset(usecase)
    yield dg.AssetSpec(
        key(usecase, "work_list"),
        deps=[key(usecase, "predictions")],
        kinds={"postgres"},
        description=(
            "The view `work_list` in PostgreSQL: for each outcome date, the latest prediction of each open decision, "
            f"by expected cost. What is open no more leaves the list: {_leaves(usecase)}. "
            f"The team acts on the first {usecase.capacity}, where that saves more than it costs."
        ),
        **common(usecase, "scoring"),
    )


def _leaves(usecase: UseCase) -> str:
    """Return in words at which scorings an entity that is no longer open leaves the work-list."""
    said = []
    for slot in usecase.slots:
        if slot.days_before is not None:
            days = {0: "of that date", 1: "of the next business day"}.get(
                slot.days_before, f"{slot.days_before} business days later"
            )
            later = " and later" if slot.onwards else ""
            said.append(f"at {slot.name} ({slot.at:%H:%M} UTC) for outcomes {days}{later}")
    return ", ".join(said) or "never before the outcome date, since no slot says days_before"


def predictions_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of the predictions, which is made again whenever the features of its date are."""
    features, asset_key = key(usecase, "features"), key(usecase, "predictions")
    ready = (
        dg.AutomationCondition.any_deps_updated().allow(dg.AssetSelection.assets(features)).since_last_handled()
        & dg.AutomationCondition.all_deps_blocking_checks_passed()
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    )

    @dg.asset(
        key=asset_key,
        deps=[features, key(usecase, "champion")],
        automation_condition=ready.with_label("features are ready"),
        kinds={"onnx", "postgres", "deltalake"},
        description="Probability and expected cost of every decision, by the champion, in PostgreSQL and in the lake.",
        metadata={"dagster/table_name": predictions_table(usecase)},
        freshness_policy=freshness(usecase),
        check_specs=[score_check(asset_key), ledger_check(asset_key)],
        **by_date(usecase, "scoring"),
    )
    @retrying_outages_only
    def predictions(
        context: dg.AssetExecutionContext, config: ScoringConfig, platform: Platform
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from ml_assets.learning.score_checks import ScoresRefusedError
        from ml_assets.lifecycle.promotion import agreement
        from ml_assets.lifecycle.scoring import score_dates

        try:
            report = score_dates(
                platform.lake,
                platform.registry,
                platform.engine,
                usecase,
                dates_of(context),
                origin(context, platform, usecase),
                threads=platform.settings.threads,
                despite=config.despite,
            )
        except ScoresRefusedError as refused:
            yield judge_scores(refused.judged, asset_key)
            raise
        yield dg.MaterializeResult(
            metadata={
                "dagster/row_count": report.rows,
                "model_version": report.champion.version,
                **version_link(platform, usecase, report.champion.version),
                "mlflow_run": run_link(platform, usecase, report.champion.run_id),
                "mean_probability": rounded(report.probabilities.mean()) if report.rows else 0.0,
                "inserted": report.upserted.inserted,
                "updated": report.upserted.updated,
                "unchanged": report.upserted.unchanged,
                "left the work-list": report.left,
                "worth acting on": int(usecase.action.pays(report.predictions["expected_cost"].to_numpy()).sum()),
                f"first {_SHOWN} by expected cost": table(_top(report.predictions), digits=3),
            },
            check_results=[
                judge_scores(report.judged, asset_key, config.despite),
                judge_ledger(agreement(platform.registry, platform.engine, usecase), asset_key),
            ],
        )

    return predictions


def shadow_predictions_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of what the model in the shadow says of the same decisions."""

    @dg.asset(
        key=key(usecase, "shadow_predictions"),
        deps=[key(usecase, "predictions")],
        automation_condition=when_updated("predictions are new"),
        kinds={"onnx", "deltalake"},
        description=(
            "The same decisions, scored by the model in the shadow: the one that awaits approval, else the champion "
            "before. Nobody acts on it; the asset `shadow_verdict` holds it beside the champion once outcomes come."
        ),
        metadata={"dagster/table_name": shadow_table(usecase)},
        **by_date(usecase, "scoring"),
    )
    @retrying_outages_only
    def shadow_predictions(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.shadow import score_shadow

        made = score_shadow(
            platform.lake,
            platform.registry,
            platform.engine,
            usecase,
            dates_of(context),
            origin(context, platform, usecase),
            threads=platform.settings.threads,
        )
        version: dict[str, Any] = {}
        if made.version is not None:
            version = {"model_version": made.version, **version_link(platform, usecase, made.version)}
        return dg.MaterializeResult(
            metadata={"dagster/row_count": made.rows, **version, **({"none because": made.why} if made.why else {})}
        )

    return shadow_predictions


def _top(predictions: pa.Table) -> list[dict[str, object]]:
    """Return the costliest rows of the last decision date with their attributes as columns."""
    rows = predictions.sort_by([("decision_date", "descending"), ("expected_cost", "descending")]).slice(0, _SHOWN)
    said = ["decision_date", "slot", "outcome_date", "entity_id", "probability", "expected_cost"]
    return [
        {
            **{name: row[name] for name in said},
            **{name: json.loads(row["reason_codes"] or "{}").get(name) for name in ("cause", "action")},
            **json.loads(row["attributes"] or "{}"),
        }
        for row in rows.to_pylist()
    ]
