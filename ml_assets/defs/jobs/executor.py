"""Dagster's in-process executor, which also notes on each run what it has used."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.events import EngineEventData

from ml_assets.defs.usage import Meter, Usage
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from dagster._core.events import DagsterEvent
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan
    from dagster._core.execution.retries import RetryMode

SECONDS, CPU_SECONDS = "ml_assets/seconds", "ml_assets/cpu_seconds"
PEAK_MEMORY_MIB, COST_USD = "ml_assets/peak_memory_mib", "ml_assets/cost_usd"


@contextmanager
def metered(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Note on a run, as tags and in its log, what this process uses for the length of a block, failed or not."""
    meter = Meter()
    try:
        yield
    finally:
        run = instance.get_run_by_id(run_id)
        if run is not None:  # refused before it was one
            _note(instance, run, meter.read())


def _note(instance: dg.DagsterInstance, run: dg.DagsterRun, usage: Usage) -> None:
    settings = Settings()
    cost = usage.cost(settings.usd_per_cpu_hour, settings.usd_per_gib_hour)
    instance.add_run_tags(
        run.run_id,
        {
            SECONDS: f"{usage.seconds:.1f}",
            CPU_SECONDS: f"{usage.cpu_seconds:.1f}",
            PEAK_MEMORY_MIB: f"{usage.peak_memory_mib:.0f}",
            COST_USD: f"{cost:.6f}",
        },
    )
    shown = {
        "seconds": round(usage.seconds, 1), "CPU seconds": round(usage.cpu_seconds, 1),
        "peak memory, MiB": round(usage.peak_memory_mib), "estimated cost, USD": round(cost, 6),
    }  # fmt: skip
    instance.report_engine_event("What the run has used", run, EngineEventData(metadata=shown))


class MeteredExecutor(dg.Executor):
    """Executes with another executor and meters it."""

    def __init__(self, inner: dg.Executor) -> None:
        self._inner = inner

    @property
    def retries(self) -> "RetryMode":
        """As the inner executor retries."""
        return self._inner.retries

    def execute(
        self, plan_context: "PlanOrchestrationContext", execution_plan: "ExecutionPlan"
    ) -> "Iterator[DagsterEvent]":
        """Execute the plan and yield its events."""
        with metered(plan_context.instance, plan_context.dagster_run.run_id):
            yield from self._inner.execute(plan_context, execution_plan)


@dg.executor(name="in_process", config_schema=dg.in_process_executor.config_schema.as_field())
def metered_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Execute all steps of a run in one process; imports of dagster and sklearn cost more than most steps."""
    inner = dg.in_process_executor.executor_creation_fn
    assert inner is not None  # noqa: S101 - Dagster's own has one
    return MeteredExecutor(inner(context))
