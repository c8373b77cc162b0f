"""A run says what it has used, whether it went well or not."""

import time

import dagster as dg
import pytest

from ml_assets.defs.jobs import executor
from ml_assets.defs.usage import Usage


@dg.op(config_schema={"fail": bool})
def work(context: dg.OpExecutionContext) -> None:
    until = time.process_time() + 0.2
    held = bytearray(2**20)
    while time.process_time() < until:
        held[0] = 1
    if context.op_config["fail"]:
        raise ValueError("no")


@dg.job(executor_def=executor.metered_executor)
def worked() -> None:
    work()


@pytest.mark.parametrize("fail", [False, True])
def test_a_run_says_what_it_has_used(fail):
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.execute_job(
            dg.reconstructable(worked_job), instance, {"ops": {"work": {"config": {"fail": fail}}}}
        )  # fmt: skip
        assert result.success is not fail
        tags = instance.get_run_by_id(result.run_id).tags
        assert 0.2 <= float(tags[executor.CPU_SECONDS]) < 60
        assert float(tags[executor.SECONDS]) >= 0.2
        assert 20 < float(tags[executor.PEAK_MEMORY_MIB]) < 10_000
        assert float(tags[executor.COST_USD]) > 0
        (said,) = (e for e in instance.all_logs(result.run_id) if e.message == "What the run has used")
        shown = said.dagster_event.engine_event_data.metadata
        assert shown["CPU seconds"].value >= 0.2
        # Guards 400.62476282399984 seconds.
        assert all(len(str(entry.value)) <= 8 for entry in shown.values())


def worked_job() -> dg.JobDefinition:
    return worked


def test_a_cost_is_of_cpu_and_of_memory_held():
    assert Usage(3600, 1800, 2048).cost(0.04, 0.005) == pytest.approx(0.02 + 0.01)
