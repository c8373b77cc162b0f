"""The deployed project, as tests and people reach it: kubectl, the web server's GraphQL, psql, the command line."""

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_assets.defs.jobs.pods import CONFIG_TAG
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.k8s import secrets
from ml_assets_tests.k8s.cluster import Cluster
from ml_assets_tests.k8s.cluster import kubectl as run_kubectl
from ml_assets_tests.k8s.manifests import ROOT

NAMESPACE = "ml-assets"
ADMINISTRATOR = "postgresql:///ml_assets?host=/tmp&user=postgres"  # from within the pod of the server
FEATURES, PREDICTIONS = [USE_CASE.name, "features"], [USE_CASE.name, "predictions"]
PATIENCE = float(os.environ.get("ML_ASSETS_TEST_PATIENCE", "900"))


@dataclass
class Platform:
    """The deployed project; `cluster` where that was made on this machine."""

    program: str
    kubeconfig: Path
    uid: int | None
    cluster: Cluster | None = field(default=None, repr=False)
    graphql_url: str = ""
    _forward: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        return run_kubectl(self.program, self.kubeconfig, "-n", NAMESPACE, *arguments, stdin=stdin, check=check)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def graphql(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            self.graphql_url, data=body, headers={"Content-Type": "application/json", "X-CSRF-Token": "test"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            answered = json.load(answer)
        assert "errors" not in answered, answered
        return answered["data"]

    def reach(self) -> None:
        """Forward a port to the writable webserver's pod; again, when that has been replaced."""
        self.leave()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._forward = subprocess.Popen(
            [self.program, "--kubeconfig", str(self.kubeconfig), "-n", NAMESPACE, "port-forward",
             "service/ml-assets-webserver-writable", f"{port}:3000"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.graphql_url = f"http://127.0.0.1:{port}/graphql"

        def answers() -> bool:
            try:
                return bool(self.graphql("{ version }"))
            except OSError:
                return False

        until("the web server", answers, 120)

    def leave(self) -> None:
        """Forward no port any more."""
        if self._forward is not None:
            self._forward.terminate()
            self._forward.wait()

    def deploy(self, target: str = "", overlay: Path = ROOT / "overlays/local") -> "subprocess.CompletedProcess[str]":
        """Do what `make deploy` does with an overlay."""
        command = [sys.executable, str(ROOT / "deploy.py"), str(overlay), "--kubectl", self.program]
        return self.run(*command, *(["--image", target] if target else []))

    def threads(self, run: str = "") -> str:
        """The setting `threads` as the code location has it, or as a run was given it."""
        if not run:
            return self.kubectl(
                "exec", "deployment/ml-assets-code-location", "--", "printenv", "ML_ASSETS_THREADS"
            ).strip()
        (container,) = self.job_of(run)["spec"]["template"]["spec"]["containers"]
        (settings,) = [each["configMapRef"]["name"] for each in container["envFrom"] if "configMapRef" in each]
        return str(self.get("configmap", settings)["data"]["ML_ASSETS_THREADS"])

    def make(self, target: str) -> None:
        """Run a target of the Makefile, which must succeed."""
        done = self.run("make", target, cwd=ROOT.parent)
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def run(self, *command: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a program that uses kubectl."""
        path = f"{Path(self.program).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}
        return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)

    def images(self) -> set[str]:
        """The project's images that workloads run, and that of runs."""
        workloads = self.get("deployments,statefulsets", "-l", "app.kubernetes.io/part-of=ml-assets")["items"]
        containers = [c for each in workloads for c in each["spec"]["template"]["spec"]["containers"]]
        named = [e["value"] for c in containers for e in c.get("env", []) if e["name"] == "DAGSTER_CURRENT_IMAGE"]
        return {c["image"] for c in containers} | set(named)

    def command_line(self, *arguments: str, actor: str = "", login: str = "") -> str:
        """Run `ml-assets` in the pod of the code location, as a person, by their own login on PostgreSQL if given."""
        person = ["env", f"ML_ASSETS_ACTOR={actor}"] if actor else []
        if login:
            url = self.url(login).replace("@localhost/", "@postgres:5432/")
            person.append(f"ML_ASSETS_POSTGRES_URL={url}")
        return self.kubectl("exec", "deployment/ml-assets-code-location", "--", *person, "ml-assets", *arguments)

    def sql(self, statement: str, url: str = "", check: bool = True) -> str:
        """Ask PostgreSQL, as its administrator or as who a URL names, and return the answer or the refusal."""
        psql = ["sh", "-c", 'exec /usr/lib/postgresql/*/bin/psql "$0" -v ON_ERROR_STOP=1 -At -c "$1"']
        command = ["exec", "deployment/postgres", "--", *psql, url or ADMINISTRATOR, statement]
        return self.kubectl(*command, check=check).strip()

    def url(self, login: str) -> str:
        """The address of the application's database for a login of the project."""
        known = self.get("secret", "sandbox-postgres")["data"]["init.sql"]
        password = re.search(rf"ROLE {login} LOGIN PASSWORD '([^']+)'", base64.b64decode(known).decode())
        assert password is not None, f"no login {login}"
        return f"postgresql://{login}:{password[1]}@localhost/ml_assets?sslmode=require"

    def runs(self, job: str | None = None) -> list[dict[str, Any]]:
        """The runs, the newest first."""
        found = self.graphql(
            """query($job: String) { runsOrError(filter: {pipelineName: $job}, limit: 100) { ... on Runs {
                 results { runId status jobName rootRunId parentRunId tags { key value } } } } }""",
            job=job,
        )["runsOrError"]["results"]
        return list(found)

    def launch(
        self, asset: list[str], partition: str | None = None, last: str | None = None, config: str | None = None
    ) -> str:
        """Materialize an asset, a partition of it or a range of them, as the UI does; return the id of the run.

        `config` is the tag with which a user asks for another pod than the launcher's defaults.
        """
        names = {"dagster/partition": partition}
        if last:
            names = {"dagster/asset_partition_range_start": partition, "dagster/asset_partition_range_end": last}
        names[CONFIG_TAG] = config
        return self._launch({"jobName": "__ASSET_JOB", "assetSelection": [{"path": asset}]}, names)

    def launch_job(self, job: str, partition: str) -> str:
        """Launch a job for a partition, as the UI does; return the id of the run."""
        return self._launch({"jobName": job}, {"dagster/partition": partition})

    def launch_backfill(self, asset: list[str], partitions: Sequence[str]) -> str:
        """Start a backfill of an asset, as the UI does; return its id."""
        launched = self.graphql(
            """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
                 __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            params={"assetSelection": [{"path": asset}], "partitionNames": list(partitions), "tags": []},
        )["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def backfill(self, backfill_id: str) -> dict[str, Any]:
        """A backfill's status, and of each asset how many partitions were asked for, are made, and have failed."""
        found = self.graphql(
            """query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status
                 assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
                   numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed } } } } } }""",
            id=backfill_id,
        )["partitionBackfillOrError"]
        return {"status": found["status"], "assets": found["assetBackfillData"]["assetBackfillStatuses"]}

    def _launch(self, selected: dict[str, Any], names: dict[str, str | None]) -> str:
        tags = [{"key": name, "value": value} for name, value in names.items() if value]
        launched = self.graphql(
            """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
                 ... on InvalidSubsetError { message } ... on RunConfigValidationInvalid { errors { message } } } }""",
            params={
                "selector": {"repositoryLocationName": "ml_assets", "repositoryName": "__repository__", **selected},
                "executionMetadata": {"tags": tags},
                "mode": "default",
            },
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def wait_for_run(self, run_id: str) -> str:
        """Wait until a run has ended and return its status."""

        def ended() -> str | None:
            run = self.run_of(run_id)
            return run["status"] if run["status"] in {"SUCCESS", "FAILURE", "CANCELED"} else None

        return until(f"the end of run {run_id}", ended)

    def wait_for_start(self, run_id: str) -> None:
        """Wait until a run works; it must not have ended."""

        def started() -> bool:
            status = self.run_of(run_id)["status"]
            assert status not in {"SUCCESS", "FAILURE"}, "it ended too soon"
            return bool(status == "STARTED")

        until(f"the start of run {run_id}", started)

    def wait_for_retry(self, run_id: str) -> dict[str, Any]:
        """Wait until a retry of a run has ended and return that."""

        def retried() -> dict[str, Any] | None:
            tries = [each for each in self.runs() if each["parentRunId"] == run_id]
            return tries[0] if tries and tries[0]["status"] in {"SUCCESS", "FAILURE"} else None

        return dict(until(f"the retry of run {run_id}", retried))

    def pod_of(self, run_id: str) -> Any:
        (pod,) = self.get("pods", "-l", f"job-name=dagster-run-{run_id}")["items"]
        return pod

    def run_of(self, run_id: str) -> dict[str, Any]:
        (run,) = [run for run in self.runs() if run["runId"] == run_id]
        return run

    def why(self, run_id: str) -> str:
        """The end of the log of a run's pod."""
        return self.kubectl("logs", f"job/dagster-run-{run_id}", "--tail=40", check=False)

    def job_of(self, run_id: str) -> Any:
        return self.get("job", f"dagster-run-{run_id}")

    def rows_of(self, table: str, day: str) -> tuple[int, str]:
        """How many rows a date of a table of the lake has, and a digest of them."""
        said = self.kubectl("exec", "deployment/ml-assets-code-location", "--", "python", "-c", _ROWS, table, day)
        rows, digest = said.split()
        assert int(rows) > 0, f"{table} has nothing of {day}"
        return int(rows), digest

    def metadata(self, asset: list[str], partition: str | None = None) -> dict[str, Any]:
        """Metadata of the newest materialization of an asset, or of a partition of it."""
        made = self._made(asset, partition)
        assert made, f"{asset} of {partition} has not been materialized"
        entries = {e["label"]: e.get("intValue") or e.get("text") for e in made[0]["metadataEntries"]}
        return {"run": made[0]["runId"], **entries}

    def is_made(self, asset: list[str], partition: str) -> bool:
        """Whether a partition of an asset has been materialized."""
        return bool(self._made(asset, partition))

    def _made(self, asset: list[str], partition: str | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.graphql(
            """query($key: AssetKeyInput!, $partitions: [String!]) { assetNodeOrError(assetKey: $key) {
                 ... on AssetNode { assetMaterializations(partitions: $partitions, limit: 1) { runId metadataEntries {
                   label ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text } } } } } }""",
            key={"path": asset},
            partitions=[partition] if partition else None,
        )["assetNodeOrError"]["assetMaterializations"]
        return found


_ROWS = """
import hashlib, sys
import pyarrow.dataset as ds
from ml_assets.defs.resources import Platform
rows = Platform().lake.read(sys.argv[1], where=ds.field("decision_date").cast("string") == sys.argv[2])
lines = sorted(map(repr, rows.to_pylist()))
print(len(lines), hashlib.sha256(chr(10).join(lines).encode()).hexdigest())
"""


def until(what: str, found: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until a function returns something true and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(2)
    raise TimeoutError(f"waited {seconds:.0f} s for {what}")


@contextlib.contextmanager
def deployed(platform: Platform) -> Iterator[Platform]:
    """Deploy the overlay `local`, and reach its webserver for the length of a block."""
    platform.kubectl("apply", "-k", str(ROOT / "cluster"))
    if "sandbox-postgres" not in platform.kubectl("get", "secrets", "-o", "name"):  # the server keeps its passwords
        items = secrets.manifests()
        platform.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    done = platform.deploy()
    assert done.returncode == 0, f"{done.stderr[-2000:]}\n{platform.kubectl('get', 'pods', check=False)}"
    try:
        platform.reach()
        yield platform
    finally:
        platform.leave()
