"""Features and labels: what was known when a decision was made, and its outcome."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ml_assets.defs.checks.features import feature_checks, judge_features
from ml_assets.defs.common import (
    all_of,
    by_date,
    counts,
    dates_of,
    freshness,
    key,
    lake_pool,
    retrying_outages_only,
    seen_from,
    table,
)
from ml_assets.defs.resources import Platform
from ml_assets.features import catalogue, features_schema
from ml_assets.lake import features_table, labels_table
from ml_assets.lifecycle.features import DecisionReport, compute_features, mature_labels
from ml_assets.spec import Feature, UseCase

# How many of the decisions that were left out are named.
_SHOWN = 20


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition]:
    """Yield the features and the labels of a use case."""
    yield features_asset(usecase)
    yield labels_asset(usecase)


def features_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of the feature table: one row per decision, as of its decision time."""
    described = {feature.name: feature for feature in usecase.features}
    schema = dg.TableSchema(
        [
            dg.TableColumn(
                field.name,
                str(field.type),
                description=_describe(described[field.name]) if field.name in described else None,
            )
            for field in features_schema(usecase.features)
        ]
    )

    @dg.asset(
        key=key(usecase, "features"),
        deps=[
            *(seen_from(usecase, event) for event in usecase.events),
            *(key(usecase, "reference", reference.name) for reference in usecase.references),
        ],
        kinds={"duckdb", "deltalake"},
        code_version=usecase.feature_set_hash,
        description=(
            f"Features of every {usecase.entity} decided on a date, at "
            + ", ".join(f"{slot.name} ({slot.at:%H:%M} UTC)" for slot in usecase.slots)
            + ". SQL that sees only what was known by then."
        ),
        metadata={"dagster/table_name": features_table(usecase), "dagster/column_schema": schema},
        freshness_policy=freshness(usecase),
        check_specs=feature_checks(key(usecase, "features")),
        pool=lake_pool(usecase),
        **by_date(usecase, "features", several_runs=True),
    )
    @retrying_outages_only
    def features(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        report = compute_features(
            platform.lake, usecase, dates_of(context), until=datetime.now(UTC), threads=platform.settings.threads
        )
        return dg.MaterializeResult(
            metadata=features_metadata(usecase, report),
            check_results=judge_features(usecase, report, dates_of(context)),
        )

    return features


def features_metadata(usecase: UseCase, report: DecisionReport) -> dict[str, Any]:
    """Return what is said of features that were made."""
    return {
        **_show(report),
        "feature_set": usecase.feature_set_hash,
        "catalogue": table([dataclasses.asdict(entry) for entry in catalogue(usecase)]),
    }


def labels_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of the label table: the outcomes that became known on a date."""

    @dg.asset(
        key=key(usecase, "labels"),
        deps=[
            all_of(key(usecase, "features")),
            *(key(usecase, "curated", event.name) for event in usecase.events),
        ],
        kinds={"duckdb", "deltalake"},
        description=f"{usecase.label.description} A partition holds the outcomes that became known on its date.",
        metadata={"dagster/table_name": labels_table(usecase)},
        pool=lake_pool(usecase),
        **by_date(usecase, "features", several_runs=True),
    )
    @retrying_outages_only
    def labels(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        report = mature_labels(platform.lake, usecase, dates_of(context), threads=platform.settings.threads)
        counted = {name: getattr(report, name) for name in ("decisions", "labelled", "waiting", "without_outcome")}
        if report.early:
            counted["early"] = report.early
        return dg.MaterializeResult(metadata={**_show(report), **counted})

    return labels


def _describe(feature: Feature) -> str:
    return f"{feature.description} [{feature.unit}]" if feature.unit else feature.description


def _show(report: DecisionReport) -> dict[str, Any]:
    shown: dict[str, Any] = {"dagster/row_count": report.rows, "delta_version": report.version}
    if report.newest_decision:
        shown["newest_decision"] = dg.MetadataValue.timestamp(report.newest_decision)
    if report.landed_until:
        shown["landed_until"] = dg.MetadataValue.timestamp(report.landed_until)
    if report.undecided:
        shown["not decided yet"] = ", ".join(f"{d.slot} {d.as_of:%Y-%m-%d %H:%M}" for d in report.undecided)
    if report.immature:
        shown["outcomes that have not landed yet"] = ", ".join(map(str, report.immature))
    if report.refused:
        shown["decisions left out"] = table(
            [
                {"decided at": f"{at:%F %H:%M}", "entity": entity, "why": why}
                for at, entity, why in report.refused[:_SHOWN]
            ]
        )
    if report.lacking:
        shown["lacking"] = dict(report.lacking)
    if report.impossible:
        shown["impossible"] = report.impossible
    if (report.undecided or report.immature) and report.slowest:
        shown["waits for"] = report.slowest
    if report.daily_made:
        shown["daily parts made"] = ", ".join(map(str, report.daily_made))
    if len(report.rows_by_date) > 1:
        shown["rows by date"] = counts(report.rows_by_date, "date")
    return shown
