"""Ingestion: topics and reference files, as curated tables. The lander fills the landing tables, not Dagster."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ml_assets.assets.common import RETRY, common, counts, dates_of, key, partitions, retrying_outages_only
from ml_assets.checks.ingestion import curation_checks, judge_curation
from ml_assets.contracts import describe_fields
from ml_assets.lake import curated_table, landing_table, quarantine_table, reference_table
from ml_assets.landing.schemas import curated_schema, landing_schema
from ml_assets.lifecycle.ingestion import IngestionReport, curate_dates, load_reference
from ml_assets.resources import Platform
from ml_assets.spec import EventSpec, ReferenceSpec, UseCase

# Metadata of a curated partition: when the newest of what it was made from had landed.
LANDED_AT = "landed_at"


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition | dg.AssetSpec]:
    """Yield topic and landing table of each event (external), its curated table, and the reference tables."""
    for event in usecase.events:
        yield topic_spec(event)
        yield landing_spec(event)
        yield curated_asset(usecase, event)
    for reference in usecase.references:
        yield reference_asset(usecase, reference)


def landing_key(event: EventSpec) -> dg.AssetKey:
    """Return the key of the landing table of an event's topic."""
    return dg.AssetKey(["landing", event.topic])


def topic_key(topic: str) -> dg.AssetKey:
    """Return the key of a topic."""
    return dg.AssetKey(["kafka", topic])


def topic_spec(event: EventSpec) -> dg.AssetSpec:
    """Return the Kafka topic, which others fill."""
    return dg.AssetSpec(
        topic_key(event.topic),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=event.silence, warn_window=event.silence / 2),
        group_name="kafka",
        kinds={"kafka"},
        description=f"Kafka topic `{event.topic}`. {event.description}",
    )


def landing_spec(event: EventSpec) -> dg.AssetSpec:
    """Return the landing table, which the lander fills."""
    schema = dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in landing_schema(event)])
    return dg.AssetSpec(
        landing_key(event),
        deps=[topic_key(event.topic)],
        group_name="landing",
        kinds={"deltalake"},
        description=(
            f"Events of `{event.topic}` as they came, with their Kafka coordinates, appended exactly once by "
            "`ml-assets land`."
        ),
        metadata={"dagster/table_name": landing_table(event.topic), "dagster/column_schema": schema},
    )


def curated_asset(usecase: UseCase, event: EventSpec) -> dg.AssetsDefinition:
    """Return the asset of an event's curated table."""
    schema = dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in curated_schema(event)])

    @dg.asset(
        key=key(usecase, "curated", event.name),
        deps=[landing_key(event)],
        partitions_def=partitions(usecase),
        backfill_policy=dg.BackfillPolicy.single_run(),
        kinds={"duckdb", "deltalake"},
        description=(
            f"{event.description} Typed, one of each `{', '.join(event.key)}`, rows that break a rule left out into "
            f"`{quarantine_table(usecase, event)}` with the reason."
        ),
        metadata={"dagster/table_name": curated_table(usecase, event), "dagster/column_schema": schema},
        check_specs=curation_checks(key(usecase, "curated", event.name), event),
        retry_policy=RETRY,
        **common(usecase, "ingestion"),
    )
    @retrying_outages_only
    def curated(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        report = curate_dates(platform.lake, usecase, event, dates_of(context))
        return dg.MaterializeResult(
            metadata=_show(report),
            check_results=judge_curation(event, report),
        )

    return curated


def reference_asset(usecase: UseCase, reference: ReferenceSpec) -> dg.AssetsDefinition:
    """Return the asset of a reference table."""
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in describe_fields(reference.contract)])

    @dg.asset(
        key=key(usecase, "reference", reference.name),
        kinds={"file", "deltalake"},
        description=f"{reference.description} All published versions, from the files dropped for it.",
        metadata={"dagster/table_name": reference_table(usecase, reference), "dagster/column_schema": schema},
        retry_policy=RETRY,
        **common(usecase, "ingestion"),
    )
    @retrying_outages_only
    def loaded(platform: Platform) -> dg.MaterializeResult:
        report = load_reference(platform.lake, usecase, reference, platform.settings.reference_uri)
        return dg.MaterializeResult(metadata=_show(report))

    return loaded


def _show(report: IngestionReport) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "dagster/row_count": report.rows,
        "duplicates": report.duplicates,
        "quarantined": sum(report.quarantined.values()),
        "quarantine_rate": report.quarantine_rate,
    }
    if report.landed_at:
        shown[LANDED_AT] = dg.MetadataValue.timestamp(report.landed_at)
    if report.quarantined:
        shown["quarantined by reason"] = counts(report.quarantined, "reason")
    if len(report.rows_by_date) > 1:
        shown["rows by date"] = counts(report.rows_by_date, "business date")
    return shown
