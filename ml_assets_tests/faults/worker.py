"""The landers of the fault campaign: each a process of its own that does one job and can die at a named step.

    python -m ml_assets_tests.faults.worker     imports once, then forks a lander for each job on its standard input

Importing takes as long as a round, so the landers are forked from a process that has imported already and
has started no thread.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from ml_assets.lake import Lake
from ml_assets_tests.faults import adapter
from ml_assets_tests.faults.messages import moved

SELF_INFLICTED = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP}


class Job(msgspec.Struct, kw_only=True):
    """What a lander is to do. `name` is its own; its output goes to `<folder>/<name>.log`.

    At the `nth` time of `step` it does `act` to itself: "kill" is SIGKILL, "pause" is SIGSTOP.
    """

    name: str
    folder: str
    lake_root: str
    lake_options: dict[str, str]
    kafka: dict[str, str]
    topics: list[str]
    assignment: Literal["group", "all"] = "group"
    flush_rows: int = 200
    flush_bytes: int = 1 << 20
    flush_seconds: float = 0.2
    compact: bool = False
    step: str = ""
    nth: int = 1
    act: str = ""


class Left(msgspec.Struct):
    """What a lander writes to `<folder>/<name>.left` when it ends by itself: how, and how long SIGTERM took."""

    error: str
    seconds: float


def serve() -> None:
    """Fork a lander for each job that comes, and print its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: they leave no zombies
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin.buffer:
        job = msgspec.json.decode(line, type=Job)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _be(job)
        print(pid, flush=True)  # noqa: T201


def _be(job: Job) -> None:
    """Do the job in this process, which ends with it."""
    with (Path(job.folder) / f"{job.name}.log").open("ab") as log, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    stop = threading.Event()
    asked: list[float] = []

    def leave(*_: object) -> None:
        asked.append(time.monotonic())
        stop.set()

    signal.signal(signal.SIGTERM, leave)
    error = ""
    try:
        _work(job, stop)
    except BaseException as caught:  # whatever it is belongs into the report
        traceback.print_exc()
        error = f"{type(caught).__name__}: {caught}"
    left = Left(error, time.monotonic() - asked[0] if asked else 0.0)
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.flush()
    (Path(job.folder) / f"{job.name}.left").write_bytes(msgspec.json.encode(left))
    os._exit(0)


def _work(job: Job, stop: threading.Event) -> None:
    lake = Lake(job.lake_root, job.lake_options)
    events = [moved(topic) for topic in job.topics]
    if job.compact:
        adapter.compact(lake, events, _self_inflicted(job))
    else:
        adapter.run(lake, events, job, _self_inflicted(job), stop)


def _self_inflicted(job: Job) -> Callable[[str], None]:
    """Return what the lander calls at each named step."""
    seen: Counter[str] = Counter()

    def at_step(step: str) -> None:
        seen[step] += 1
        if step == job.step and seen[step] == job.nth:
            os.kill(os.getpid(), SELF_INFLICTED[job.act])

    return at_step


if __name__ == "__main__":
    serve()
