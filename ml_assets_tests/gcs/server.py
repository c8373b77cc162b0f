"""A GCS server for tests: fake-gcs-server, built from source once, in memory, with the conditional writes of GCS.

    python -m ml_assets_tests.gcs.server     builds it, two minutes of processor time, and says where it is

The build is kept in `$XDG_CACHE_HOME/ml_assets`.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from k8s.image.build import cache
from ml_assets.lake import Lake
from ml_assets.object_store import lake_options
from ml_assets.settings import Settings
from ml_assets_tests.k8s.programs import jobs

_HERE = Path(__file__).parent
_START_SECONDS = 60.0


def missing_tools() -> str:
    """Return what this machine lacks to have the server, and what to do; empty if nothing."""
    if not _built().is_file() and shutil.which("go") is None:
        return "the GCS server of the tests is built by `go`, which is not on the PATH: install Go 1.26 or newer"
    return ""


def build() -> Path:
    """Return the server's program, built if it is not there yet.

    Raises:
        FileNotFoundError: Go is not installed.
        subprocess.CalledProcessError: the build failed; the compiler has said why.
    """
    program = _built()
    if not program.is_file():
        if lacking := missing_tools():
            raise FileNotFoundError(lacking)
        print("building the GCS server", file=sys.stderr, flush=True)  # noqa: T201 - it takes minutes
        partial = program.with_name(f"{program.name}.{os.getpid()}")
        subprocess.run(
            ["nice", "-n", "15", "go", "build", "-p", jobs(), "-trimpath", "-mod=readonly", "-ldflags=-s -w",
             "-o", str(partial), "./server"],
            cwd=_HERE, check=True, env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"},
        )  # fmt: skip
        partial.replace(program)
    return program


@dataclass(frozen=True, slots=True)
class GcsServer:
    """A running server; `endpoint` is its URL. It asks for no login."""

    endpoint: str

    def create_bucket(self, name: str) -> str:
        """Create a bucket and return its `gs://` address."""
        request = urllib.request.Request(
            f"{self.endpoint}/storage/v1/b?project=test", json.dumps({"name": name}).encode(),
            {"Content-Type": "application/json"}, method="POST",
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=30):
            pass
        return f"gs://{name}"

    def settings(self, bucket: str) -> Settings:
        """Return settings of which everything lies in a bucket of this server."""
        return Settings(
            lake_root=f"{bucket}/lake",
            reference_root=f"{bucket}/reference",
            artifact_root=f"{bucket}/artifacts",
            report_root=f"{bucket}/reports",
            gcs_endpoint=self.endpoint,
        )

    def lake(self, bucket: str) -> Lake:
        """Return the lake in a bucket of this server."""
        settings = self.settings(bucket)
        return Lake(settings.lake_uri, lake_options(settings))


@contextlib.contextmanager
def gcs_server() -> Iterator[GcsServer]:
    """Run a server for the length of a block.

    Raises:
        RuntimeError: it does not start.
    """
    process = subprocess.Popen([str(build())], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    hurry = threading.Timer(_START_SECONDS, process.kill)
    hurry.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        endpoint = process.stdout.readline().decode().strip()
        hurry.cancel()
        if not endpoint:
            raise RuntimeError("the GCS server did not start; what it said is above")
        yield GcsServer(endpoint)
    finally:
        hurry.cancel()
        process.kill()
        process.communicate()


def _built() -> Path:
    digest = hashlib.sha256()
    for path in (_HERE / "go.mod", _HERE / "go.sum", _HERE / "server" / "main.go"):
        digest.update(path.read_bytes())
    return cache() / f"gcs-server-{digest.hexdigest()[:12]}"


if __name__ == "__main__":
    print(build())  # noqa: T201 - where it is
