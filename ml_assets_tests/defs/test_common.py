"""What a step does when something goes wrong."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from ml_assets.defs.common import RETRY, retrying_outages_only, table


def asset_that(error: BaseException, *, cancelled: bool) -> dg.AssetsDefinition:
    @dg.asset(retry_policy=RETRY)
    @retrying_outages_only
    def made(context: dg.AssetExecutionContext) -> None:
        if cancelled:
            context.instance.report_run_canceling(context.run)
        raise error

    return made


@pytest.mark.parametrize("error", [RuntimeError("Query interrupted"), DagsterExecutionInterruptedError()])
def test_a_cancelled_run_ends_and_is_not_retried(error):
    """Guards: the retry policy took an interruption for an outage, and the run went on to its end."""
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([asset_that(error, cancelled=True)], instance=instance, raise_on_error=False)
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.CANCELED
        events = {
            event.dagster_event.event_type_value for event in instance.all_logs(run.run_id) if event.dagster_event
        }
        assert "STEP_UP_FOR_RETRY" not in events


@pytest.mark.parametrize("error", [RuntimeError("Query interrupted"), DagsterExecutionInterruptedError()])
def test_a_run_whose_pod_must_go_ends_and_leaves_the_retry_to_another(error):
    """Guards: an evicted pod spent its grace period on its step anew, until it was killed."""
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([asset_that(error, cancelled=False)], instance=instance, raise_on_error=False)
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.FAILURE
        assert run.tags["dagster/failure_reason"] == "UNEXPECTED_TERMINATION", "which run_retries repeats"
        events = {
            event.dagster_event.event_type_value for event in instance.all_logs(run.run_id) if event.dagster_event
        }
        assert "STEP_UP_FOR_RETRY" not in events


@dg.asset(retry_policy=RETRY)
@retrying_outages_only
def without_context() -> None:
    raise ValueError("bad row")


@dg.asset(retry_policy=RETRY, output_required=False)
@retrying_outages_only
def yielding(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    context.log.debug("nothing to yield")
    raise ValueError("bad row")
    yield


@pytest.mark.parametrize(
    "asset",
    [asset_that(ValueError("bad row"), cancelled=False), without_context, yielding],
    ids=lambda a: a.key.path[-1],
)
def test_what_is_wrong_with_data_fails_at_once(asset):
    """Guards also: of an asset that takes no context, an IndexError was shown in place of what was wrong."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([asset], instance=instance, raise_on_error=False)
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.FAILURE
        (failure,) = result.get_step_failure_events()
        assert "ValueError: bad row" in str(failure.step_failure_data.error)


def test_numbers_of_a_table_are_as_people_read_them():
    """Guards 1.5e-03 in a table of log-odds."""
    shown = table([{"a": 0.0015, "b": 0.25, "c": 3.0, "d": 12345.678, "e": 2.2e-7, "f": float("nan")}], digits=2).value
    assert shown.splitlines()[-1] == "| 0.0015 | 0.25 | 3 | 12,345.68 | 2.2e-07 |  |"
