"""Monitoring: what came of the predictions, and whether the model still holds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from ml_assets.defs.assets.evaluation import conditions
from ml_assets.defs.checks.monitoring import (
    completeness_check,
    drift_check,
    estimate_check,
    judge_completeness,
    judge_drift,
    judge_estimate,
    judge_live_gate,
    judge_shadow_verdict,
    live_gate_check,
    shadow_check,
)
from ml_assets.defs.common import (
    between,
    by_date,
    counts,
    dates_of,
    key,
    lake_pool,
    numbers,
    picture,
    retrying_outages_only,
    rounded,
    run_link,
    table,
    when_updated,
)
from ml_assets.defs.resources import Platform
from ml_assets.lake import outcomes_table
from ml_assets.monitoring.drift import CAUSE, FEATURE, MEAN_LOG_ODDS, shown_first
from ml_assets.monitoring.outcomes import Completeness
from ml_assets.spec import UseCase

_STAGE = "monitoring"


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition]:
    """Yield the monitoring assets of a use case."""
    yield outcomes_asset(usecase)
    yield past_cases_asset(usecase)
    yield performance_asset(usecase)
    yield drift_asset(usecase)
    yield shadow_verdict_asset(usecase)
    yield retraining_decision_asset(usecase)


def outcomes_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of the predictions with what came of them."""
    asset_key = key(usecase, "outcomes")

    @dg.asset(
        key=asset_key,
        deps=[key(usecase, "predictions"), key(usecase, "labels")],
        automation_condition=when_updated("predictions or labels are new"),
        kinds={"postgres", "deltalake"},
        description=(
            "What came of each prediction. A run for a date joins all outcome dates of which something was predicted "
            "or became known on it, anew. Only outcome dates that are complete are judged."
        ),
        metadata={"dagster/table_name": outcomes_table(usecase)},
        check_specs=[completeness_check(asset_key)],
        pool=lake_pool(usecase),
        **by_date(usecase, _STAGE),
    )
    @retrying_outages_only
    def outcomes(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.monitoring import join_live_outcomes

        report = join_live_outcomes(platform.lake, platform.engine, usecase, dates_of(context))
        rows = sum(one.predictions for one in report.dates)
        labelled = sum(one.labelled for one in report.dates)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows,
                "delta_version": report.version,
                "with an outcome": labelled,
                "share with an outcome": rounded(labelled / rows) if rows else 0.0,
                "complete outcome dates": len(report.complete),
                "waiting outcome dates": len(report.dates) - len(report.complete),
                "outcome dates": table(_shown(report.dates)),
            },
            check_results=[judge_completeness(report.dates)],
        )

    return outcomes


def past_cases_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of the decisions with a known outcome, by which similar ones are found."""

    @dg.asset(
        key=key(usecase, "past_cases"),
        deps=[key(usecase, "outcomes")],
        automation_condition=when_updated("outcomes are new"),
        kinds={"postgres"},
        description=(
            "Decisions about complete outcome dates, each with its outcome and a vector of its features and of what "
            f"its causes added to its log-odds. `ml-assets similar {usecase.name} <{usecase.entity}>` finds the "
            "nearest. Table `past_cases` in PostgreSQL."
        ),
        pool=lake_pool(usecase),
        **by_date(usecase, _STAGE),
    )
    @retrying_outages_only
    def past_cases(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.similar import keep_cases

        report = keep_cases(
            platform.lake, platform.registry, platform.engine, usecase, dates_of(context),
            threads=platform.settings.threads,
        )  # fmt: skip
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": sum(report.spaces.values()),
                "outcome dates": len(report.dates),
                "cases of these dates": report.cases,
                f"of these {usecase.label.probability_of}": report.fails,
                **({"left out": counts(report.left_out, "why")} if report.left_out else {}),
                **({"standardised as for": run_link(platform, usecase, report.space)} if report.space else {}),
                **({"cases that are not comparable": report.elsewhere} if report.elsewhere else {}),
                **({"no new cases": report.why} if report.why else {}),
                **({} if report.indexed else {"not searchable": "the database has no pgvector from 0.8 on"}),
            }
        )

    return past_cases


def performance_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset that says how the model in use does: measured, judged by the gate, and estimated."""
    asset_key = key(usecase, "performance")

    @dg.asset(
        key=asset_key,
        deps=[key(usecase, "outcomes")],
        automation_condition=when_updated("outcomes are new"),
        kinds={"postgres"},
        description=(
            f"How good predictions were on the newest {usecase.monitoring.window_days} decision dates whose outcomes "
            "are complete, what the gate says of them, and how good those without an outcome will have been, by their "
            "probabilities. Tables `performance` and `estimates` in PostgreSQL."
        ),
        check_specs=[live_gate_check(asset_key), estimate_check(asset_key)],
        pool=lake_pool(usecase),
        **by_date(usecase, _STAGE),
    )
    @retrying_outages_only
    def performance(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.monitoring import measure_performance

        report = measure_performance(
            platform.lake,
            platform.registry,
            platform.engine,
            usecase,
            dates_of(context),
            threads=platform.settings.threads,
        )
        rows = report.performance.to_pylist()
        whole = {row["metric"]: row["measured"] for row in rows if row["dimension"] == "all"}
        return dg.MaterializeResult(
            metadata={
                "decisions": report.window.num_rows,
                "gate": report.live.why or ("yes" if report.live.verdict and report.live.verdict.passed else "no"),
                **numbers({name: value for name, value in whole.items() if value is not None}),
                "effect of acting": report.acting.sentence(usecase.currency),
                "by group": table(_groups(rows), digits=3),
                **({"conditions": conditions(report.live.verdict)} if report.live.verdict else {}),
                "estimated and realised": picture(report.plot, "estimated and realised"),
                "estimates": table(_estimates(report.estimates.to_pylist()), digits=3),
            },
            check_results=[judge_live_gate(report.live), judge_estimate(report.estimates.to_pylist())],
        )

    return performance


def drift_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset that says how far the decisions of a date are from those that the model learned from."""
    asset_key, spec = key(usecase, "drift"), usecase.monitoring.drift

    @dg.asset(
        key=asset_key,
        deps=[key(usecase, "outcomes")],
        automation_condition=when_updated("outcomes are new"),
        kinds={"postgres"},
        description=(
            "How far features, scores, slices, volumes, feeds and outcomes are from those that the model learned from, "
            "and by how much each cause has moved the mean log-odds. Limits are what the training days, by weekday and "
            f"month end, differed by; drift is a breach on {spec.breaches} of {spec.windows} dates. Table `drift` in "
            "PostgreSQL."
        ),
        check_specs=[drift_check(asset_key)],
        pool=lake_pool(usecase),
        **by_date(usecase, _STAGE),
    )
    @retrying_outages_only
    def drift(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.drift import measure_drift

        report = measure_drift(
            platform.lake,
            platform.registry,
            platform.engine,
            usecase,
            dates_of(context),
            threads=platform.settings.threads,
        )
        rows = report.rows.to_pylist()
        moved = next((row["moved"] for row in rows if row["name"] == MEAN_LOG_ODDS), None)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(rows),
                "drift": len(report.drifted),
                "breaches": sum(row["breached"] for row in rows),
                **numbers({"mean log-odds moved by": moved} if moved is not None else {}),
                "what has drifted": table(_measures(report.drifted), digits=2),
                "by cause": table(_causes([row for row in rows if row["kind"] == CAUSE]), digits=2),
                "by feature": table(_features([row for row in shown_first(rows) if row["kind"] == FEATURE]), digits=2),
                "all measures": table(_measures(shown_first(rows)), digits=2),
                "by feature and date": picture(report.plot, "drift by feature and date"),
                **({"not judged": report.why} if report.why else {}),
            },
            check_results=[judge_drift(report.drifted, report.why)],
        )

    return drift


def shadow_verdict_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset that says whether the model in the shadow is better than the champion."""
    asset_key = key(usecase, "shadow_verdict")

    @dg.asset(
        key=asset_key,
        deps=[key(usecase, "outcomes"), key(usecase, "shadow_predictions")],
        automation_condition=when_updated("outcomes are new"),
        kinds={"postgres"},
        description=(
            "The model in the shadow and the champion on the same live decisions whose outcomes have come, by the "
            "gate's paired bootstrap over days. `ml-assets approve` and `history` show it. "
            + (
                "A person decides what follows."
                if usecase.needs_approval
                else "A champion that does worse than its predecessor is rolled back, once."
            )
        ),
        check_specs=[shadow_check(asset_key)],
        pool=lake_pool(usecase),
        **by_date(usecase, _STAGE),
    )
    @retrying_outages_only
    def shadow_verdict(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.database.promotions import Actor
        from ml_assets.lifecycle.shadow import judge_and_roll_back

        report = judge_and_roll_back(
            platform.lake, platform.registry, platform.engine, usecase, max(dates_of(context)),
            Actor.run(context.run.run_id),
        )  # fmt: skip
        verdict, measured = report.verdict, {}
        if verdict is not None:
            measured = {"gain": verdict.gain.value, "gain from": verdict.gain.low, "gain to": verdict.gain.high,
                        verdict.metric: verdict.of_shadow, f"{verdict.metric} of the champion": verdict.of_champion,
                        "saved more per day": verdict.saved}  # fmt: skip
        return dg.MaterializeResult(
            metadata={
                "verdict": report.sentence,
                **({"champion": verdict.champion.version, "in shadow": verdict.shadow.version} if verdict else {}),
                **({"decisions": verdict.n, "fails": verdict.positives, "dates": verdict.days} if verdict else {}),
                **numbers(measured),
            },
            check_results=[judge_shadow_verdict(report)],
        )

    return shadow_verdict


def retraining_decision_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset that says each morning whether to retrain out of turn, and why or why not."""
    spec = usecase.monitoring

    @dg.asset(
        key=key(usecase, "retraining_decision"),
        deps=[key(usecase, "performance"), key(usecase, "drift")],
        automation_condition=when_updated("performance or drift is new"),
        kinds={"postgres"},
        description=(
            f"Whether to retrain beside the nightly schedule: after {spec.breaches} breaches in the last "
            f"{spec.windows} complete outcome dates and in the newest one, at most {spec.max_per_week} times in seven "
            "days. A date breaches by its performance, or by drift of scores, causes or outcomes. Each decision, also "
            "the one not to, is in the table `retraining_decisions`; the sensor "
            f"`{usecase.name}_retraining_out_of_turn` "
            "starts what it asks for."
        ),
        pool=lake_pool(usecase),
        **by_date(usecase, _STAGE),
    )
    @retrying_outages_only
    def retraining_decision(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.monitoring import decide_retraining
        from ml_assets.lifecycle.reports import REHEARSAL, rehearsed

        made = decide_retraining(
            platform.lake, platform.registry, platform.engine, usecase, dates_of(context), context.run.run_id
        )
        newest, settings = made[-1], platform.settings
        page = rehearsed(usecase, settings.report_uri)
        link = settings.links.report(f"{usecase.name}/{REHEARSAL}") if page else ""
        return dg.MaterializeResult(
            metadata={
                **(
                    {"a year rehearsed": dg.MetadataValue.url(link) if link else dg.MetadataValue.path(page)}
                    if page
                    else {}
                ),
                "decision": newest.outcome,
                "why": newest.reason,
                "breaches": newest.numbers["breaches"],
                "new labels": newest.numbers["new labels"],
                "numbers": table([{"what": name, "value": value} for name, value in newest.numbers.items()]),
                "decisions": table(
                    [{"date": one.day, "decision": one.outcome, "why": one.reason} for one in reversed(made)]
                ),
            }
        )

    return retraining_decision


# Metrics of each group that are shown; the table in PostgreSQL has all.
_OF_GROUPS = ("pr_auc", "brier", "calibration_error", "precision_at_capacity", "value_recall_at_capacity",
              "lead_hours_at_capacity", "saved_per_day")  # fmt: skip
# Outcome dates whose estimates are shown, the newest.
_DAYS_SHOWN = 20


def _groups(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row a group with its metrics as columns; the PR-AUC with its interval."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["dimension"] == "acting":
            continue
        shown = groups.setdefault(
            (row["dimension"], row["value"]),
            {
                "by": row["dimension"],
                "value": row["value"],
                "decisions": row["n"],
                "fails": row["positives"],
                "judged": row["judged"],
            },
        )
        if row["metric"] in _OF_GROUPS:
            shown[row["metric"]] = row["measured"]
        if row["metric"] == "pr_auc":
            shown |= {"pr_auc from": row["low"], "to": row["high"]}
    return list(groups.values())


# The UI gives a table little room, and breaks words to make more: few columns, and a range in one of them.
def _estimates(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    newest = sorted({row["outcome_date"] for row in rows})[-_DAYS_SHOWN:]
    return [
        {
            "outcome date": row["outcome_date"],
            "metric": row["metric"].replace("_", " "),
            "estimated": f"{row['estimated']:.3f} ({between(row['low'], row['high'], 3)})"
            + ("" if row["published"] else ", withdrawn"),
            "realised": row["realised"],
        }
        for row in reversed(rows)
        if row["outcome_date"] in newest and row["estimated"] is not None
    ]


def _causes(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "cause": row["name"],
            "adds to the mean log-odds": row["value"],
            "usual": between(row["low"], row["high"], 2),
            "moved by": row["moved"],
            "drift": row["drifted"],
        }
        for row in rows
    ]


def _features(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per feature, of its distribution, and one for each other measure of it that is beyond its limit."""
    return [{"feature": row["name"], **_measure(row)} for row in rows if row["measure"] == "psi" or row["breached"]]


def _measures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"what": f"{row['kind']} {row['name']}", **_measure(row)} for row in rows]


def _measure(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "measure": row["measure"],
        "value": row["value"],
        "usual": between(row["low"], row["high"], 2),
        "log-odds moved": row["moved"],
        "drift": row["drifted"],
        "why": row["why"],
    }


def _shown(dates: Sequence[Completeness]) -> list[dict[str, object]]:
    return [
        {
            "outcome date": one.outcome_date,
            "predictions": one.predictions,
            "with an outcome": one.labelled,
            "share": one.share,
            "complete": one.is_complete,
        }
        for one in reversed(dates)
    ]
