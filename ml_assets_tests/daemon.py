"""Dagster's daemon, a tick at a time: the code that runs in production, on an instance with real storage.

Dagster has no public API for this. Everything that reaches into its inside for tests is here.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorTick
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.auto_run_reexecution.event_log_consumer import EventLogConsumerDaemon
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs

_LOG = logging.getLogger("daemon")
_RUN_SECONDS = 400.0  # a retraining on a busy machine


class Daemon:
    """Ticks of the sensors, of the schedules, of backfills and of the run queue."""

    def __init__(self, workspace: WorkspaceProcessContext) -> None:
        self.workspace = workspace
        self.instance = workspace.instance
        self._minutes = 0

    def tick_sensors(self) -> None:
        """Evaluate every running sensor, as if a minute had passed since the last time."""
        self._minutes += 1
        with freeze_time(datetime.now(UTC) + timedelta(minutes=self._minutes)):
            list(execute_sensor_iteration(self.workspace, _LOG, None, None))

    def tick_schedules(self, at: datetime) -> None:
        """Evaluate the schedules as if it were that time, after they were last looked at an hour before."""
        iterations: dict = {}
        for moment in (at - timedelta(hours=1), at):
            with freeze_time(moment):
                list(launch_scheduled_runs(self.workspace, _LOG, moment, iterations))

    def last_tick(self, name: str) -> InstigatorTick:
        """The newest tick of a sensor or schedule."""
        request = self.workspace.create_request_context()
        (location,) = request.code_locations
        (repository,) = location.get_repositories().values()
        found = repository.get_schedule(name) if repository.has_schedule(name) else repository.get_sensor(name)
        return self.instance.get_ticks(found.get_remote_origin_id(), found.selector_id, limit=1)[0]

    @contextmanager
    def ticking(self) -> Iterator[Callable[[], None]]:
        """Yield a function that lets the daemon look once at backfills, lost runs and the queue."""
        retries = EventLogConsumerDaemon()
        with QueuedRunCoordinatorDaemon(interval_seconds=1) as coordinator:

            def tick() -> None:
                list(execute_backfill_iteration(self.workspace, _LOG))
                list(retries.run_iteration(self.workspace))
                list(coordinator.run_iteration(self.workspace))

            yield tick

    def run_queue(self, *, seconds: float = _RUN_SECONDS) -> list[dg.DagsterRun]:
        """Launch what is queued, each run in a process of its own, and return the runs when they have ended."""
        queued = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
        coordinator = QueuedRunCoordinatorDaemon(interval_seconds=1)
        deadline = time.monotonic() + seconds
        with coordinator:
            while time.monotonic() < deadline:
                list(coordinator.run_iteration(self.workspace))
                runs = [self.instance.get_run_by_id(run.run_id) for run in queued]
                if all(run is not None and run.is_finished for run in runs):
                    return [run for run in runs if run is not None]
                time.sleep(0.2)
        raise TimeoutError(f"runs still go on after {seconds} s: {[run and run.status for run in runs]}")


@contextmanager
def daemon_of(module: str) -> Iterator[Daemon]:
    """Yield a daemon over the definitions of a module, on the instance of the environment."""
    with ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.get())
        target = ModuleTarget(module_name=module, attribute=None, working_directory=None, location_name="test")
        yield Daemon(stack.enter_context(create_test_daemon_workspace_context(target, instance)))
