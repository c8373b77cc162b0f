"""A lost pod has a cause, and a retry that fits the cause."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._core.storage.tags import RETRY_NUMBER_TAG, RUN_FAILURE_REASON_TAG
from dagster._core.test_utils import create_run_for_test
from kubernetes import client
from kubernetes.client.rest import ApiException

from ml_assets.defs.jobs.launcher import CAUSE, RunLauncher, cause_of, doubled, in_bytes, with_memory
from ml_assets.defs.jobs.pods import CONFIG_TAG, pod_tags

KUBECONFIG = {
    "apiVersion": "v1", "kind": "Config", "current-context": "none",
    "clusters": [{"name": "none", "cluster": {"server": "https://localhost:1"}}],
    "users": [{"name": "none", "user": {}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
}  # fmt: skip


def job(reason: str = "BackoffLimitExceeded", message: str = "") -> client.V1Job:
    failed = client.V1JobCondition(type="Failed", status="True", reason=reason, message=message)
    return client.V1Job(
        spec=client.V1JobSpec(active_deadline_seconds=60, template=client.V1PodTemplateSpec()),
        status=client.V1JobStatus(failed=1, active=None, conditions=[failed]),
    )


def pod(ended: str = "Error", *, exit_code: int = 1, deleted: datetime | None = None, **status: Any) -> client.V1Pod:
    state = client.V1ContainerState(terminated=client.V1ContainerStateTerminated(exit_code=exit_code, reason=ended))
    container = client.V1ContainerStatus(
        name="dagster", image="i", image_id="i", ready=False, restart_count=0, state=state
    )
    metadata = client.V1ObjectMeta(deletion_timestamp=deleted)
    return client.V1Pod(metadata=metadata, status=client.V1PodStatus(container_statuses=[container], **status))


OOM = pod("OOMKilled", exit_code=137)
EVICTED = pod(exit_code=137, reason="Evicted", message="The node was low on resource: memory.")
DRAINED = pod(
    exit_code=143,
    conditions=[
        client.V1PodCondition(type="DisruptionTarget", status="True", reason="EvictionByEvictionAPI", message="drain")
    ],
)


def on_node(deleted: datetime | None) -> client.V1Pod:
    """A pod of which its node said last that it runs."""
    state = client.V1ContainerState(running=client.V1ContainerStateRunning())
    container = client.V1ContainerStatus(
        name="dagster", image="i", image_id="i", ready=True, restart_count=0, state=state
    )
    taint = client.V1PodCondition(
        type="DisruptionTarget", status="True", reason="DeletionByTaintManager", message="Taint manager: deleting"
    )
    return client.V1Pod(
        metadata=client.V1ObjectMeta(deletion_timestamp=deleted),
        spec=client.V1PodSpec(containers=[], node_name="node-7"),
        status=client.V1PodStatus(
            phase="Running", container_statuses=[container], conditions=[taint] if deleted else []
        ),
    )


class Cluster:
    """The answers of an API server about one Job."""

    def __init__(self) -> None:
        self.job: client.V1Job | None = job()
        self.pods: list[client.V1Pod] = []

    def read_namespaced_job(self, name: str, namespace: str) -> client.V1Job:
        if self.job is None:
            raise ApiException(status=404)
        return self.job

    read_namespaced_job_status = read_namespaced_job

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        return SimpleNamespace(items=self.pods)

    def delete_namespaced_job(self, name: str, namespace: str, propagation_policy: str) -> None:
        """The one way to delete: a pod may not be deleted, and goes with its Job if that is asked for."""
        if self.job is None:
            raise ApiException(status=404)
        assert propagation_policy == "Background"
        self.job = None


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def launcher(tmp_path: Path, cluster: Cluster, instance: dg.DagsterInstance) -> RunLauncher:
    (tmp_path / "config").write_text(json.dumps(KUBECONFIG))
    made = RunLauncher(
        service_account_name="run", instance_config_map="instance", dagster_home="/opt/dagster",
        load_incluster_config=False, kubeconfig_file=str(tmp_path / "config"), job_image="image",
        k8s_client_batch_api=cluster, k8s_client_core_api=cluster, resources={"limits": {"memory": "4Gi"}},
    )  # fmt: skip
    made.register_instance(instance)
    return made


def run_of(instance: dg.DagsterInstance, memory: str | None = None, parent: dg.DagsterRun | None = None) -> Any:
    tags = dict(parent.tags) if parent else {CONFIG_TAG: with_memory(None, memory)} if memory else {}
    return create_run_for_test(
        instance, status=DagsterRunStatus.STARTED, tags=tags,
        parent_run_id=parent.run_id if parent else None, root_run_id=parent.run_id if parent else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("job", "pods", "cause", "said"),
    [
        (job(), [OOM], "out_of_memory", "more than the 2Gi that its pod may use"),
        (job(), [EVICTED], "evicted", "low on resource: memory"),
        (job(), [DRAINED], "evicted", "EvictionByEvictionAPI: drain"),
        (job("PodFailurePolicy", "Pod ml-assets/x has condition DisruptionTarget"), [], "evicted", "DisruptionTarget"),
        (job("DeadlineExceeded"), [], "deadline", "longer than 60 s"),
        (job(), [], "pod_lost", "was deleted while it ran"),
        (job(), [pod(deleted=datetime(2026, 1, 5, tzinfo=UTC))], "pod_lost", "was deleted while it ran"),
        (job(), [pod()], None, ""),
    ],
)
def test_the_ways_to_lose_a_pod_are_told_apart(job, pods, cause, said):
    found = cause_of(job, pods, "2Gi")
    assert found[0] == cause
    assert said in found[1]


def test_what_was_out_of_memory_is_repeated_with_twice_as_much(launcher, cluster, instance):
    first = run_of(instance, "2Gi")
    cluster.pods = [OOM]
    health = launcher.check_run_worker_health(first)
    assert health.status is WorkerStatus.FAILED
    assert health.msg == "out_of_memory: the run needed more than the 2Gi that its pod may use"
    first = instance.get_run_by_id(first.run_id)
    assert first.tags[CAUSE] == "out_of_memory"
    assert "dagster/max_retries" not in first.tags

    second = launcher.with_room(run_of(instance, parent=first))
    assert launcher.memory_limit(second) == "4096Mi"
    assert instance.get_run_by_id(second.run_id).tags == second.tags, "the UI shows what it got"
    assert second.tags[CAUSE] == "", "it has not failed"
    third = launcher.with_room(run_of(instance, parent=second))
    assert launcher.memory_limit(third) == "4096Mi", "the second was not out of memory"


def test_at_the_ceiling_there_is_no_retry(launcher, cluster, instance):
    run = run_of(instance, "16Gi")
    cluster.pods = [OOM]
    launcher.check_run_worker_health(run)
    assert instance.get_run_by_id(run.run_id).tags["dagster/max_retries"] == "0"


def test_what_took_too_long_is_not_repeated(launcher, cluster, instance):
    run = run_of(instance)
    cluster.job = job("DeadlineExceeded")
    assert "deadline" in launcher.check_run_worker_health(run).msg
    assert instance.get_run_by_id(run.run_id).tags["dagster/max_retries"] == "0"


@pytest.mark.parametrize(("overdue", "lost"), [(None, False), (30, False), (90, True)])
def test_a_run_on_a_node_that_does_not_answer_has_failed(launcher, cluster, instance, overdue, lost):
    """Guards runs that never ended: with a policy for failed pods, a Job counts a pod when its node has said so."""
    run = run_of(instance, "2Gi")
    cluster.job = client.V1Job(spec=client.V1JobSpec(template=client.V1PodTemplateSpec()), status=client.V1JobStatus())
    cluster.job.status.active, cluster.job.status.terminating = (1, 0) if overdue is None else (None, 1)
    due = None if overdue is None else datetime.now(UTC) - timedelta(seconds=overdue)
    cluster.pods = [on_node(due)]
    health = launcher.check_run_worker_health(run)
    assert health.status is (WorkerStatus.FAILED if lost else WorkerStatus.RUNNING)
    if lost:
        assert health.msg == f"node_lost: its pod should have ended at {due:%H:%M:%S} UTC; node-7 does not answer"
        again = launcher.with_room(run_of(instance, parent=instance.get_run_by_id(run.run_id)))
        assert launcher.memory_limit(again) == "2Gi"
    assert instance.get_run_by_id(run.run_id).tags.get(CAUSE) == ("node_lost" if lost else None)


def test_what_was_evicted_is_repeated_as_it_was(launcher, cluster, instance):
    run = run_of(instance, "2Gi")
    cluster.pods = [EVICTED]
    launcher.check_run_worker_health(run)
    again = launcher.with_room(run_of(instance, parent=instance.get_run_by_id(run.run_id)))
    assert launcher.memory_limit(again) == "2Gi"
    assert "dagster/max_retries" not in again.tags


@pytest.mark.parametrize("reason", ["UNEXPECTED_TERMINATION", "START_TIMEOUT"])
def test_a_run_that_failed_before_monitoring_saw_it_has_its_cause_from_its_retry(launcher, cluster, instance, reason):
    """SIGTERM makes a run fail itself, and a run killed before its start is never asked about: both had no cause."""
    first = run_of(instance, "2Gi")
    instance.add_run_tags(first.run_id, {RUN_FAILURE_REASON_TAG: reason})
    cluster.pods = [OOM]
    retry = run_of(instance, parent=first).with_tags({**first.tags, RETRY_NUMBER_TAG: "1"})
    assert launcher.memory_limit(launcher.with_room(retry)) == "4096Mi"
    assert instance.get_run_by_id(first.run_id).tags[CAUSE] == "out_of_memory"


def test_a_failed_step_is_no_lost_pod(launcher, cluster, instance):
    """Guards the look-up at a retry: a Job that has gone says nothing of a run whose asset failed."""
    first = run_of(instance)
    instance.add_run_tags(first.run_id, {RUN_FAILURE_REASON_TAG: "STEP_FAILURE"})
    cluster.job = None
    launcher.with_room(run_of(instance, parent=first).with_tags({RETRY_NUMBER_TAG: "1"}))
    assert CAUSE not in instance.get_run_by_id(first.run_id).tags


def test_the_limit_of_memory_is_the_launchers_where_a_tag_says_nothing_of_it(launcher, instance):
    """Guards a tag that limits something else, which made monitoring fail at each look."""
    config = {"container_config": {"resources": {"limits": {"ephemeral-storage": "1Gi"}}}}
    run = create_run_for_test(instance, tags={CONFIG_TAG: json.dumps(config)})
    assert launcher.memory_limit(run) == "4Gi"


def test_a_job_that_is_gone_is_a_lost_pod(launcher, cluster, instance):
    run = run_of(instance)
    cluster.job = None
    assert launcher.check_run_worker_health(run).msg.startswith("pod_lost")


def test_a_pod_that_runs_is_left_alone(launcher, cluster, instance):
    run = run_of(instance)
    cluster.job = client.V1Job(status=client.V1JobStatus(active=1))
    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
    assert CAUSE not in instance.get_run_by_id(run.run_id).tags


def test_more_memory_leaves_the_rest_of_a_jobs_tags():
    before = pod_tags("ingest")[CONFIG_TAG]
    after = json.loads(with_memory(json.dumps(before), "4Gi"))
    resources = after["container_config"]["resources"]
    assert resources["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert after["job_spec_config"] == before["job_spec_config"]


def test_amounts_of_memory():
    assert in_bytes("512Mi") == 512 * 2**20
    assert in_bytes("1G") == 10**9
    assert (doubled("2Gi"), doubled("12Gi")) == ("4096Mi", "16384Mi")
    with pytest.raises(ValueError, match="'lots' is no amount"):
        in_bytes("lots")


def test_a_run_is_ended_by_its_job_alone(launcher, cluster, instance):
    """Guards the right to delete any pod of the namespace, which the launcher had for this."""
    cluster.pods = [pod()]
    assert launcher.terminate(run_of(instance).run_id) is True
    assert cluster.job is None
    assert launcher.terminate(run_of(instance).run_id) is False, "it was gone"
