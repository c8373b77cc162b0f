"""Registration: the challenger in the registry, its promotion if it passes the gate, and who stands beside it then."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_assets.answers import SERVED_SCORES
from ml_assets.defs.checks.registration import gate_check, judge_gate, judge_ledger, ledger_check
from ml_assets.defs.common import (
    champion_metadata,
    common,
    dates_of,
    key,
    landing_key,
    partitions,
    retrying_outages_only,
    rounded,
    run_link,
    table,
    version_link,
)
from ml_assets.defs.resources import Platform
from ml_assets.spec import UseCase

if TYPE_CHECKING:
    from ml_assets.database.promotions import LedgerEntry, StageLines


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition]:
    """Yield challenger and champion of a use case."""
    yield challenger_asset(usecase)
    yield champion_asset(usecase)
    yield served_stages_asset(usecase)


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


def served_stages_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset that shows champion, canary and challenger of the scoring service side by side."""

    @dg.asset(
        key=key(usecase, "served_stages"),
        deps=[key(usecase, "champion"), landing_key(SERVED_SCORES)],
        kinds={"postgres", "duckdb"},
        description=(
            "Who answers in the scoring service, for which share, since when and by whom, and who scores in shadow; "
            "and what each of them said in the last day: how much, how fast, and how far its log-odds are from the "
            "champion's on the same decisions. Begin a canary with "
            f"`ml-assets canary {usecase.name} --share 0.1`."
        ),
        **common(usecase, "registration"),
    )
    @retrying_outages_only
    def served_stages(platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.stages import served_stages as look

        found = look(platform.lake, platform.engine, usecase, threads=platform.settings.threads)
        rows = found.rows.to_pylist()
        return dg.MaterializeResult(
            metadata={
                **_standing(found.lines),
                "counted since": dg.MetadataValue.timestamp(found.since),
                **{f"{row['stage']} scores": row["scores"] for row in reversed(rows)},
                **{
                    f"{row['stage']} log-odds difference": rounded(row["log_odds_difference"])
                    for row in reversed(rows)
                    if row["log_odds_difference"] is not None
                },
                "stages": table([_stage(row) for row in rows], digits=3),
            }
        )

    return served_stages


def _standing(lines: "StageLines") -> dict[str, Any]:
    """Return which version stands where, and since when and by whom there is a canary."""

    def said(line: "LedgerEntry | None") -> str:
        return f"version {line.to_version}" if line else "none"

    canary = lines.canary
    made: dict[str, Any] = {
        "champion": said(lines.champion), "challenger": said(lines.challenger), "canary": said(lines.running),
    }  # fmt: skip
    if lines.running is not None:
        made |= {"canary's share": lines.running.share}
    elif canary is not None:
        made["canary"] = f"none; that of version {canary.to_version} has ended: {canary.reason}"
    if canary is not None:
        made |= {"canary since": dg.MetadataValue.timestamp(canary.recorded_at), "canary by": canary.actor}
    return made


def _stage(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "stage": row["stage"],
        "version": row["model_version"],
        "scores": row["scores"],
        "requests": row["requests"],
        "entities": row["entities"],
        "what-ifs": row["what_ifs"],
        "ms, median": row["p50_ms"],
        "ms, p99": row["p99_ms"],
        "mean probability": row["mean_probability"],
        "compared": row["compared"],
        "log-odds difference": row["log_odds_difference"],
        "last": f"{row['last_at']:%Y-%m-%d %H:%M:%S}",
    }
