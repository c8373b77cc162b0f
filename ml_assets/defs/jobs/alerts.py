"""The job of alerts and its schedule: a round every few minutes, one at a time, before whatever else is queued."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_assets.defs.assets.alerts import ALERTS, JOB
from ml_assets.defs.jobs.pods import pod_tags
from ml_assets.settings import Settings

_AT_WORK = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


def alerts_job() -> UnresolvedAssetJobDefinition:
    """Return the job that makes a round of alerts."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(ALERTS),
        description="Evaluates the rules of alerts that are due, and sends what is due.",
        tags={**pod_tags("alerts"), "dagster/priority": "10"},
    )


def alerts_schedules() -> list[dg.ScheduleDefinition]:
    """Return the schedule of the rounds; none where an evaluator makes them (`defs.evaluator`)."""
    return [alerts_schedule()] if Settings().alert_cron else []


def alerts_schedule() -> dg.ScheduleDefinition:
    """Return the schedule of the rounds; one that comes while another is under way is left out."""

    @dg.schedule(
        name="alerts_every_five_minutes",
        job_name=JOB,
        cron_schedule=Settings().alert_cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks at the rules of alerts.",
    )
    def rounds(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        under_way = context.instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=list(_AT_WORK)), limit=1)
        if under_way:
            return dg.SkipReason(f"the round of run {under_way[0].run_id} is not over")
        return dg.RunRequest()

    return rounds
