"""A night is retrained once, however often the schedule ticks."""

from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from ml_assets.defs.jobs import job_name
from ml_assets.defs.resources import Platform
from ml_assets.defs.schedules import TRAINED_ON, retraining_schedule
from ml_assets_tests import late_payments

TUESDAY = datetime(2026, 1, 13, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "night", "skipped"),
    [
        (DagsterRunStatus.SUCCESS, "2026-01-13", "has its retraining of 2026-01-13 already"),
        (DagsterRunStatus.STARTED, "2026-01-13", "has its retraining of 2026-01-13 already"),
        (DagsterRunStatus.SUCCESS, "2026-01-12", "has no features yet"),
        (DagsterRunStatus.FAILURE, "2026-01-13", "has no features yet"),
    ],
)
def test_a_night_is_retrained_once_unless_it_failed(status, night, skipped, tmp_path):
    usecase = late_payments.usecase_of(late_payments.make_package(tmp_path))
    with dg.instance_for_test() as instance:
        create_run_for_test(instance, job_name=job_name(usecase, "retrain"), status=status, tags={TRAINED_ON: night})
        with dg.build_schedule_context(
            instance=instance, scheduled_execution_time=TUESDAY, resources={"platform": Platform(home=str(tmp_path))}
        ) as context:
            reason = retraining_schedule(usecase)(context)
            assert skipped in reason.skip_message
