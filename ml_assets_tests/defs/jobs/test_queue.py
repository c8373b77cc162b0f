"""Runs that write one lake go one after the other, however they are started: real daemon, queue and PostgreSQL."""

import itertools
import json
import os
from collections.abc import Iterator

import pytest
from dagster_graphql.test.utils import execute_dagster_graphql, infer_repository_selector

from ml_assets.local.embedded.environment import environment_for
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets.settings import Settings
from ml_assets_tests import late_payments
from ml_assets_tests.daemon import Daemon, daemon_of

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on InvalidSubsetError { message }
  }
}
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, postgres_server: EmbeddedPostgres) -> Iterator[Daemon]:
    """Two use cases, nothing landed, and the daemon of their workspace."""
    home = tmp_path_factory.mktemp("queue")
    packages = [late_payments.make_package(home / name, name) for name in ("first_case", "second_case")]
    postgres_server.create_databases("dagster", "mlflow", "ml_assets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_ASSETS_HOME", str(home))
        patch.setenv("ML_ASSETS_POSTGRES_URL", postgres_server.url("postgres"))
        patch.setenv("ML_ASSETS_USECASE_PACKAGES", json.dumps(packages))
        patch.setenv("ML_ASSETS_MAX_CONCURRENT_RUNS", "8")
        paths = [str(home / name) for name in ("first_case", "second_case")]
        patch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]))
        for name, value in environment_for(Settings()).items():
            patch.setenv(name, value)
        with daemon_of("ml_assets.definitions") as daemon:
            yield daemon


def launch(daemon: Daemon, *assets: list[str], job: str = "__ASSET_JOB") -> str:
    """Start a run as the UI does; return its id."""
    request = daemon.workspace.create_request_context()
    selector = {**infer_repository_selector(request), "pipelineName": job}
    if assets:
        selector["assetSelection"] = [{"path": path} for path in assets]
    tags = [{"key": "dagster/partition", "value": "2026-01-06"}]
    params = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
    said = execute_dagster_graphql(request, LAUNCH, {"params": params}).data["launchRun"]
    assert said["__typename"] == "LaunchRunSuccess", said
    return said["run"]["runId"]


@pytest.mark.end_to_end
def test_runs_that_write_one_lake_go_one_after_the_other(daemon: Daemon) -> None:
    """Guards: the limit was a tag of the job, and a run of selected assets, a backfill in the UI, has no job's tags.

    The pools are new here: what is queued before the daemon has met them must wait too.
    """
    features, other = ["first_case", "features"], ["second_case", "features"]
    daemon.instance.event_log_storage.set_concurrency_slots("second_case_lake", 3)
    wanted = {
        launch(daemon, features): {"first"},
        launch(daemon, features, ["first_case", "labels"]): {"first"},
        launch(daemon, job="first_case_ingest"): {"first"},
        launch(daemon, other): {"second"},
        launch(daemon, features, other): {"first", "second"},
    }
    daemon.run_queue(seconds=400)
    for name in ("first", "second"):
        records = [daemon.instance.get_run_record_by_id(run_id) for run_id, pools in wanted.items() if name in pools]
        assert all(record.start_time and record.end_time for record in records)  # of nothing landed, a run may fail
        for before, after in itertools.pairwise(records):  # in the order in which they were asked for
            assert before.end_time <= after.start_time


@pytest.mark.end_to_end
def test_a_pool_has_todays_default_limit_or_what_a_person_has_set(daemon: Daemon) -> None:
    """Guards an upgrade: pools keep in the database the default with which they were made."""
    storage = daemon.instance.event_log_storage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(daemon.instance), "global_op_concurrency_default_limit", 1)
        storage.delete_concurrency_limit("first_case_lake")
        storage.initialize_concurrency_limit_to_default("first_case_lake")
    launch(daemon, ["first_case", "features"])
    limits = {pool.name: pool.limit for pool in storage.get_pool_limits()}  # those of other modules of this server too
    assert limits["first_case_lake"] == daemon.instance.global_op_concurrency_default_limit
    assert limits["second_case_lake"] == 3
