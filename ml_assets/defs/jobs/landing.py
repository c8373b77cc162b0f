"""Jobs around landing: the account of every topic, the lake's housekeeping, and Kafka Connect's objects."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_assets.answers import landed_events
from ml_assets.defs.assets.maintenance import MAINTENANCE
from ml_assets.defs.common import table
from ml_assets.defs.jobs.executor import metered_executor
from ml_assets.defs.jobs.pods import pod_tags
from ml_assets.defs.resources import Platform
from ml_assets.spec import UseCase


def accounting_job(checks: Sequence[dg.AssetChecksDefinition]) -> UnresolvedAssetJobDefinition:
    """Return the job that balances the account of every topic."""
    return dg.define_asset_job(
        "landing_accounting",
        selection=dg.AssetSelection.checks(*checks),
        description="Checks of every topic that each consumed message is in the lake, once.",
        tags=pod_tags("ingest"),
    )


def lake_maintenance_job() -> UnresolvedAssetJobDefinition:
    """Return the job that compacts and vacuums the lake."""
    return dg.define_asset_job(
        "lake_maintenance",
        selection=dg.AssetSelection.assets(MAINTENANCE),
        description="Compacts small files of the lake and removes what only old versions need.",
        tags=pod_tags("maintenance"),
    )


def landing_schedules(checks: Sequence[dg.AssetChecksDefinition]) -> list[dg.ScheduleDefinition]:
    """Return the schedules: the account every hour, housekeeping every night."""
    return [
        dg.ScheduleDefinition(
            name="hourly_landing_accounting",
            job=accounting_job(checks),
            cron_schedule="15 * * * *",
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        ),
        dg.ScheduleDefinition(
            name="nightly_lake_maintenance",
            job=lake_maintenance_job(),
            cron_schedule="0 4 * * *",
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        ),
    ]


def connect_job(usecases: Sequence[UseCase]) -> dg.JobDefinition:
    """Return the job that lands what Kafka Connect's sink has written, for a bank that has no lander of ours."""
    events = landed_events(usecases)

    @dg.op(description="Lands the objects below ML_ASSETS_CONNECT_ROOT that have not landed yet.")
    def land_objects_of_connect(context: dg.OpExecutionContext, platform: Platform) -> None:
        from ml_assets.landing.connect import land_objects

        settings = platform.settings
        if not settings.connect_root:
            raise dg.Failure(
                "ML_ASSETS_CONNECT_ROOT is not set: it names the folder or prefix that Kafka Connect's sink writes to",
                allow_retries=False,
            )
        reports = land_objects(platform.lake, events, settings.connect_root, clock=settings.landing_clock)
        shown = ("topic", "consumed", "landed", "dead_lettered", "gap_offsets")
        context.add_output_metadata({"topics": table([{n: getattr(r, n) for n in shown} for r in reports])})

    @dg.job(
        name="land_connect_objects",
        executor_def=metered_executor,
        description="Lands what Kafka Connect's S3 sink has written. The sensor on landed data does the rest.",
        tags=pod_tags("ingest"),
    )
    def landing() -> None:
        land_objects_of_connect()

    return landing


def connect_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule of that job, stopped until somebody lands with Connect."""
    return dg.ScheduleDefinition(
        name="land_connect_objects_every_5_minutes",
        job=job,
        cron_schedule="*/5 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )
