"""`make audit` on a source of advisories that answers as OSV does: it passes only when every package was looked up."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
ADVISORY = {
    "id": "PYSEC-2026-1",
    "summary": "An advisory of the test.",
    "affected": [{"package": {"name": "alembic", "ecosystem": "PyPI"}, "ranges": []}],
}


@contextmanager
def advisories(about: dict[str, object]) -> Iterator[tuple[str, set[str]]]:
    """Yield the address of a source that has an answer for a few packages, and the packages that it is asked for.

    An answer is the body, or the number of an error.
    """
    asked: set[str] = set()

    class Source(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            asked.add(name)
            answer = about.get(name, {})
            self.send_response(answer if isinstance(answer, int) else 200)
            self.end_headers()
            self.wfile.write(b"" if isinstance(answer, int) else json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Source)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def audit(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--old-file=.venv/.installed", "audit"],
        cwd=ROOT,
        env={**os.environ, "PIP_AUDIT_VULNERABILITY_SERVICE": "osv", "PIP_AUDIT_OSV_URL": source},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def test_it_passes_when_every_package_was_looked_up_and_nothing_is_known() -> None:
    with advisories({}) as (source, asked):
        made = audit(source)
    assert made.returncode == 0, made.stdout
    lines = (ROOT / "k8s" / "image" / "image.lock").read_text().splitlines()
    locked = [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalnum()]
    assert asked == {each.name for each in locked if each.marker is None or each.marker.evaluate()}


def test_it_names_what_is_vulnerable() -> None:
    with advisories({"alembic": {"vulns": [ADVISORY]}}) as (source, _):
        made = audit(source)
    assert made.returncode != 0
    assert "PYSEC-2026-1" in made.stdout


def test_it_fails_when_a_package_cannot_be_looked_up() -> None:
    """Guards an audit that says "no known vulnerabilities" of what it has skipped."""
    with advisories({"alembic": 503}) as (source, _):
        made = audit(source)
    assert made.returncode != 0
    assert "No known vulnerabilities" not in made.stdout
