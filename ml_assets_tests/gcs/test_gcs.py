"""The platform on GCS: reference files, reports and MLflow's artifacts in one bucket; and the server itself.

What the tests of lake, landing and logs say of a store, `make test-gcs` has them say of GCS.
"""

import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import fsspec
import pytest

from ml_assets.landing.reference import read_reference
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets.local.simulation.market import MarketConfig, simulate
from ml_assets.object_store import use_object_stores, write_files
from ml_assets.platform import Platform
from ml_assets.settings import Settings
from ml_assets.usecases.settlement_fails import usecase as settlement_fails
from ml_assets_tests.gcs.server import GcsServer

pytestmark = pytest.mark.gcs


@pytest.fixture
def settings(gcs: GcsServer, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of which everything lies in a fresh bucket; the environment and fsspec are as before afterwards."""
    made = gcs.settings(gcs_bucket)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.endpoint)
    monkeypatch.setitem(fsspec.config.conf, "gs", {})
    use_object_stores(made)
    yield made
    fsspec.filesystem("gs").clear_instance_cache()


def test_of_many_conditional_writes_one_succeeds(gcs: GcsServer, gcs_bucket: str) -> None:
    """Guards the server itself: two threads that both pass the check would make a lake double its rows."""

    def write(n: int) -> int:
        url = gcs_bucket.replace("gs://", gcs.endpoint + "/") + "/contended"
        headers = {"x-goog-if-generation-match": "0"}
        request = urllib.request.Request(url, data=b"%d" % n, method="PUT", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return int(refused.code)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(24)))
    assert sorted(set(answers)) == [200, 412]
    assert answers.count(200) == 1


def test_reference_files_are_written_and_read(settings: Settings) -> None:
    simulate(MarketConfig(days=1, instructions_per_day=10)).write_reference(settings.reference_uri)
    for reference in settlement_fails.USE_CASE.references:
        rows, bad = read_reference(settings.reference_uri, "settlement_fails", reference)
        assert rows.num_rows > 0
        assert bad.num_rows == 0


def test_a_report_is_replaced_and_the_same_bytes_are_not_written_again(settings: Settings) -> None:
    page = f"{settings.report_uri}/a/page.html"
    store = fsspec.filesystem("gs")
    write_files(settings.report_uri, {"a/page.html": b"one"})
    first = store.info(page)["generation"]
    write_files(settings.report_uri, {"a/page.html": b"one"})
    assert store.info(page)["generation"] == first
    write_files(settings.report_uri, {"a/page.html": b"two"})
    assert store.cat(page) == b"two"


def test_mlflow_keeps_artifacts_there(settings: Settings, postgres_server: EmbeddedPostgres) -> None:
    database = f"mlflow_{uuid4().hex[:8]}"
    postgres_server.create_databases(database)
    uri = postgres_server.url(database, "psycopg2")
    registry = Platform(settings.model_copy(update={"mlflow_uri": uri})).registry
    run = registry._client.create_run(registry._experiment("fails")).info
    registry.write_evidence(run.run_id, "evidence.json", '{"auc": 0.8}')
    assert run.artifact_uri.startswith(settings.artifact_uri)
    assert registry.read_evidence(run.run_id, "evidence.json") == '{"auc": 0.8}'
