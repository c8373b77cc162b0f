"""The run queue: runs that may not start yet wait in it, whoever requested them."""

from dagster import DagsterRun, QueuedRunCoordinator
from dagster._core.run_coordinator import SubmitRunContext


class RunQueue(QueuedRunCoordinator):
    """Dagster's queue, which also enforces the limits of pools that have never been used.

    A pool gets its default limit (`concurrency` in dagster.yaml) when the daemon first meets it, and is enforced from
    the next time on: of two runs that are queued before, both would start. Here a pool has it before its run is queued.
    A limit that a person has set stays.
    """

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Queue the run."""
        wanted = context.dagster_run.run_op_concurrency
        storage = self._instance.event_log_storage
        pools = set((wanted.all_pools if wanted else None) or ())
        for pool in sorted(pools - {limit.name for limit in storage.get_pool_limits()} if pools else pools):
            storage.initialize_concurrency_limit_to_default(pool)
        return super().submit_run(context)
