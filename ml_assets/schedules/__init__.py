"""Schedules: every business night each use case is trained again."""

from datetime import date

import dagster as dg

from ml_assets.assets.common import partitions
from ml_assets.jobs import job_name
from ml_assets.lake import features_table
from ml_assets.resources import Platform
from ml_assets.settings import Settings
from ml_assets.spec import UseCase

TRAINED_ON = "trained_on"  # the tag with the night of a retraining
_IN_VAIN = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def retraining_schedule(usecase: UseCase) -> dg.ScheduleDefinition:
    """Return the schedule that retrains on business nights, as of the newest date that has features."""

    @dg.schedule(
        name=f"{usecase.name}_nightly_retraining",
        job_name=job_name(usecase, "retrain"),
        cron_schedule=Settings().retraining_cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Retrains {usecase.name} once a business day of {usecase.calendar.market}.",
    )
    def nightly(context: dg.ScheduleEvaluationContext, platform: Platform) -> dg.RunRequest | dg.SkipReason:
        tonight = context.scheduled_execution_time.date()
        if not usecase.calendar.is_business_day(tonight):
            return dg.SkipReason(f"{tonight} is not a business day of {usecase.calendar.market}")
        # A run key of a schedule holds for one tick only; this holds for the night, however often the schedule ticks.
        tried = context.instance.get_runs(
            dg.RunsFilter(job_name=job_name(usecase, "retrain"), tags={TRAINED_ON: tonight.isoformat()})
        )
        if any(run.status not in _IN_VAIN for run in tried):
            return dg.SkipReason(f"{usecase.name} has its retraining of {tonight} already")
        newest = newest_features(platform, usecase, tonight)
        if newest is None:
            return dg.SkipReason(f"{usecase.name} has no features yet; land events and materialize features first")
        return dg.RunRequest(
            run_key=f"{usecase.name}:{tonight}",
            partition_key=newest.isoformat(),
            tags={"use_case": usecase.name, TRAINED_ON: tonight.isoformat()},
        )

    return nightly


def newest_features(platform: Platform, usecase: UseCase, until: date) -> date | None:
    """Return the newest date, up to a date, of which the lake has features; None if there is none."""
    days = (file.partition for file in platform.lake.files(features_table(usecase), "decision_date") if file.rows)
    known = (day for day in days if day <= until and partitions(usecase).has_partition_key(day.isoformat()))
    return max(known, default=None)
