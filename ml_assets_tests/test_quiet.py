"""Nothing phones home: neither we nor a library."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

_SCORES = """
import contextlib, time
from pathlib import Path
import ml_assets.definitions
from ml_assets.registry import ModelRegistry
from ml_assets.learning.scorer import Scorer
import mlflow.tracking
with contextlib.suppress(Exception):
    Scorer(b"", None)
import sys
assert "onnxruntime" in sys.modules
time.sleep(3)
lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:")]
print("tried:", dict(zip(*lines))["OutNoRoutes"])
"""
_CALLS = """
import socket
from pathlib import Path
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError:
    pass
lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:")]
print("tried:", dict(zip(*lines))["OutNoRoutes"])
"""


def without_network(program: str, home: Path) -> str:
    """Run a program where every attempt to reach another machine fails and is counted by the kernel."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-n", "true"], check=False, capture_output=True).returncode:
        pytest.skip("a process cannot be cut off from the network here: it takes root and unshare")
    kept = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and name != "DO_NOT_TRACK"}
    environment = {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home), "MPLCONFIGDIR": str(home.parent)}
    done = subprocess.run(
        [unshare, "-n", sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300,
        check=True,
    )  # fmt: skip
    return done.stdout.strip().splitlines()[-1]


def test_what_scores_asks_no_other_machine_and_leaves_no_mark_at_home(tmp_path: Path) -> None:
    """Guards ONNX Runtime 1.32, which looks up a host of its maker and keeps an id in the user's cache."""
    home = tmp_path / "home"
    home.mkdir()
    assert without_network(_SCORES, home) == "tried: 0"
    assert not [str(path) for path in home.rglob("*") if path.is_file()]


def test_an_attempt_is_seen(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert without_network(_CALLS, home) == "tried: 1"
