"""Dagster's launcher of Kubernetes Jobs, which also tells why a pod was lost and what a retry of the run needs.

Dagster fails a run whose pod is gone (run_monitoring) and retries it (run_retries). Here the failure gets a cause:

| cause | what a retry does |
| --- | --- |
| `out_of_memory` | gets twice the memory, up to `MEMORY_CEILING`; at the ceiling there is no retry |
| `deadline` | none: it would take as long again |
| `evicted` | starts again unchanged; the node was drained or short of something |
| `pod_lost` | the same; the pod was deleted and nothing is left that says why |
| `node_lost` | the same; the node does not answer, so nobody can say that the pod has ended |

For the cluster a pod on a lost node goes on for ever, and so does its Job, until somebody deletes the node. The run
would wait as long, and so would all that writes the same lake. Here it has failed `OVERDUE` after its pod should have
been gone. If the node is only cut off, the pod may still write: commits of the lake and of PostgreSQL are whole, and
both runs make the same.

Most causes are found while Dagster still regards the run as alive. A run that was told to stop (SIGTERM of an eviction)
has failed itself by then, and one that died before it began fails by its start timeout: their cause is looked up when
their retry is launched, while the Job is still there.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from dagster._core.events import RunFailureReason
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import MAX_RETRIES_TAG, RETRY_NUMBER_TAG, RUN_FAILURE_REASON_TAG
from dagster_k8s import K8sRunLauncher
from dagster_k8s.client import DagsterKubernetesClient
from dagster_k8s.job import get_job_name_from_run_id

from ml_assets.defs.jobs.pods import CONFIG_TAG
from ml_assets.errors import InputError

if TYPE_CHECKING:
    from kubernetes.client import V1Job, V1Pod

Cause = Literal["out_of_memory", "deadline", "evicted", "pod_lost", "node_lost"]

CAUSE = "ml_assets/failure"  # tag of a run that lost its pod
MEMORY_CEILING = "16Gi"
OVERDUE = timedelta(minutes=1)  # after the end of its grace period a pod is there only if its node does not answer
_LOST = {RunFailureReason.UNEXPECTED_TERMINATION.value, RunFailureReason.START_TIMEOUT.value}
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "": 1}


class JobsOnly(DagsterKubernetesClient):
    """Dagster's client of the cluster, which needs no right to delete pods: a Job's go with the Job."""

    def delete_job(self, job_name: str, namespace: str) -> bool:
        """Delete a Job, and with it its pods; return whether there was one."""
        from kubernetes.client.rest import ApiException

        try:
            self.batch_api.delete_namespaced_job(name=job_name, namespace=namespace, propagation_policy="Background")
        except ApiException as error:
            if error.status == 404:
                return False
            raise
        return True


class RunLauncher(K8sRunLauncher):
    """Launches one Job per run; a retry of a run that was out of memory gets more memory."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        made = self._api_client
        self._api_client = JobsOnly(made.batch_api, made.core_api, made.logger, made.sleeper, made.timer)  # type: ignore[no-untyped-call]

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch the Job of a run."""
        super().launch_run(context._replace(dagster_run=self.with_room(context.dagster_run)))

    def with_room(self, run: dg.DagsterRun) -> dg.DagsterRun:
        """Return a run with twice the memory of the run that it repeats, if that was out of memory; else as it is."""
        before = self._instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
        if before is None:
            return run
        cause = before.tags.get(CAUSE)
        if cause is None and RETRY_NUMBER_TAG in run.tags:
            cause = self._cause_found_late(before)
        if cause is None:
            return run
        tags = {CAUSE: ""}  # a retry inherits tags; that it fails as the one before is not said
        if cause == "out_of_memory":
            had = self.memory_limit(before)
            tags[CONFIG_TAG] = with_memory(run.tags.get(CONFIG_TAG), doubled(had))
            said = f"Run {before.run_id} was out of memory at {had}; this one gets {doubled(had)}"
            self._instance.report_engine_event(said, run)
        self._instance.add_run_tags(run.run_id, tags)
        return run.with_tags({**run.tags, **tags})

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the run's pod works; if not, with the cause, which is a tag of the run from now on."""
        found = super().check_run_worker_health(run)
        if found.status is WorkerStatus.SUCCESS:
            return found
        cause, said = self._why(run)
        if cause is None or (found.status is WorkerStatus.RUNNING and cause != "node_lost"):
            return found
        tags: dict[str, str] = {CAUSE: cause}
        at_ceiling = cause == "out_of_memory" and in_bytes(self.memory_limit(run)) >= in_bytes(MEMORY_CEILING)
        if cause == "deadline" or at_ceiling:
            tags[MAX_RETRIES_TAG] = "0"
        self._instance.add_run_tags(run.run_id, tags)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"{cause}: {said}")

    def _cause_found_late(self, run: dg.DagsterRun) -> Cause | None:
        """Return why a run lost its pod that has failed without being asked, and note it on the run."""
        if run.tags.get(RUN_FAILURE_REASON_TAG) not in _LOST:
            return None
        cause, said = self._why(run)
        if cause is not None:
            self._instance.add_run_tags(run.run_id, {CAUSE: cause})
            self._instance.report_engine_event(f"{cause}: {said}", run)
        return cause

    def memory_limit(self, run: dg.DagsterRun) -> str:
        """Return the memory that a run may use: that of its tags, else the launcher's default."""
        config = json.loads(run.tags.get(CONFIG_TAG, "{}"))
        asked = config.get("container_config", {}).get("resources", {}).get("limits", {})
        return str(asked.get("memory") or self.resources["limits"]["memory"])

    def _why(self, run: dg.DagsterRun) -> tuple[Cause | None, str]:
        """Return why a run lost its pod, and the words for it; None if the cluster does not answer."""
        from kubernetes.client.rest import ApiException
        from urllib3.exceptions import HTTPError

        name = get_job_name_from_run_id(run.run_id)  # type: ignore[no-untyped-call]
        namespace = self.get_container_context_for_run(run).namespace
        try:
            # In this order: a Job notes why its pod was lost before that is gone.
            pods = self._api_client.core_api.list_namespaced_pod(namespace, label_selector=f"job-name={name}").items
            job = self._api_client.batch_api.read_namespaced_job(name, namespace)
        except ApiException as error:
            return ("pod_lost", f"Job {name} is gone") if error.status == 404 else (None, "")
        except HTTPError:  # it does not answer; monitoring asks again
            return None, ""
        return cause_of(job, pods, self.memory_limit(run))


def cause_of(job: "V1Job", pods: "list[V1Pod]", memory_limit: str) -> tuple[Cause | None, str]:
    """Return why a failed Job failed, and the words for it; None where its program ended by itself."""
    for condition in job.status.conditions or []:
        if condition.type not in ("Failed", "FailureTarget"):
            continue
        if condition.reason == "DeadlineExceeded":
            return "deadline", f"the run took longer than {job.spec.active_deadline_seconds} s, the deadline of its Job"
        if condition.reason == "PodFailurePolicy":  # whose only rule, in dagster.yaml, is a disruption
            return "evicted", f"the cluster took the pod away: {condition.message}"
    for pod in pods:
        due = pod.metadata.deletion_timestamp  # by when it should be gone
        if due and pod.status.phase == "Running" and datetime.now(UTC) - due > OVERDUE:
            return "node_lost", f"its pod should have ended at {due:%H:%M:%S} UTC; {pod.spec.node_name} does not answer"
        for container in pod.status.container_statuses or []:
            ended = container.state.terminated
            if ended is not None and ended.reason == "OOMKilled":
                return "out_of_memory", f"the run needed more than the {memory_limit} that its pod may use"
        if pod.status.reason == "Evicted":
            return "evicted", f"the node put the pod out: {pod.status.message}"
        for condition in pod.status.conditions or []:
            if condition.type == "DisruptionTarget" and condition.status == "True":
                return "evicted", f"the cluster took the pod away: {condition.reason}: {condition.message}"
    if all(pod.metadata.deletion_timestamp for pod in pods):  # or gone already
        return "pod_lost", "the pod was deleted while it ran"
    return None, ""


def with_memory(config: str | None, memory: str) -> str:
    """Return the tag `dagster-k8s/config` with another limit of memory, and the rest as it was."""
    made: dict[str, Any] = json.loads(config or "{}")
    container = made.setdefault("container_config", {})
    resources = container.setdefault("resources", {})
    for side in ("limits", "requests"):
        resources[side] = {**resources.get(side, {}), "memory": memory}
    return json.dumps(made)


def doubled(memory: str) -> str:
    """Return twice an amount of memory, at most `MEMORY_CEILING`."""
    return f"{min(2 * in_bytes(memory), in_bytes(MEMORY_CEILING)) // 2**20}Mi"


def in_bytes(memory: str) -> int:
    """Return an amount of memory as Kubernetes writes it, in bytes.

    Raises:
        ValueError: the text is not such an amount.
    """
    number = memory.rstrip("KMGTik")
    unit = memory[len(number) :]
    if unit not in _UNITS or not number.isdigit():
        raise InputError(f"{memory!r} is no amount of memory; write it as 512Mi or 4Gi")
    return int(number) * _UNITS[unit]
