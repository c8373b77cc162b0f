"""Jobs run in this process and recorded on the Dagster instance, where the UI shows them as any other run."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from ml_assets.cli.foreseen import foreseen_names
from ml_assets.definitions import build_definitions
from ml_assets.defs.assets.alerts import ALERTS
from ml_assets.defs.assets.alerts import JOB as ALERTS_JOB
from ml_assets.defs.assets.features import features_metadata
from ml_assets.defs.checks.features import judge_features
from ml_assets.defs.checks.training import NO_LEAK
from ml_assets.defs.common import key, partitions
from ml_assets.defs.jobs import Verb, job_name
from ml_assets.defs.jobs.executor import metered
from ml_assets.defs.resources import Platform
from ml_assets.errors import StateError
from ml_assets.lifecycle.features import DecisionReport
from ml_assets.local.embedded.environment import environment_for
from ml_assets.settings import Settings
from ml_assets.spec import UseCase

# Partitions made in one run: enough to share its start, few enough to see progress and to bound memory.
CHUNK = 20
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class RunFailedError(StateError):
    """A run failed; the message is that of the step that failed."""


class LocalRuns:
    """Runs the jobs of a use case on an instance."""

    def __init__(self, instance: dg.DagsterInstance, usecase: UseCase, platform: Platform) -> None:
        self._instance = instance
        self._usecase = usecase
        self.definitions = build_definitions([usecase], platform)

    def run(self, verb: Verb, dates: Sequence[date], *, ops: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        """Run a job for neighbouring dates in one run and return its result.

        Raises:
            RunFailedError: a step failed.
        """
        first, last = min(dates), max(dates)
        if first == last:
            selected: dict[str, Any] = {"partition_key": first.isoformat()}
        else:
            ends = {ASSET_PARTITION_RANGE_START_TAG: first.isoformat(), ASSET_PARTITION_RANGE_END_TAG: last.isoformat()}
            selected = {"tags": ends}
        run_id = str(uuid4())
        with metered(self._instance, run_id):
            result = self.definitions.resolve_job_def(job_name(self._usecase, verb)).execute_in_process(
                instance=self._instance, run_config={**_QUIET, "ops": ops or {}}, raise_on_error=False, run_id=run_id,
                **selected,
            )  # fmt: skip
        if not result.success:
            raise RunFailedError(f"{job_name(self._usecase, verb)} of {first} to {last}: {_why(result)}")
        return result

    def run_in_chunks(
        self,
        verb: Verb,
        dates: Sequence[date],
        size: int,
        progress: Callable[[int], None] = lambda _: None,
        *,
        ops: dict[str, Any] | None = None,
    ) -> list[Mapping[str, Any]]:
        """Run a job for many dates in chunks of neighbouring dates; `progress` gets the number of dates of each chunk.

        Return what the runs say of features, labels and training set: the metadata of each, once per run.

        Raises:
            RunFailedError: a step failed; the chunks before it are done.
        """
        days = weekdays(self._usecase, min(dates), max(dates))
        said: list[Mapping[str, Any]] = []
        for start in range(0, len(days), size):
            chunk = days[start : start + size]
            said += _said(self.run(verb, chunk, ops=ops))
            progress(len(chunk))
        return said


def record_features(
    instance: dg.DagsterInstance, usecase: UseCase, report: DecisionReport, dates: Sequence[date]
) -> Mapping[str, Any]:
    """Record features that no run has made as materialized, with their checks, and return the metadata.

    The UI shows them, and what follows from them is requested, as if a run had made them.
    """
    asset, metadata = key(usecase, "features"), features_metadata(usecase, report)
    for day in dates:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(asset, partition=day.isoformat(), metadata=metadata)
        )
    for judged in judge_features(usecase, report, dates):
        assert judged.check_name is not None  # noqa: S101 - a result that names no check is for an asset with one
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=asset,
                check_name=judged.check_name,
                passed=judged.passed,
                metadata=judged.metadata,
                severity=judged.severity,
            )
        )
    return {name: entry.value for name, entry in dg.AssetMaterialization(asset, metadata=metadata).metadata.items()}


def run_alerts(instance: dg.DagsterInstance, usecases: Sequence[UseCase], platform: Platform) -> Mapping[str, Any]:
    """Run a round of alerts of all rules, and return what the run says of it.

    Raises:
        RunFailedError: it failed.
    """
    job = build_definitions(usecases, platform).resolve_job_def(ALERTS_JOB)
    run_id = str(uuid4())
    ops = {ALERTS.to_python_identifier(): {"config": {"all_rules": True}}}
    with metered(instance, run_id):
        result = job.execute_in_process(
            instance=instance, run_config={**_QUIET, "ops": ops}, raise_on_error=False, run_id=run_id
        )
    if not result.success:
        raise RunFailedError(f"alerts: {_why(result)}")
    (made,) = result.get_asset_materialization_events()
    return {name: entry.value for name, entry in made.materialization.metadata.items()}


def weekdays(usecase: UseCase, first: date, last: date) -> list[date]:
    """Return the partitions from one date to another, both included."""
    keys = partitions(usecase).get_partition_keys()
    return [day for day in map(date.fromisoformat, keys) if first <= day <= last]


@contextmanager
def local_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Yield the Dagster instance of the settings; the embedded PostgreSQL is started if need be."""
    os.environ.update(environment_for(settings))
    with dg.DagsterInstance.get() as instance:
        yield instance


@contextmanager
def instance_here(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Yield the instance of DAGSTER_HOME, as a pod has it; without one that of the settings."""
    if not os.environ.get("DAGSTER_HOME"):
        with local_instance(settings) as instance:
            yield instance
        return
    with dg.DagsterInstance.get() as instance:
        yield instance


def _said(result: dg.ExecuteInProcessResult) -> list[Mapping[str, Any]]:
    """Return the metadata of the assets that a person is told of; Dagster repeats it for each partition.

    That of the training set has what its check on leaks found, too.
    """
    found: dict[dg.AssetKey, dict[str, Any]] = {}
    for event in result.get_asset_materialization_events():
        made = event.materialization
        if made.asset_key.path[-1] in ("features", "labels", "training_set"):
            found[made.asset_key] = {name: entry.value for name, entry in made.metadata.items()}
    for check in result.get_asset_check_evaluations():
        if check.check_name == NO_LEAK:
            found.setdefault(check.asset_key, {}).update({name: at.value for name, at in check.metadata.items()})
    return list(found.values())


def _why(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            described = failure.user_failure_data
            if described is not None and described.description:
                return f"step {event.step_key}: {described.description}"
            error = failure.error
            while error is not None and error.cause is not None:
                error = error.cause
            if error is None:
                return f"step {event.step_key}: failed"
            # A bug of ours says nothing without the lines that it comes from.
            trace = "" if error.cls_name in foreseen_names() else "".join(error.stack)
            return f"step {event.step_key}: {trace}{error.message.strip()}"
    blocked = [e.check_name for e in result.get_asset_check_evaluations() if not e.passed]
    return f"failed checks: {', '.join(blocked)}" if blocked else "the run failed; see it in the Dagster UI"
