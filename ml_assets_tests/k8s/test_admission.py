"""What the cluster refuses of those who may create Jobs: k8s/cluster/runs.yaml, as the API server enforces it."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.k8s.image import IMAGE
from ml_assets_tests.k8s.platform import NAMESPACE, Platform
from ml_assets_tests.k8s.test_instance import load

pytestmark = pytest.mark.k8s

LAUNCHERS = ("daemon", "webserver-writable")
FOREIGN = (
    "ml-assets-migrate-database",
    "ml-assets-mlflow-server",
    "ml-assets-s3-mlflow",
    "ml-assets-s3-lander",
    "other",
)
Change = Callable[[dict[str, Any]], None]


def job(name: str = "dagster-run-1") -> dict[str, Any]:
    """A Job as the launcher makes it of k8s/base/dagster.yaml, in what matters here."""
    config = load("k8s/base/dagster.yaml")["run_launcher"]["config"]
    container = {
        "name": "dagster", "image": IMAGE, "args": ["dagster", "api", "execute_run", "{}"],
        "securityContext": config["security_context"], "resources": config["resources"],
        "envFrom": [{"secretRef": {"name": each}} for each in config["env_secrets"]],
        "env": [{"name": "DAGSTER_HOME", "value": "/opt/dagster"}],
        "volumeMounts": config["volume_mounts"],
    }  # fmt: skip
    labels = {**config["labels"], "app.kubernetes.io/name": "dagster"}
    pod = {
        "serviceAccountName": config["service_account_name"], "automountServiceAccountToken": False,
        "priorityClassName": "ml-assets-run", "restartPolicy": "Never", "containers": [container],
        "volumes": config["volumes"],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }  # fmt: skip


def create(platform: Platform, made: dict[str, Any], account: str) -> str:
    """What the server answers to an account that would create a Job; nothing is created."""
    user = f"--as=system:serviceaccount:{NAMESPACE}:ml-assets-{account}"
    return platform.kubectl("create", "--dry-run=server", user, "-f", "-", stdin=json.dumps(made), check=False)


def pod_of(made: dict[str, Any]) -> Any:
    return made["spec"]["template"]["spec"]


def adds(volume: dict[str, Any]) -> Change:
    return lambda made: pod_of(made)["volumes"].append({"name": "theirs", **volume})


def says(**fields: Any) -> Change:
    return lambda made: pod_of(made).update(fields)


def reads(secret: str) -> dict[str, Change]:
    """Each way in which a pod comes by what a secret holds."""
    key = {"name": "STOLEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}
    source = {"secretRef": {"name": secret}}

    def first(container: dict[str, Any]) -> Change:
        return lambda made: pod_of(made).update(
            initContainers=[{**copy.deepcopy(pod_of(made)["containers"][0]), "name": "first", **container}]
        )

    return {
        "envFrom": lambda made: pod_of(made)["containers"][0]["envFrom"].append(source),
        "env": lambda made: pod_of(made)["containers"][0]["env"].append(key),
        "another container": lambda made: pod_of(made)["containers"].append(
            {**copy.deepcopy(pod_of(made)["containers"][0]), "name": "second", "envFrom": [source]}
        ),
        "envFrom of one that comes first": first({"envFrom": [source]}),
        "env of one that comes first": first({"env": [key]}),
        "volume": adds({"secret": {"secretName": secret}}),
        "projected volume": adds({"projected": {"sources": [{"secret": {"name": secret}}]}}),
        "driver": adds({"csi": {"driver": "x.example", "nodePublishSecretRef": {"name": secret}}}),
        "image": says(imagePullSecrets=[{"name": secret}]),
    }


def labels(**changed: str) -> Change:
    return lambda made: made["spec"]["template"]["metadata"]["labels"].update(
        {name.replace("_", "/", 1): value for name, value in changed.items()}
    )


@pytest.mark.parametrize("account", LAUNCHERS)
def test_a_run_as_the_instance_has_it_is_accepted(platform: Platform, account: str) -> None:
    assert "created (server dry run)" in create(platform, job(), account)


@pytest.mark.parametrize("way", list(reads("")))
@pytest.mark.parametrize("account", LAUNCHERS)
def test_a_job_that_takes_a_foreign_secret_is_refused(platform: Platform, account: str, way: str) -> None:
    """Guards: whoever may create Jobs could mount each secret of the namespace."""
    for secret in FOREIGN:
        made = job()
        reads(secret)[way](made)
        said = create(platform, made, account)
        assert "ValidatingAdmissionPolicy 'ml-assets-runs'" in said, said
        assert "denied request" in said, said


OTHER = {
    **{f"the account {name}": says(serviceAccountName=f"ml-assets-{name}", serviceAccount=f"ml-assets-{name}")
       for name in ("migrate", "daemon", "webserver-writable", "mlflow")},
    "no account, which is the default one": lambda made: pod_of(made).pop("serviceAccountName"),
    "a token": says(automountServiceAccountToken=True),
    "a token if the account says so": lambda made: pod_of(made).pop("automountServiceAccountToken"),
    "a token in a volume": adds({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
    "a claim": adds({"persistentVolumeClaim": {"claimName": "data"}}),
    "the network of the daemon": labels(**{"ml-assets_network": "daemon"}),
    "the network of the lander": labels(**{"ml-assets_network": "lander"}),
    "the address of MLflow": labels(**{"app.kubernetes.io_name": "ml-assets-mlflow"}),
    "the priority of a service": says(priorityClassName="ml-assets-service"),
    "the name of another's Job": lambda made: made["metadata"].update(name="ml-assets-migrate-2"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER)
@pytest.mark.parametrize("account", LAUNCHERS)
def test_a_job_that_takes_what_is_not_a_runs_is_refused(platform: Platform, account: str, what: str) -> None:
    made = job()
    OTHER[what](made)
    said = create(platform, made, account)
    assert "ValidatingAdmissionPolicy 'ml-assets-runs'" in said, said
    assert "denied request" in said, said


@pytest.mark.parametrize("account", LAUNCHERS)
def test_a_launcher_deletes_jobs_of_runs_only(platform: Platform, account: str) -> None:
    """Guards the migration, which a launcher could have stopped. Pods it may not delete at all."""
    user = f"--as=system:serviceaccount:{NAMESPACE}:ml-assets-{account}"
    for name in ("dagster-run-admission", "other-admission"):
        made = job(name)
        made["spec"]["suspend"] = True  # it needs no pod
        platform.kubectl("delete", "job", name, "--ignore-not-found", "--wait")
        platform.kubectl("create", "-f", "-", stdin=json.dumps(made))
    try:
        said = platform.kubectl("delete", "job", "other-admission", user, check=False)
        assert "a launcher starts and deletes Jobs of runs only" in said, said
        assert "deleted" in platform.kubectl("delete", "job", "dagster-run-admission", user)
    finally:
        platform.kubectl("delete", "job", "other-admission", "--ignore-not-found")


def test_others_start_jobs_as_before(platform: Platform) -> None:
    """The policy is about launchers: whoever deploys starts the migration, with its secrets."""
    made = job("ml-assets-migrate-2")
    reads("ml-assets-migrate-database")["envFrom"](made)
    said = platform.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(made), check=False)
    assert "created (server dry run)" in said, said


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (
            {"container_config": {"env_from": [{"secret_ref": {"name": "ml-assets-mlflow-server"}}]}},
            "a run reads the secrets",
        ),
        ({"pod_spec_config": {"service_account_name": "ml-assets-daemon"}}, "a run has the service account"),
    ],
    ids=["secret", "account"],
)
def test_a_user_of_the_ui_gets_no_more_for_a_run(platform: Platform, asked: dict[str, Any], why: str) -> None:
    """The tag with which a user asks for memory can ask for anything; the run fails, and says why."""
    run = platform.launch([USE_CASE.name, "reference", "securities"], config=json.dumps(asked))
    assert platform.wait_for_run(run) == "FAILURE"
    assert "NotFound" in platform.kubectl("get", "job", f"dagster-run-{run}", check=False)
    logs = platform.graphql(
        """query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
             ... on EngineEvent { error { causes { message } } } } } } }""",
        run=run,
    )
    assert why in json.dumps(logs)
