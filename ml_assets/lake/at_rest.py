"""How a process that has read a lake ends: once the threads that read for it are at rest.

Arrow's threads let go of files and file systems a moment after what was read has been returned, and these are Python's
objects. While the interpreter ends, Python ends a thread that asks for it, and C++ then ends the process: 'terminate
called without an active exception', exit code 134, though all had been done. Of forty commands two ended so.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

_LONGEST_SECONDS = 1.0
# A thread that goes to sleep may be about to wake the next one.
_LOOKS = 3
_TASKS = Path("/proc/self/task")


def wait_until_at_rest(longest: float = _LONGEST_SECONDS) -> bool:
    """Wait until no other thread of this process runs, at most some seconds; return whether that is so.

    Where the system does not tell what threads do, this waits a twentieth of a second.
    """
    if not _TASKS.is_dir():
        time.sleep(0.05)
        return True
    ends, quiet = time.monotonic() + longest, 0
    while quiet < _LOOKS:
        if time.monotonic() > ends:
            return False
        time.sleep(0.001)
        quiet = 0 if _others_run() else quiet + 1
    return True


def _others_run() -> bool:
    """Whether another thread runs, or waits for a processor or a disk."""
    mine = str(threading.get_native_id())
    for task in _TASKS.iterdir():
        if task.name == mine:
            continue
        try:
            said = (task / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        # The name of the thread, in parentheses, may hold anything; the state follows it.
        if said.rpartition(") ")[2][:1] in {"R", "D"}:
            return True
    return False


def before_the_end() -> None:
    """Wait where this process has read a lake; `atexit` calls it."""
    if "pyarrow.dataset" in sys.modules:
        wait_until_at_rest()
