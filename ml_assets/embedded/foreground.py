"""A program in the foreground: it ends when this process is told to end, however it is told."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence


def run_until_told(command: Sequence[str], environment: Mapping[str, str], *, grace: float = 60) -> int:
    """Run a program until it ends, or until this process gets SIGINT or SIGTERM, and return its exit code.

    The program then gets SIGINT, once, and `grace` seconds; after them its session is killed. SIGINT counts also where
    it is ignored, as it is for what a script starts with `&`.
    """

    def told(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # A session of its own: Ctrl-C in a terminal would reach it past this process, and then again through it.
        with subprocess.Popen(command, env=environment, start_new_session=True) as process:  # noqa: S603 - the caller's
            try:
                return process.wait()
            except KeyboardInterrupt:
                return _end(process, grace)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen[bytes], grace: float) -> int:
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(grace)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()
