"""`ml-assets ui` as people use it: all servers answer, MLflow by its own names only, and all end when told."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port: int, path: str, host: str = "") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.end_to_end
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_uis_and_the_desk_open_and_end_together(number: int, postgres_server, tmp_path: Path):
    postgres_server.create_databases("dagster", "mlflow", "ml_assets")
    dagster, mlflow, desk = free_port(), free_port(), free_port()
    environment = {
        **os.environ,
        "ML_ASSETS_HOME": str(tmp_path),
        "ML_ASSETS_POSTGRES_URL": postgres_server.url("postgres"),
        "COLUMNS": "200",
    }
    command = [
        str(Path(sys.executable).with_name("ml-assets")),
        "ui",
        "--port",
        str(dagster),
        "--mlflow-port",
        str(mlflow),
        "--desk-port",
        str(desk),
    ]
    with (tmp_path / "said").open("w") as said:
        ours = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while not (
            ask(mlflow, "/health") == 200 and ask(dagster, "/server_info") == 200 and ask(desk, "/health/ready") == 200
        ):
            assert ours.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < deadline, (tmp_path / "said").read_text()
            time.sleep(0.5)
        assert ask(mlflow, "/api/2.0/mlflow/experiments/search?max_results=1", f"localhost:{mlflow}") == 200
        assert ask(mlflow, "/api/2.0/mlflow/experiments/search?max_results=1", "evil.example") == 403
        assert ask(desk, "/", "evil.example") == 403
        children = psutil.Process(ours.pid).children(recursive=True)
        listening = {
            c.laddr.ip for child in children for c in child.net_connections("tcp")
            if c.status == psutil.CONN_LISTEN and c.laddr.port == mlflow
        }  # fmt: skip
        assert listening == {"127.0.0.1"}
        assert not any("postgresql" in " ".join(child.cmdline()) for child in children if child.is_running())
    finally:
        ours.send_signal(number)
        ours.wait(120)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    shown = re.findall(r"http://\S+", (tmp_path / "said").read_text())
    assert shown[:3] == [f"http://localhost:{port}" for port in (dagster, mlflow, desk)]


def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path: Path):
    """Guards: on some laptops another program has 5000, and the UI ended with a server's trace."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        command = [str(Path(sys.executable).with_name("ml-assets")), "ui", "--port", str(free_port()), "--mlflow-port"]
        command.append(str(port))
        done = subprocess.run(
            command, env={**os.environ, "ML_ASSETS_HOME": str(tmp_path / "home")}, capture_output=True, text=True
        )  # fmt: skip
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert "--mlflow-port" in done.stderr
    assert not (tmp_path / "home").exists()
