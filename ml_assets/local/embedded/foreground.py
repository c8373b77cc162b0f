"""Programs in the foreground: they end when this process is told to end, by whatever signal."""

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

    told: list[int] = []

    def tell(number: int, _: object) -> None:
        # Raised here, an interrupt could come after a program has begun and before it is among those that run.
        told.append(number)

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            # A session of its own: Ctrl-C in a terminal would reach it past this process, and again through it.
            running.append(subprocess.Popen(command, env=environment, start_new_session=True))  # noqa: S603 - the caller's
        while not told and all(process.poll() is None for process in running):
            time.sleep(_ASKED_EVERY)
        return _end(running, grace, told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(running: Sequence[subprocess.Popen[bytes]], grace: float, told: Sequence[int]) -> list[int]:
    """End programs, and wait for them; whoever tells us once more does not want to wait."""
    deadline, often = time.monotonic() + grace, len(told)
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    while any(process.poll() is None for process in running) and time.monotonic() < deadline and len(told) == often:
        time.sleep(_ASKED_EVERY)
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return [process.wait() for process in running]
