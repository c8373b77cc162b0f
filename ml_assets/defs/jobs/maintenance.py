"""The nightly job that keeps the databases small: Dagster's event logs, and predictions past their retention."""

from datetime import UTC, datetime

import dagster as dg

from ml_assets.defs.jobs.executor import metered_executor
from ml_assets.defs.jobs.pods import pod_tags
from ml_assets.defs.resources import Platform


@dg.op(description="Deletes the logs of runs that ended long ago. Runs, and what they say of assets, stay.")
def purge_event_logs(context: dg.OpExecutionContext, platform: Platform) -> None:
    """Delete old event logs and say how many."""
    from ml_assets.database.event_logs import purge

    url = getattr(context.instance.event_log_storage, "postgres_url", None)
    if url is None:
        raise dg.Failure(
            f"the event logs are in {type(context.instance.event_log_storage).__name__}, not in PostgreSQL; "
            "only PostgreSQL is purged here",
            allow_retries=False,
        )
    deleted = purge(url, older_than_days=platform.settings.event_log_days)
    context.log.info("deleted %d rows of event logs", deleted)
    context.add_output_metadata({"deleted rows": deleted, "kept days": platform.settings.event_log_days})


@dg.op(description="Drops months of predictions, and outcomes, that are past their retention. The lake keeps them.")
def drop_old_predictions(context: dg.OpExecutionContext, platform: Platform) -> None:
    """Drop old months and say which."""
    from ml_assets.database.monitoring import retire_outcomes
    from ml_assets.database.predictions import retire_predictions

    months, now = platform.settings.prediction_months, datetime.now(UTC)
    dropped = retire_predictions(platform.engine, months=months, now=now)
    outcomes = retire_outcomes(platform.engine, months=months, now=now)
    context.log.info("dropped %s, and %d outcomes", ", ".join(dropped) or "no month", outcomes)
    context.add_output_metadata({"dropped": dropped, "deleted outcomes": outcomes, "kept months": months})


@dg.job(
    name="maintenance",
    description="Purges what has been kept long enough: Dagster's event logs, months of predictions.",
    executor_def=metered_executor,
    tags=pod_tags("maintenance"),
)
def maintenance_job() -> None:
    """Run both; neither waits for the other."""
    purge_event_logs()
    drop_old_predictions()


maintenance_schedule = dg.ScheduleDefinition(
    name="nightly_maintenance",
    job=maintenance_job,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
