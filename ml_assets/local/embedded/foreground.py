"""Programs in the foreground: they end when this process is told to end, by whatever signal."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

# How often to check whether a program has ended.
_ASKED_EVERY = 0.2


def run_until_told(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str], *, grace: float = 60
) -> list[int]:
    """Run programs until one of them ends, or until this process gets SIGINT or SIGTERM; return their exit codes.

    The programs that still run then get SIGINT, once, and `grace` seconds; after them their sessions are killed. SIGINT
    counts also where it is ignored, as it is for what a script starts with `&`.
    """

    def told(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    running: list[subprocess.Popen[bytes]] = []
    try:
        with contextlib.suppress(KeyboardInterrupt):
            for command in commands:
                # A session of its own: Ctrl-C in a terminal would reach it past this process, and again through it.
                running.append(subprocess.Popen(command, env=environment, start_new_session=True))  # noqa: S603 - the caller's
            while all(process.poll() is None for process in running):
                time.sleep(_ASKED_EVERY)
        return _end(running, grace)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(running: Sequence[subprocess.Popen[bytes]], grace: float) -> list[int]:
    deadline = time.monotonic() + grace
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    try:
        for process in running:
            process.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return [process.wait() for process in running]
