"""Schedules: every business night each use case is trained again, every morning its reports are made."""

from collections.abc import Iterator
from datetime import date

import dagster as dg

from ml_assets.defs.assets.reports import report_key
from ml_assets.defs.common import partitions
from ml_assets.defs.jobs import job_name
from ml_assets.defs.resources import Platform
from ml_assets.lake import features_table
from ml_assets.lifecycle.reports import reports_of
from ml_assets.reports.spec import due_date
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


def report_schedule(usecase: UseCase) -> dg.ScheduleDefinition:
    """Return the schedule that makes the reports of which the time has come, each once a date."""

    @dg.schedule(
        name=f"{usecase.name}_morning_reports",
        job_name=job_name(usecase, "report"),
        cron_schedule=Settings().report_cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Makes the reports of {usecase.name}: of today, of the weekday before, of a month that is over.",
    )
    def morning(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        today = context.scheduled_execution_time.date()
        due: dict[date, list[dg.AssetKey]] = {}
        for report in reports_of(usecase).values():
            if (day := due_date(report, today)) is not None and partitions(usecase).has_partition_key(day.isoformat()):
                due.setdefault(day, []).append(report_key(usecase, report))
        if not due:
            yield dg.SkipReason(f"no report of {usecase.name} is due on {today}")
        for day, keys in sorted(due.items()):
            yield dg.RunRequest(
                run_key=f"{usecase.name}:reports:{today}:{day}",
                partition_key=day.isoformat(),
                asset_selection=keys,
                tags={"use_case": usecase.name},
            )

    return morning


def newest_features(platform: Platform, usecase: UseCase, until: date) -> date | None:
    """Return the newest date, up to a date, of which the lake has features; None if there is none."""
    days = (file.partition for file in platform.lake.files(features_table(usecase), "decision_date") if file.rows)
    known = (day for day in days if day <= until and partitions(usecase).has_partition_key(day.isoformat()))
    return max(known, default=None)
