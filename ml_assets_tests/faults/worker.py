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

import msgspec

from ml_assets.lake import Lake
from ml_assets_tests.faults import adapter
from ml_assets_tests.faults.job import Job, Left
from ml_assets_tests.faults.messages import moved

SELF_INFLICTED = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP}


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
