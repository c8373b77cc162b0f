"""The procedures of docs/operating.md: fenced blocks with a name, run as they stand on the page."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "operating.md"
_BLOCK = re.compile(r"^```bash (?P<name>[a-z-]+)\n(?P<script>.*?)^```$", re.MULTILINE | re.DOTALL)


class ProcedureError(AssertionError):
    """A procedure failed; the message is all that it said."""


def procedures() -> dict[str, str]:
    """Return the commands of each procedure by its name."""
    found = [(block["name"], block["script"]) for block in _BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]
    assert len(dict(found)) == len(found), "two procedures have one name"
    return dict(found)


def start(name: str, environment: Mapping[str, str], terminal: int | None = None) -> subprocess.Popen[str]:
    """Start a procedure in a session of its own, with its output in one pipe; `terminal` is where it asks people."""

    def as_from_a_terminal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored, if this process was started behind a script's `&`
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    return subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", procedures()[name]],
        env=dict(environment), text=True, start_new_session=True, preexec_fn=as_from_a_terminal,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(name: str, environment: Mapping[str, str], answers: Sequence[str] = (), seconds: float = 900) -> str:
    """Run a procedure and return what it printed; `answers` are typed when it asks.

    Raises:
        ProcedureError: one of its commands failed.
    """
    ours, theirs = os.openpty()
    threading.Thread(target=_type, args=(ours, answers), daemon=True).start()
    with start(name, environment, theirs) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            os.close(theirs)
            os.close(ours)
    if process.returncode:
        raise ProcedureError(f"{name} ended with {process.returncode}:\n{said}")
    return said


def _type(terminal: int, answers: Sequence[str]) -> None:
    """Answer each question, when it has been asked: what is typed before is thrown away."""
    with contextlib.suppress(OSError):  # the terminal has gone
        for answer in answers:
            asked = b""
            while not asked.endswith(b": "):
                asked += os.read(terminal, 1000)
            os.write(terminal, f"{answer}\n".encode())
