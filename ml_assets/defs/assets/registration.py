"""Registration: the challenger in the model registry, and its promotion to champion if it passes the gate."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ml_assets.defs.checks.registration import gate_check, judge_gate, judge_ledger, ledger_check
from ml_assets.defs.common import (
    champion_metadata,
    common,
    dates_of,
    key,
    partitions,
    retrying_outages_only,
    run_link,
    version_link,
)
from ml_assets.defs.resources import Platform
from ml_assets.spec import UseCase


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition]:
    """Yield challenger and champion of a use case."""
    yield challenger_asset(usecase)
    yield champion_asset(usecase)


def challenger_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of the registered challenger."""

    @dg.asset(
        key=key(usecase, "challenger"),
        deps=[key(usecase, "evaluation")],
        partitions_def=partitions(usecase),
        kinds={"mlflow"},
        description=(
            f"The model that the evaluation chose, registered as `{usecase.name}@challenger`, with its model-risk "
            "pack; a pack with an empty section fails the registration."
        ),
        **common(usecase, "registration"),
    )
    @retrying_outages_only
    def challenger(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.database.promotions import Actor
        from ml_assets.lifecycle.model_risk import PACK_MARKDOWN
        from ml_assets.lifecycle.registration import register_challenger

        (training_date,) = dates_of(context)
        version = register_challenger(
            platform.registry, platform.engine, usecase, training_date, Actor.run(context.run.run_id)
        )
        return dg.MaterializeResult(
            metadata={
                "model_version": version.version,
                **version_link(platform, usecase, version.version),
                "mlflow_run": run_link(platform, usecase, version.run_id),
                "model_risk_pack": dg.MetadataValue.md(platform.registry.read_evidence(version.run_id, PACK_MARKDOWN)),
            }
        )

    return challenger


def champion_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of the champion: the challenger, if the evidence on its run passes the gate."""
    asset_key = key(usecase, "champion")

    @dg.asset(
        key=asset_key,
        deps=[key(usecase, "challenger"), key(usecase, "verdict")],
        kinds={"mlflow"},
        description=(
            f"`{usecase.name}@champion`, the model that scores. The gate is judged here, from the evidence on the "
            "challenger's MLflow run: without evidence, or with a metric missing, the champion stays. "
            + ("A person approves each promotion: `ml-assets approve`." if usecase.needs_approval else "")
        ),
        check_specs=[gate_check(asset_key), ledger_check(asset_key)],
        output_required=False,  # not made while there is no champion, so scoring does not start
        **common(usecase, "registration"),
    )
    @retrying_outages_only
    def champion(
        context: dg.AssetExecutionContext, platform: Platform
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from ml_assets.database.promotions import Actor
        from ml_assets.defs.assets.evaluation import conditions
        from ml_assets.lifecycle.promotion import agreement, promote_challenger

        made = promote_challenger(platform.registry, platform.engine, usecase, Actor.run(context.run.run_id))
        agreed = agreement(platform.registry, platform.engine, usecase)
        metadata: dict[str, Any] = {
            **champion_metadata(platform, usecase),
            "challenger_version": made.challenger.version,
            "promoted": made.outcome == "promoted",
            "outcome": f"{made.outcome}: {made.why}",
            "gate": conditions(made.verdict),
        }
        checks = [judge_gate(made.verdict, asset_key), judge_ledger(agreed, asset_key)]
        if agreed.by_ledger is not None:
            yield dg.MaterializeResult(metadata=metadata, check_results=checks)
        else:
            context.log_event(dg.AssetObservation(asset_key, metadata=metadata))
            yield from checks

    return champion
