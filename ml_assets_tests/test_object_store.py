"""The platform on S3: lake, reference files and MLflow's artifacts below one bucket, and no key in sight."""

import logging
import re
from datetime import date
from uuid import uuid4

import fsspec
import pyarrow as pa
import pytest

from ml_assets.landing.reference import read_reference
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets.local.simulation.market import MarketConfig, simulate
from ml_assets.object_store import (
    filesystem_options,
    lake_options,
    mlflow_environment,
    upload_options,
    use_object_stores,
    write_files,
)
from ml_assets.platform import Platform
from ml_assets.settings import Settings
from ml_assets.usecases.settlement_fails import usecase as settlement_fails
from ml_assets_tests.s3 import S3Server


@pytest.fixture
def settings(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of which everything lies in a fresh bucket; the environment and fsspec are as before afterwards."""
    bucket = s3.create_bucket(f"bank-{uuid4().hex[:8]}")
    made = Settings(
        lake_root=f"{bucket}/lake",
        reference_root=f"{bucket}/reference",
        artifact_root=f"{bucket}/artifacts",
        s3_endpoint=s3.endpoint,
        s3_region=s3.region,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        s3_encryption="AES256",
    )
    for name in mlflow_environment(made):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(fsspec.config.conf, "s3", {})
    use_object_stores(made)
    return made


def test_the_standard_variables_of_aws_are_settings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards pods in which boto3, Dagster's logs and this project must mean the same store."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.bank.example")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert (Settings().s3_endpoint, Settings().s3_region) == ("https://s3.bank.example", "eu-central-1")
    monkeypatch.setenv("ML_ASSETS_S3_ENDPOINT", "https://other.example")
    assert Settings().s3_endpoint == "https://other.example"


def test_without_keys_each_library_looks_for_a_role() -> None:
    plain = Settings(lake_root="s3://bank/lake", artifact_root="s3://bank/artifacts")
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"} & set(lake_options(plain))
    assert not {"key", "secret", "client_kwargs"} & set(filesystem_options(plain))
    assert not mlflow_environment(plain)
    assert lake_options(Settings()) == {}, "a lake in a folder has nothing to do with S3"


def test_encryption_is_asked_for_with_each_upload(settings: Settings) -> None:
    encrypted = settings.model_copy(update={"s3_encryption": "aws:kms", "s3_kms_key": "alias/markets"})
    assert upload_options(encrypted) == {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/markets"}
    assert lake_options(encrypted)["aws_sse_kms_key_id"] == "alias/markets"
    platform = platform_of(settings)
    platform.lake.replace("t", pa.table({"day": [date(2026, 1, 5)], "n": [1]}), "day", [date(2026, 1, 5)])
    with fsspec.open(f"{settings.reference_uri}/note.txt", "w") as file:
        file.write("note")
    store = fsspec.filesystem("s3")
    written = [path for root in (settings.lake_uri, settings.reference_uri) for path in store.find(root)]
    assert len(written) >= 3
    for path in written:
        bucket, key = path.split("/", 1)
        assert store.call_s3("head_object", Bucket=bucket, Key=key)["ServerSideEncryption"] == "AES256", path


def test_reference_files_are_written_and_read_on_s3(settings: Settings) -> None:
    simulate(MarketConfig(days=1, instructions_per_day=10)).write_reference(settings.reference_uri)
    for reference in settlement_fails.USE_CASE.references:
        rows, bad = read_reference(settings.reference_uri, "settlement_fails", reference)
        assert rows.num_rows > 0
        assert bad.num_rows == 0


def test_a_large_file_goes_up_in_parts(settings: Settings) -> None:
    content = b"0123456789abcdef" * (4 * 1024 * 1024)
    address = f"{settings.reference_uri}/large.bin"
    with fsspec.open(address, "wb") as file:
        file.write(content)
    store = fsspec.filesystem("s3")
    assert re.fullmatch(r'"\w+-\d+"', store.info(address)["ETag"]), "the tag of a file that came in parts"
    assert store.cat(address) == content


def test_mlflow_keeps_artifacts_on_s3(
    settings: Settings, postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"mlflow_{uuid4().hex[:8]}"
    postgres_server.create_databases(database)
    platform = platform_of(settings.model_copy(update={"mlflow_uri": postgres_server.url(database, "psycopg2")}))
    experiment = platform.registry._experiment("fails")
    run = platform.registry._client.create_run(experiment).info
    platform.registry.write_evidence(run.run_id, "evidence.json", '{"auc": 0.8}')
    assert run.artifact_uri.startswith(settings.artifact_uri)
    assert platform.registry.read_evidence(run.run_id, "evidence.json") == '{"auc": 0.8}'


def test_no_key_is_shown(settings: Settings, s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    """Guards keys in logs, errors and printed settings."""
    with caplog.at_level(logging.DEBUG):
        platform = platform_of(settings)
        with pytest.raises(FileNotFoundError) as missing:
            platform.lake.read("nothing")
        with pytest.raises(FileNotFoundError) as no_file:
            read_reference(settings.reference_uri, "settlement_fails", settlement_fails.USE_CASE.references[0])
    shown = f"{caplog.text} {missing.value} {no_file.value} {settings!r} {platform!r}"
    assert s3.secret_key not in shown


def platform_of(settings: Settings) -> Platform:
    """The platform of made settings, which usually come from the environment."""
    return Platform(settings)


def test_files_of_a_folder_are_whole_and_the_same_bytes_are_not_written_again(tmp_path):
    """Guards a page that is read while it is written, and a date that changes although nothing did."""
    root = str(tmp_path / "reports")
    write_files(root, {"a/page.html": b"one", "b.csv": b""})
    page = tmp_path / "reports" / "a" / "page.html"
    before = page.stat()
    write_files(root, {"a/page.html": b"one"})
    assert (page.stat().st_mtime_ns, page.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    write_files(root, {"a/page.html": b"two"})
    assert page.read_bytes() == b"two"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["b.csv", "page.html"]
