"""The project on a real cluster: `make test-k8s`. The tests build on one another, in this order."""

import base64
import contextlib
import json
import os
import secrets as random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.defs.common import partitions
from ml_assets.defs.jobs.launcher import CAUSE, doubled, with_memory
from ml_assets.lake import features_table
from ml_assets.settings import Settings
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.k8s.asking import THREADS, Client
from ml_assets_tests.k8s.cluster import lose, second_node
from ml_assets_tests.k8s.image import IMAGE, NEXT
from ml_assets_tests.k8s.manifests import ROOT, of_kind, overlay
from ml_assets_tests.k8s.platform import FEATURES, NAMESPACE, PATIENCE, PREDICTIONS, Platform, until
from ml_assets_tests.k8s.test_manifests import FOREIGN

pytestmark = pytest.mark.k8s

DAYS, INSTRUCTIONS = 45, 500  # the smallest market of which a model passes the gate
UNREACHABLE = "node.kubernetes.io/unreachable"  # the taint of a node that does not answer
TOO_LITTLE = "200Mi"  # enough to start a run, not to make features
LONG_ENOUGH = "2026-02-06"  # features from the first day to this: the run can be stopped while it works


# As a client of MLflow: with the project's trust bundle, with the image's, without TLS, and as who may do all.
_MLFLOW = """
import base64, json, os, ssl, urllib.error, urllib.request
url, ca = os.environ["ML_ASSETS_MLFLOW_URI"], os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"]
user = f"{os.environ['ML_ASSETS_MLFLOW_USERNAME']}:{os.environ['ML_ASSETS_MLFLOW_PASSWORD']}"
headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode(), "Content-Type": "application/json"}
def ask(path, body=None, url=url, cafile=ca):
    request = urllib.request.Request(url + path, data=body, headers=headers)
    try:
        return urllib.request.urlopen(request, context=ssl.create_default_context(cafile=cafile), timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        return type(error.reason).__name__
    except OSError:
        return False
experiments = "/api/2.0/mlflow/experiments/search?max_results=1"
print(json.dumps({
    "own CA": ask(experiments),
    "the machine's CAs": ask(experiments, cafile=None),
    "plain": ask(experiments, url=url.replace("https", "http")),
    "make a user": ask("/api/2.0/mlflow/users/create", b'{"username": "mallory", "password": "mallory-mallory"}'),
}))
"""


def first_day() -> str:
    return "2026-01-05"


def newest_day() -> str:
    """The last day of the market: its decisions are open by the clock of the service, which is the newest event's."""
    return USE_CASE.calendar.add(date.fromisoformat(first_day()), DAYS - 1).isoformat()


def test_everything_runs_under_a_user_that_nobody_chose(platform: Platform) -> None:
    for pod in platform.get("pods")["items"]:
        name = pod["metadata"]["name"]
        if not name.startswith("ml-assets-") or "migrate" in name:
            continue
        assert pod["status"]["phase"] == "Running", name
        user = platform.kubectl("exec", name, "--", "id", "-u").strip()
        assert int(user) >= 1000
        if platform.uid is not None:
            assert int(user) == platform.uid, name
        refused = platform.kubectl("exec", name, "--", "touch", "/opt/ml_assets/x", check=False)
        assert "Read-only file system" in refused, name
        process = platform.kubectl("exec", name, "--", "cat", "/proc/1/status")
        assert "Umask:\t0027" in process, f"{name}: what it writes, others could read"


def test_mlflow_is_reached_by_tls_and_by_no_administrator(platform: Platform) -> None:
    """Guards passwords that went over plain HTTP, and runs that were MLflow's administrator."""
    ask = ["exec", "deployment/ml-assets-code-location", "--", "python", "-c", _MLFLOW]
    said = json.loads(platform.kubectl(*ask))
    assert said == {"own CA": 200, "the machine's CAs": "SSLCertVerificationError", "plain": False, "make a user": 403}


def test_a_pod_with_a_privilege_is_refused(platform: Platform) -> None:
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"},
        "spec": {
            "hostNetwork": True,
            "containers": [
                {
                    "name": "c", "image": IMAGE,
                    "securityContext": {"runAsUser": 0, "capabilities": {"add": ["SYS_ADMIN"]}},
                    "resources": {side: {"cpu": "10m", "memory": "16Mi"} for side in ("requests", "limits")},
                }
            ]
        },
    }  # fmt: skip
    said = platform.kubectl("apply", "-f", "-", stdin=json.dumps(pod), check=False)
    assert 'violates PodSecurity "restricted' in said
    for breach in ("host namespaces", "allowPrivilegeEscalation != false", "unrestricted capabilities", "runAsUser=0"):
        assert breach in said


@pytest.mark.parametrize("name", ["production", "openshift"])
def test_the_server_accepts_the_other_overlays(platform: Platform, name: str) -> None:
    """All but what operators bring that this cluster lacks, and the Job, which is there and cannot be changed."""
    known = [m for m in overlay(name) if m["kind"] not in {*FOREIGN, "Job"}]
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": known})
    said = platform.kubectl("apply", "--dry-run=server", "-f", "-", stdin=items, check=False)
    assert "Warning" not in said, said
    assert said.count("(server dry run)") == len(known), said


@pytest.mark.parametrize(
    ("account", "verb", "what", "allowed"),
    [
        ("daemon", "create", "jobs", True),
        ("daemon", "delete", "jobs", True),
        ("daemon", "get", "pods", True),
        ("daemon", "get", "pods/log", True),
        ("daemon", "delete", "pods", False),
        ("webserver-writable", "delete", "jobs", True),
        ("daemon", "create", "pods", False),
        ("daemon", "create", "pods/exec", False),
        ("daemon", "get", "secrets", False),
        ("daemon", "update", "deployments.apps", False),
        ("daemon", "create", "rolebindings.rbac.authorization.k8s.io", False),
        ("webserver", "create", "jobs", False),
        ("run", "create", "jobs", False),
        ("run", "get", "secrets", False),
        ("lander", "get", "pods", False),
        ("mlflow", "get", "secrets", False),
        ("code-location", "list", "jobs", False),
        ("migrate", "get", "secrets", False),
        ("mcp", "get", "secrets", False),
        ("scoring", "get", "secrets", False),
        ("scoring", "list", "pods", False),
    ],
)
def test_accounts_may_what_they_need(platform: Platform, account: str, verb: str, what: str, allowed: bool) -> None:
    user = f"--as=system:serviceaccount:{NAMESPACE}:ml-assets-{account}"
    assert (platform.kubectl("auth", "can-i", verb, what, user, check=False).split()[-1:] == ["yes"]) is allowed
    elsewhere = platform.kubectl("auth", "can-i", verb, what, user, "--namespace=default", check=False)
    assert elsewhere.split()[-1:] != ["yes"], "a Role ends at its namespace"


def test_a_materialization_from_the_ui_becomes_a_job(platform: Platform) -> None:
    simulate(platform)
    run = platform.launch([USE_CASE.name, "reference", "securities"])
    assert platform.wait_for_run(run) == "SUCCESS", platform.why(run)
    job = until("the end of its Job", lambda: (job := platform.job_of(run))["status"].get("succeeded") and job)
    pod = job["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["priorityClassName"] == "ml-assets-run"
    (container,) = pod["containers"]
    assert (
        container["image"]
        == of_kind(overlay("local"), "Deployment")["ml-assets-code-location"]["spec"]["template"]["spec"]["containers"][
            0
        ]["image"]
    ), "the code that was seen is the code that runs"
    assert container["resources"]["limits"]["memory"] == "4Gi", "a selection has the launcher's defaults"
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert platform.metadata([USE_CASE.name, "reference", "securities"])["dagster/row_count"] > 0


def test_what_the_lander_landed_is_ingested_by_the_sensor(platform: Platform) -> None:
    def ingested() -> list[dict[str, Any]]:
        runs = [run for run in platform.runs(f"{USE_CASE.name}_ingest") if tag(run, "dagster/sensor_name")]
        done = [run for run in runs if run["status"] == "SUCCESS"]
        failed = [run["runId"] for run in runs if run["status"] == "FAILURE"]
        assert not failed, platform.why(failed[0])
        return done if runs and len(done) == len(runs) and len(runs) >= 2 else []

    runs = until("the ingestion of all dates", ingested, 2 * PATIENCE)
    job = platform.job_of(runs[0]["runId"])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "2Gi", "an ingestion asks for less"
    assert job["spec"]["activeDeadlineSeconds"] == 3600
    assert platform.metadata([USE_CASE.name, "features"], first_day())["dagster/row_count"] > 0


def delete(platform: Platform, pod: str) -> None:
    platform.kubectl("delete", "pod", pod, "--grace-period=0", "--force")


def evict(platform: Platform, pod: str) -> None:
    """As `kubectl drain` does."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    platform.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


@pytest.mark.parametrize(("lose", "cause"), [(delete, "pod_lost"), (evict, "evicted")], ids=["deleted", "drained"])
def test_a_lost_pod_is_retried_and_ends_in_the_same_state(
    platform: Platform, lose: Callable[[Platform, str], None], cause: str
) -> None:
    before = platform.rows_of(features_table(USE_CASE), first_day())
    run = platform.launch(FEATURES, first_day(), LONG_ENOUGH)
    platform.wait_for_start(run)
    lose(platform, platform.pod_of(run)["metadata"]["name"])
    assert platform.wait_for_run(run) == "FAILURE"
    again = platform.wait_for_retry(run)
    assert again["status"] == "SUCCESS", platform.why(again["runId"])
    assert tag(platform.run_of(run), CAUSE) == cause
    assert platform.metadata(FEATURES, first_day())["run"] == again["runId"]
    assert platform.rows_of(features_table(USE_CASE), first_day()) == before


def test_a_run_on_a_lost_node_is_retried_on_another(platform: Platform) -> None:
    """Guards runs that never ended: nobody deletes the node, and its kubelet cannot say that the pod has ended."""
    if platform.cluster is None:
        pytest.skip("the nodes of a cluster that was given are not ours to lose")
    before = platform.rows_of(features_table(USE_CASE), first_day())
    soon = [{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}]
    with second_node(platform.cluster, IMAGE) as second:
        first = platform.cluster.node.name
        platform.kubectl("cordon", first)
        try:
            config = json.dumps({"pod_spec_config": {"tolerations": soon}})
            run = platform.launch(FEATURES, first_day(), LONG_ENOUGH, config)
            platform.wait_for_start(run)
        finally:
            platform.kubectl("uncordon", first)
        assert platform.pod_of(run)["spec"]["nodeName"] == second.name
        lose(platform.cluster, second)
        assert platform.wait_for_run(run) == "FAILURE"
        assert tag(platform.run_of(run), CAUSE) == "node_lost"
        again = platform.wait_for_retry(run)
        assert again["status"] == "SUCCESS", platform.why(again["runId"])
        assert platform.pod_of(again["runId"])["spec"]["nodeName"] == first
        assert platform.pod_of(run)["status"]["phase"] == "Running", "for the cluster it goes on"
    assert platform.rows_of(features_table(USE_CASE), first_day()) == before


def test_a_run_that_is_out_of_memory_is_retried_with_twice_as_much(platform: Platform) -> None:
    before = platform.rows_of(features_table(USE_CASE), first_day())
    run = platform.launch(FEATURES, first_day(), config=with_memory(None, TOO_LITTLE))
    assert platform.wait_for_run(run) == "FAILURE"
    (container,) = platform.pod_of(run)["status"]["containerStatuses"]
    assert container["state"]["terminated"]["reason"] == "OOMKilled", "the kernel killed it"
    again = platform.wait_for_retry(run)
    assert again["status"] == "SUCCESS", platform.why(again["runId"])
    assert tag(platform.run_of(run), CAUSE) == "out_of_memory"
    (container,) = platform.job_of(again["runId"])["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == doubled(TOO_LITTLE)
    assert platform.rows_of(features_table(USE_CASE), first_day()) == before


@contextlib.contextmanager
def at_a_time(platform: Platform, runs: int) -> Iterator[None]:
    """Let the daemon run that many at a time, all of them of a backfill if need be."""
    names = ("ML_ASSETS_MAX_CONCURRENT_RUNS", "ML_ASSETS_BACKFILL_RUNS")
    daemon = "deployment/ml-assets-daemon"
    try:
        platform.kubectl("set", "env", daemon, *(f"{name}={runs}" for name in names))
        platform.kubectl("rollout", "status", daemon, "--timeout=300s")
        yield
    finally:
        platform.kubectl("set", "env", daemon, *(f"{name}-" for name in names))
        platform.kubectl("rollout", "status", daemon, "--timeout=300s")


def test_a_backfill_is_two_jobs_at_a_time_and_survives_a_lost_pod(platform: Platform) -> None:
    """Guards a backfill that was one Job, whatever its dates, and what a lost pod leaves of it."""
    span = dg.PartitionKeyRange(first_day(), newest_day())
    days = list(partitions(USE_CASE).get_partition_keys_in_range(span))
    looked_at = [first_day(), LONG_ENOUGH, newest_day()]
    before = {day: platform.rows_of(features_table(USE_CASE), day) for day in looked_at}
    counted: list[int] = []

    def started(backfill: str) -> list[str]:
        runs = [run for run in platform.runs() if tag(run, "dagster/backfill") == backfill]
        found = [run["runId"] for run in runs if run["status"] == "STARTED"]
        counted.append(len([run for run in runs if run["status"] in {"STARTING", "STARTED"}]))
        return found

    with at_a_time(platform, 2):
        backfill = platform.launch_backfill(FEATURES, days)
        lost, _ = until("two Jobs at a time", lambda: len(found := started(backfill)) == 2 and found)
        delete(platform, platform.pod_of(lost)["metadata"]["name"])

        def ended() -> dict[str, Any] | None:
            started(backfill)
            said = platform.backfill(backfill)
            return None if said["status"] == "REQUESTED" else said

        said = until("the end of the backfill", ended, 2 * PATIENCE)
    assert said["status"] == "COMPLETED_SUCCESS", said
    everything = {"numPartitionsTargeted": len(days), "numPartitionsMaterialized": len(days), "numPartitionsFailed": 0}
    assert said["assets"] == [everything]
    assert max(counted) == 2
    runs = [run for run in platform.runs() if tag(run, "dagster/backfill") == backfill]
    assert len(runs) == -(-len(days) // Settings().backfill_dates) + 1, "one for each twenty dates, and the retry"
    assert [run["status"] for run in runs if run["parentRunId"] == lost] == ["SUCCESS"]
    assert {day: platform.rows_of(features_table(USE_CASE), day) for day in looked_at} == before


def test_a_cancelled_run_leaves_no_job(platform: Platform) -> None:
    run = platform.launch(FEATURES, first_day(), LONG_ENOUGH)
    until("its start", lambda: [r for r in platform.runs() if r["runId"] == run and r["status"] == "STARTED"])
    ended = platform.graphql(
        "mutation($run: String!) { terminateRun(runId: $run) { __typename ... on TerminateRunFailure { message } } }",
        run=run,
    )["terminateRun"]
    assert ended["__typename"] == "TerminateRunSuccess", ended
    assert platform.wait_for_run(run) == "CANCELED"
    gone = "NotFound"
    until("its Job to go", lambda: gone in platform.kubectl("get", "job", f"dagster-run-{run}", check=False), 120)
    label = f"job-name=dagster-run-{run}"
    until(
        "its pod to go, which the launcher may not delete", lambda: not platform.get("pods", "-l", label)["items"], 180
    )


def test_the_schedule_retrains_through_mlflow(platform: Platform) -> None:
    """On a day without business the schedule says why it waits, and a person starts the same job."""
    if not USE_CASE.calendar.is_business_day(datetime.now(UTC).date()):
        ticks = platform.graphql(
            """query($s: ScheduleSelector!) { scheduleOrError(scheduleSelector: $s) { ... on Schedule {
                 scheduleState { ticks(limit: 1) { status skipReason } } } } }""",
            s={
                "scheduleName": f"{USE_CASE.name}_nightly_retraining",
                "repositoryName": "__repository__",
                "repositoryLocationName": "ml_assets",
            },
        )
        (tick,) = ticks["scheduleOrError"]["scheduleState"]["ticks"]
        assert "not a business day" in tick["skipReason"]
        platform.launch_job(f"{USE_CASE.name}_retrain", newest_day())

    def retrained() -> dict[str, Any] | None:
        """The newest that has ended; those that came before enough dates had landed have failed for want of them."""
        runs = platform.runs(f"{USE_CASE.name}_retrain")
        ended = [run for run in runs if run["status"] in {"SUCCESS", "FAILURE"}]
        return next((run for run in ended if run["status"] == "SUCCESS" or enough_dates(run)), None)

    def enough_dates(run: dict[str, Any]) -> bool:
        return "TrainingSetError" not in platform.why(run["runId"])

    run = until("the retraining", retrained, 2 * PATIENCE)
    job = platform.job_of(run["runId"])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "4Gi", "training has more memory than ingestion"
    assert run["status"] == "SUCCESS", platform.why(run["runId"])
    assert float(tag(run, "ml_assets/cpu_seconds") or 0) > 1
    assert float(tag(run, "ml_assets/peak_memory_mib") or 0) > 100


def test_a_champion_scores_in_a_pod(platform: Platform) -> None:
    """A person asks, or the nightly run has if the gate said yes; another one approves; a Job scores."""
    day = newest_day()
    until("its features", lambda: platform.is_made(FEATURES, day), PATIENCE)
    asked = platform.command_line("promote", USE_CASE.name, "--override", "rehearsal on a small market", actor="ana")
    assert "awaiting approval" in asked
    assert "promoted by ben" in platform.command_line("approve", USE_CASE.name, actor="ben", login="ben")
    run = platform.launch(PREDICTIONS, day)
    assert platform.wait_for_run(run) == "SUCCESS", platform.why(run)
    scored = platform.metadata(PREDICTIONS, day)["dagster/row_count"]
    assert scored >= 1

    reader, scorer = platform.url("reader"), platform.url("scorer")
    which = f"FROM predictions WHERE use_case = '{USE_CASE.name}' AND decision_date = '{day}'"
    assert int(platform.sql(f"SELECT count(*) {which}", reader)) == scored
    month = f"predictions_{day[:7].replace('-', '_')}"
    assert platform.sql(f"SELECT DISTINCT tableoid::regclass {which}", reader) == month
    # Rows that a run of the sensor has scored before keep its name.
    (said,) = platform.sql(f"SELECT DISTINCT dagster_run_id {which}", reader).split()
    assert said == run or platform.run_of(said)["status"] == "SUCCESS"
    assert int(platform.sql("SELECT count(*) FROM work_list", reader)) > 0
    for login, refused in (
        (reader, f"DELETE {which}"),
        (reader, "SELECT predictions_make_month(now())"),
        (scorer, "DELETE FROM promotions"),
        (scorer, "DROP TABLE predictions"),
        (scorer, "CREATE TABLE mine (x int)"),
    ):
        said = platform.sql(refused, login, check=False)
        assert "permission denied" in said or "must be owner" in said, (refused, said)
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert platform.sql(owners) == "migrator"


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[Client]:
    """Who asks for what a Job has scored: those of it that are open decisions are answered."""
    entities = platform.sql(f"SELECT DISTINCT entity_id FROM predictions WHERE use_case = '{USE_CASE.name}'")
    made = Client(platform, entities.split())
    made.open()
    try:
        yield made
    finally:
        made.close()


def test_the_champion_answers_through_the_service(platform: Platform, client: Client) -> None:
    """Its pods were there before it, and found it by themselves; each reads the database and writes nothing there."""
    until("its pods to be ready", lambda: status_of_scoring(platform).get("readyReplicas", 0) >= 2, 300)
    client.start()
    record = client.stop()
    assert record["answered"] == record["asked"] >= 1, record
    assert record["scores"], "no entity that was scored has an open decision"
    assert all(0 < p < 1 for (p,) in record["scores"].values())
    champion = platform.sql(f"SELECT DISTINCT model_version FROM predictions WHERE use_case = '{USE_CASE.name}'")
    assert record["versions"] == [int(champion)]
    said = platform.sql("DELETE FROM predictions", platform.url("scoring"), check=False)
    assert "permission denied" in said
    assert "permission denied" in platform.sql(
        "UPDATE predictions SET probability = 0", platform.url("scoring"), check=False
    )


def test_an_agent_is_told_of_the_model_and_may_not_ask_beyond_its_token(platform: Platform, client: Client) -> None:
    said = client.call("model_status", f"{USE_CASE.name}:read")
    (status,) = said["result"]["structuredContent"]["use_cases"]
    champion = platform.sql(f"SELECT DISTINCT model_version FROM predictions WHERE use_case = '{USE_CASE.name}'")
    assert (status["use_case"], status["champion"]["version"]) == (USE_CASE.name, int(champion))
    refused = client.call("model_status", f"{USE_CASE.name}:score")
    assert refused["result"]["structuredContent"]["use_cases"] == []
    assert "permission denied" in platform.sql("DELETE FROM predictions", platform.url("mcp"), check=False)


def test_a_rollout_under_load_drops_no_request(platform: Platform, client: Client) -> None:
    """Guards the seconds in which a pod that ends is still asked, and connections that clients keep."""
    before = pods_of_scoring(platform)
    client.start()
    platform.kubectl("rollout", "restart", "deployment/ml-assets-scoring")
    platform.kubectl("rollout", "status", "deployment/ml-assets-scoring", "--timeout=400s")
    until("the pods of before to go", lambda: not before & pods_of_scoring(platform), 120)
    record = client.stop()
    assert not record["failed"] + record["others"], record
    assert record["answered"] == record["asked"] > 100, record
    assert all(len(said) == 1 for said in record["scores"].values()), "two pods gave two scores of one decision"


def test_a_lost_pod_costs_no_more_than_what_it_was_answering(platform: Platform, client: Client) -> None:
    """MLflow is lost with it: the pods that are there need it no more."""
    client.start()
    (mlflow,) = platform.get("pods", "-l", "app.kubernetes.io/name=ml-assets-mlflow")["items"]
    delete(platform, mlflow["metadata"]["name"])
    lost = min(pods_of_scoring(platform))
    delete(platform, lost)
    until("another pod", lambda: len(pods_of_scoring(platform) - {lost}) >= 2, 120)
    platform.kubectl("rollout", "status", "deployment/ml-assets-scoring", "--timeout=300s")
    record = client.stop()
    assert len(record["failed"]) <= THREADS, record
    assert not record["others"], record
    assert record["answered"] + len(record["failed"]) == record["asked"] > 50, record
    assert all(len(said) == 1 for said in record["scores"].values())


def status_of_scoring(platform: Platform) -> dict[str, Any]:
    """Not by `rollout status`: that gives a rollout up of which no pod was ready for ten minutes."""
    return dict(platform.get("deployment", "ml-assets-scoring")["status"])


def pods_of_scoring(platform: Platform) -> set[str]:
    found = platform.get("pods", "-l", "app.kubernetes.io/name=ml-assets-scoring")["items"]
    return {each["metadata"]["name"] for each in found}


@contextlib.contextmanager
def locked(platform: Platform, table: str) -> Iterator[None]:
    """Keep everybody from a table of the application for the length of a block."""
    hold = f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(900)"
    with ThreadPoolExecutor(1) as thread:
        held = thread.submit(platform.sql, hold, check=False)
        try:
            yield
        finally:
            who = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            platform.sql(f"SELECT pg_terminate_backend(pid) {who}")
    assert "terminating connection" in held.result()


def test_a_pod_that_fills_its_disk_is_put_out_by_the_kubelet_and_retried(platform: Platform) -> None:
    day = newest_day()
    scored = f"SELECT count(*), sum(probability) FROM predictions WHERE decision_date = '{day}'"
    before = platform.sql(scored)
    small = json.dumps({"container_config": {"resources": {"limits": {"ephemeral-storage": "20Mi"}}}})
    run = platform.launch(PREDICTIONS, day, config=small)
    until("its pod", lambda: platform.run_of(run)["status"] in {"STARTING", "STARTED"})
    with locked(platform, "predictions"):  # it cannot end before the kubelet has looked
        platform.wait_for_start(run)
        pod = platform.pod_of(run)["metadata"]["name"]
        platform.kubectl("exec", pod, "--", "sh", "-c", "head -c 40000000 /dev/zero > /tmp/full")
        assert platform.wait_for_run(run) == "FAILURE"
    again = platform.wait_for_retry(run)
    assert again["status"] == "SUCCESS", platform.why(again["runId"])
    assert platform.get("pod", pod)["status"]["reason"] == "Evicted"
    assert tag(platform.run_of(run), CAUSE) == "evicted"
    assert platform.sql(scored) == before


def test_a_release_that_cannot_migrate_is_not_rolled_out(platform: Platform) -> None:
    platform.sql("ALTER ROLE migrator PASSWORD 'another'")
    try:
        done = platform.deploy(NEXT)
    finally:
        platform.sql(f"ALTER ROLE migrator PASSWORD '{password_in(platform.url('migrator'))}'")
    assert done.returncode != 0
    assert "password authentication failed" in done.stderr, "it shows the log of the migration"
    assert "\nrollout\n" not in done.stderr
    assert platform.images() == {IMAGE}


def test_an_upgrade_migrates_and_then_rolls_out(platform: Platform, tmp_path: Path) -> None:
    """The next release has another image and another setting."""
    of_next = {"name": "ml-assets-settings", "behavior": "merge", "literals": ["ML_ASSETS_THREADS=1"]}
    kustomization = {
        "namespace": "ml-assets",
        "resources": [os.path.relpath(ROOT / "overlays/local", tmp_path.resolve())],
        "configMapGenerator": [of_next],
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(kustomization))
    done = platform.deploy(NEXT, tmp_path)
    assert done.returncode == 0, done.stderr
    platform.reach()
    platform.make("smoke")
    assert platform.images() == {NEXT}
    migrated = platform.get("job", "ml-assets-migrate")["status"]["completionTime"]
    sets = platform.get("replicasets", "-l", "app.kubernetes.io/part-of=ml-assets")["items"]
    new = [each for each in sets if each["spec"]["template"]["spec"]["containers"][0]["image"] == NEXT]
    assert new
    assert all(each["metadata"]["creationTimestamp"] >= migrated for each in new)
    run = platform.launch(FEATURES, first_day())
    assert platform.wait_for_run(run) == "SUCCESS", platform.why(run)
    (container,) = platform.job_of(run)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == NEXT, "runs use the new release too"
    assert platform.threads() == platform.threads(run) == "1"


def test_a_release_is_rolled_back(platform: Platform) -> None:
    platform.make("rollback")
    platform.reach()
    platform.make("smoke")
    assert platform.images() == {IMAGE}
    run = platform.launch(FEATURES, first_day())
    assert platform.wait_for_run(run) == "SUCCESS", platform.why(run)
    assert platform.threads() == platform.threads(run) == "2", "settings of the release before, for runs too"


def test_passwords_of_the_database_are_rotated(platform: Platform) -> None:
    """All logins at once, as docs/operating.md says: the server, the secrets, new pods."""
    logins = {
        "dagster": "dagster",
        "mlflow": "mlflow",
        "scorer": "ml_assets",
        "migrator": "ml_assets",
        "scoring": "ml_assets",
        "desk": "ml_assets",
        "mcp": "ml_assets",
    }
    old = {login: platform.url(login) for login in logins}
    items = platform.get("secrets")["items"]
    for login in logins:
        before, after = password_in(old[login]), random.token_urlsafe(18)
        platform.sql(f"ALTER ROLE {login} PASSWORD '{after}'")
        for item in items:
            for key, value in item["data"].items():
                text = base64.b64decode(value).decode().replace(before, after)
                item["data"][key] = base64.b64encode(text.encode()).decode()
    platform.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    part = "app.kubernetes.io/part-of=ml-assets"
    platform.kubectl("rollout", "restart", "deployments,statefulsets", "-l", part)
    platform.kubectl("rollout", "status", "deployments,statefulsets", "-l", part, "--timeout=600s")
    platform.reach()
    platform.make("smoke")
    for login, database in logins.items():
        assert "password authentication failed" in platform.sql("SELECT 1", old[login], check=False)
        assert platform.sql("SELECT 1", platform.url(login).replace("/ml_assets", f"/{database}")) == "1"
    day = newest_day()
    run = platform.launch(PREDICTIONS, day)  # Dagster's database, the application's and MLflow's
    assert platform.wait_for_run(run) == "SUCCESS", platform.why(run)


def password_in(url: str) -> str:
    return url.split(":")[2].partition("@")[0]


def tag(run: dict[str, Any], name: str) -> str | None:
    return next((each["value"] for each in run["tags"] if each["key"] == name), None)


def simulate(platform: Platform) -> None:
    """Produce a market to the broker of the cluster and drop its reference files on its S3 server, from a Job."""
    job = of_kind(overlay("local"), "Job")["ml-assets-migrate"]
    template = job["spec"]["template"]
    labels = {"app.kubernetes.io/name": "simulate", "ml-assets/network": "simulate"}
    container = {
        **template["spec"]["containers"][0],
        "name": "simulate",
        "args": ["ml-assets", "simulate", "--days", str(DAYS), "--instructions", str(INSTRUCTIONS)],
        "envFrom": [
            template["spec"]["containers"][0]["envFrom"][0], {"secretRef": {"name": "ml-assets-s3-run"}},
        ],
    }  # fmt: skip
    spec = {key: value for key, value in template["spec"].items() if key != "initContainers"}
    made = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "simulate", "labels": labels},
        "spec": {
            "backoffLimit": 1,
            "template": {"metadata": {"labels": labels}, "spec": {**spec, "containers": [container]}},
        },
    }  # fmt: skip
    platform.kubectl("delete", "job", "simulate", "--ignore-not-found", "--wait")
    platform.kubectl("apply", "-f", "-", stdin=json.dumps(made))
    platform.kubectl("wait", "job/simulate", "--for=condition=complete", "--timeout=300s")
