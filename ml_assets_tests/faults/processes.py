"""The harness's side of the landers: start, stop, kill, pause and watch processes that are no children of its own."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ml_assets_tests.faults.job import Job, Left


class LanderProcess:
    """A lander that was started. Signals go through its pidfd: no other process can be hit."""

    def __init__(self, job: Job, pid: int) -> None:
        self.job = job
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._send(signal.SIGKILL)
        assert self.wait(10), f"{self.job.name} outlives SIGKILL"

    def pause(self) -> None:
        """SIGSTOP."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._send(signal.SIGCONT)

    def ask_to_leave(self) -> None:
        """SIGTERM."""
        self._send(signal.SIGTERM)

    @property
    def alive(self) -> bool:
        """Whether the process is there, running or paused."""
        return not select.select([self._handle], [], [], 0)[0]

    @property
    def paused(self) -> bool:
        """Whether it has been stopped by SIGSTOP."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False

    def wait(self, seconds: float) -> bool:
        """Wait for its end and return whether it came."""
        return bool(select.select([self._handle], [], [], seconds)[0])

    def left(self) -> Left | None:
        """Return how it ended by itself; None if it was killed or runs."""
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.decode((Path(self.job.folder) / f"{self.job.name}.left").read_bytes(), type=Left)
        return None

    def log(self) -> str:
        """Return the end of what it printed."""
        path = Path(self.job.folder) / f"{self.job.name}.log"
        return path.read_text(errors="replace")[-2500:] if path.exists() else ""

    def show_stack(self) -> None:
        """Let it print where its threads are into its log."""
        self._send(signal.SIGUSR1)
        time.sleep(0.3)

    def close(self) -> None:
        """Kill it if it is still there, and let go of the handle."""
        if self.alive:
            self.kill()
        os.close(self._handle)

    def _send(self, what: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, what)


class Landers:
    """Starts landers, from a process that has everything imported."""

    def __init__(self, launcher: subprocess.Popen[bytes]) -> None:
        self._launcher = launcher

    def start(self, job: Job) -> LanderProcess:
        """Start a lander."""
        assert self._launcher.stdin is not None
        self._launcher.stdin.write(msgspec.json.encode(job) + b"\n")
        self._launcher.stdin.flush()
        return LanderProcess(job, int(self._answer()))

    def wait_until_ready(self) -> None:
        """Wait for the imports."""
        assert self._answer() == b"ready"

    def _answer(self) -> bytes:
        assert self._launcher.stdout is not None
        line = self._launcher.stdout.readline().strip()
        assert line, "the process that starts landers has ended; its error is above"
        return line


@contextlib.contextmanager
def landers() -> Iterator[Landers]:
    """Be able to start landers for the length of a block."""
    command = [sys.executable, "-m", "ml_assets_tests.faults.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as launcher:
        starter = Landers(launcher)
        starter.wait_until_ready()
        yield starter
        assert launcher.stdin is not None
        launcher.stdin.close()
