"""The account of runs on MLflow's server, on a server with users and TLS."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from ml_assets.registry import ModelRegistry
from ml_assets.registry.account import ensure_account
from ml_assets_tests.k8s.certificates import Authority
from ml_assets_tests.registry.test_registry import log, model_folder

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]

__all__ = ["model_folder"]  # a fixture


@pytest.fixture(scope="module")
def server(postgres_server, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The address of an MLflow server as k8s/base/mlflow.yaml starts it, and the certificate of its authority."""
    folder = tmp_path_factory.mktemp("mlflow")
    postgres_server.create_databases("account_mlflow", "account_auth")
    urls = {name: postgres_server.url(name, "psycopg2") for name in ("account_mlflow", "account_auth")}
    (folder / "basic_auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = {urls['account_auth'].replace('%', '%%')}\n"
        "admin_username = admin\nadmin_password = an-administrator\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    authority = Authority(folder / "pki")
    named = authority.issue("mlflow", "localhost", hosts=["localhost", "127.0.0.1"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-this-test", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        patch.setenv("MLFLOW_AUTH_CONFIG_PATH", environment["MLFLOW_AUTH_CONFIG_PATH"])
        patch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.certificate))
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--app-name=basic-auth", "--host=127.0.0.1", f"--port={port}",
             "--workers=1", f"--backend-store-uri={urls['account_mlflow']}",
             f"--artifacts-destination={folder}/artifacts",
             f"--uvicorn-opts=--ssl-certfile {named}.crt --ssl-keyfile {named}.key"],
            env=environment, start_new_session=True, stdout=log, stderr=log,
        )  # fmt: skip
        address = f"https://localhost:{port}"
        try:
            for _ in range(240):
                try:
                    requests.get(f"{address}/health", timeout=5, verify=str(authority.certificate))
                    break
                except requests.ConnectionError:
                    assert process.poll() is None, (folder / "log").read_text()[-3000:]
                    time.sleep(0.5)
            yield address, authority.certificate
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def account(username: str, password: str) -> tuple[int, str]:
    """Make the account as the migration of a cluster does; return the exit code and what was said."""
    given = {"ML_ASSETS_MLFLOW_USERNAME": username, "ML_ASSETS_MLFLOW_PASSWORD": password}
    command = [sys.executable, "-m", "ml_assets.registry.account"]
    done = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout or done.stderr).strip().splitlines()[-1]


def test_it_works_gets_new_passwords_and_is_no_administrator(server, model_folder):
    """Guards runs that were MLflow's administrator: they could replace or delete every model."""
    address, ca = server
    assert account("runs", "the-first-password") == (0, "made the account runs")
    assert account("runs", "a-password-of-runs") == (0, "gave the account runs its new password")
    search = f"{address}/api/2.0/mlflow/experiments/search?max_results=1"
    said = requests.get(search, auth=("runs", "the-first-password"), verify=str(ca), timeout=60)
    assert said.status_code == 401, said.text

    registry = ModelRegistry(address, "", credentials=("runs", "a-password-of-runs"))
    run = log(registry, "of_the_account", model_folder)
    registry.write_evidence(run, "said.md", "kept by the server")
    assert registry.read_evidence(run, "said.md") == "kept by the server"
    version = registry.register("of_the_account", run, tags={})
    assert registry.promote("of_the_account", version.version).run_id == run
    for call, path, body in (
        (requests.post, "users/create", {"username": "mallory", "password": "a-password-of-hers"}),
        (requests.patch, "users/update-admin", {"username": "runs", "is_admin": True}),
    ):
        url, who = f"{address}/api/2.0/mlflow/{path}", ("runs", "a-password-of-runs")
        said = call(url, json=body, auth=who, verify=str(ca), timeout=60)
        assert said.status_code == 403, said.text


def test_an_administrator_is_refused(server):
    code, said = account("admin", "a-password-of-runs")
    assert code == 1
    assert "'admin' is an administrator of MLflow's server" in said


@pytest.mark.parametrize(("username", "password"), [("", "a-password"), ("runs", "")])
def test_nobody_is_no_account(username, password):
    with pytest.raises(ValueError, match="no name or no password; set ML_ASSETS_MLFLOW_USERNAME"):
        ensure_account(username, password)


def test_without_the_authority_nothing_is_sent(server, monkeypatch):
    """Guards a client that takes any certificate: passwords went over plain HTTP before."""
    address, _ = server
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{address}/health", timeout=30)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"{address}/health".replace("https", "http"), timeout=30)
