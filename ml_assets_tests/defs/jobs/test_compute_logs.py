"""What runs print, in an object store: that of `--store`, S3 if it names a folder."""

from pathlib import Path
from uuid import uuid4

import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType

from ml_assets.defs.jobs.compute_logs import StoredLogs

OUT = ComputeIOType.STDOUT


@pytest.fixture
def root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of logs in an empty bucket, which the settings of the process can reach."""
    if request.config.getoption("--store") == "gcs":
        monkeypatch.setenv("ML_ASSETS_GCS_ENDPOINT", request.getfixturevalue("gcs").endpoint)
        return f"{request.getfixturevalue('gcs_bucket')}/compute-logs"
    s3 = request.getfixturevalue("s3")
    for name in ("endpoint", "region", "access_key", "secret_key"):
        monkeypatch.setenv(f"ML_ASSETS_S3_{name.upper()}", getattr(s3, name))
    return f"{request.getfixturevalue('bucket')}/compute-logs"


@pytest.fixture
def run(root: str, tmp_path: Path) -> StoredLogs:
    """The logs as the process of a run opens them."""
    return StoredLogs(root, str(tmp_path / "run"))


@pytest.fixture
def page(root: str, tmp_path: Path) -> StoredLogs:
    """The logs as the UI opens them."""
    return StoredLogs(root, str(tmp_path / "page"))


def write(logs: StoredLogs, key: list[str], said: str) -> None:
    with logs.open_log_stream(key, OUT) as stream:
        assert stream is not None
        stream.write(said)


def test_what_a_run_printed_is_read_by_another_process(run: StoredLogs, page: StoredLogs, root: str) -> None:
    key = [uuid4().hex, "compute_logs", "step"]
    assert not page.cloud_storage_has_logs(key, OUT)
    write(run, key, "said é")
    assert page.get_log_data(key).stdout == "said é".encode()
    assert page.get_log_keys_for_log_key_prefix(key[:2], OUT) == [key]
    assert page.is_capture_complete(key), "also without a word on the other stream"
    assert page.display_path_for_type(key, OUT) == f"{root}/storage/{'/'.join(key)}.out"


def test_a_run_that_goes_on_shows_what_it_has_printed(run: StoredLogs, page: StoredLogs) -> None:
    """Guards a page that stays empty until an hour's run has ended."""
    key = [uuid4().hex, "compute_logs", "step"]
    with run.local_manager.open_log_stream(key, OUT) as stream:
        assert stream is not None
        stream.write("so far")
        stream.flush()
        run.upload_to_cloud_storage(key, OUT, partial=True)
        assert page.get_log_data(key).stdout == b"so far"
        assert not page.is_capture_complete(key)
        assert page.display_path_for_type(key, OUT) is None


def test_logs_are_deleted_by_key_and_by_prefix_and_no_others(run: StoredLogs, page: StoredLogs) -> None:
    """Guards the logs of `apple` when those below `a` go."""
    keys = [["a", "one"], ["a", "two"], ["apple", "three"]]
    for key in keys:
        write(run, key, "said")
    page.delete_logs(log_key=keys[0])
    assert [page.cloud_storage_has_logs(key, OUT) for key in keys] == [False, True, True]
    page.delete_logs(prefix=["a"])
    assert [page.cloud_storage_has_logs(key, OUT) for key in keys] == [False, False, True]
    page.delete_logs(prefix=["a"])
