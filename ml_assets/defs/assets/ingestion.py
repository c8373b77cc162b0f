"""Ingestion: topics and reference files, as curated tables. The lander fills the landing tables, not Dagster."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ml_assets.answers import CHANGED_SCORES, SERVED_SCORES
from ml_assets.contracts import describe_fields
from ml_assets.defs.checks.ingestion import curation_checks, judge_curation, judge_reference, reference_check
from ml_assets.defs.common import (
    RETRY,
    by_date,
    common,
    counts,
    dates_of,
    key,
    lake_pool,
    landing_key,
    retrying_outages_only,
    rounded,
    table,
)
from ml_assets.defs.resources import Platform
from ml_assets.lake import (
    curated_table,
    landing_table,
    quarantine_table,
    reference_quarantine_table,
    reference_table,
)
from ml_assets.lake.counts import most_frequent
from ml_assets.landing.schemas import curated_schema, landing_schema
from ml_assets.lifecycle.ingestion import IngestionReport, ReferenceReport, curate_dates, load_reference
from ml_assets.spec import EventSpec, ReferenceSpec, UseCase

# Metadata of a curated partition: when the newest of what it was made from had landed.
LANDED_AT = "landed_at"
# How many reasons of a run are shown.
_REASONS = 20


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition | dg.AssetSpec]:
    """Yield topic and landing table of each event (external), its curated table, and the reference tables."""
    for event in usecase.events:
        yield topic_spec(event)
        yield landing_spec(event)
        yield curated_asset(usecase, event)
    for reference in usecase.references:
        yield reference_asset(usecase, reference)


def build_answers() -> Iterator[dg.AssetSpec]:
    """Yield what the scoring service writes: both topics, and the landing table of its answers."""
    for event in (SERVED_SCORES, CHANGED_SCORES):
        yield topic_spec(event).replace_attributes(freshness_policy=None)  # nobody has to ask, and no score to change
    yield landing_spec(SERVED_SCORES)


def topic_key(topic: str) -> dg.AssetKey:
    """Return the key of a topic."""
    return dg.AssetKey(["kafka", topic])


def topic_spec(event: EventSpec) -> dg.AssetSpec:
    """Return the Kafka topic, which is filled outside of Dagster."""
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
        kinds={"duckdb", "deltalake"},
        description=(
            f"{event.description} Typed, one of each `{', '.join(event.key)}`, rows that break a rule left out into "
            f"`{quarantine_table(usecase, event)}` with the reason."
        ),
        metadata={"dagster/table_name": curated_table(usecase, event), "dagster/column_schema": schema},
        check_specs=curation_checks(key(usecase, "curated", event.name), event),
        pool=lake_pool(usecase),
        **by_date(usecase, "ingestion", several_runs=True),
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
        description=(
            f"{reference.description} All published versions, from the files dropped for it. Files and lines that "
            f"cannot be used are in `{reference_quarantine_table(usecase, reference)}` with the reason."
        ),
        metadata={"dagster/table_name": reference_table(usecase, reference), "dagster/column_schema": schema},
        check_specs=[reference_check(key(usecase, "reference", reference.name))],
        retry_policy=RETRY,
        pool=lake_pool(usecase),
        **common(usecase, "ingestion"),
    )
    @retrying_outages_only
    def loaded(platform: Platform) -> dg.MaterializeResult:
        report = load_reference(platform.lake, usecase, reference, platform.settings.reference_uri)
        return dg.MaterializeResult(metadata=_show_reference(report), check_results=[judge_reference(report)])

    return loaded


def _show(report: IngestionReport) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "dagster/row_count": report.rows,
        "duplicates": report.duplicates,
        "quarantined": sum(report.quarantined.values()),
        "quarantine_rate": rounded(max(report.quarantine_rates.values(), default=0.0)),
    }
    if report.landed_at:
        shown[LANDED_AT] = dg.MetadataValue.timestamp(report.landed_at)
    if report.quarantined:
        shown["quarantined by reason"] = counts(most_frequent(report.quarantined), "reason")
    if report.unknown_codes:
        shown["codes that are not known"] = counts(report.unknown_codes, "code")
    if len(report.rows_by_date) > 1:
        shown["rows by date"] = counts(report.rows_by_date, "business date")
    return shown


def _show_reference(report: ReferenceReport) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "dagster/row_count": report.rows or report.kept,
        "quarantined": sum(report.bad_lines.values()) + len(report.bad_files),
    }
    if report.bad_lines:
        shown["quarantined by reason"] = counts(most_frequent(report.bad_lines), "reason")
    if report.bad_files:
        files = sorted(report.bad_files.items())[:_REASONS]
        shown["files left out"] = table([{"file": file, "reason": reason} for file, reason in files])
    return shown
