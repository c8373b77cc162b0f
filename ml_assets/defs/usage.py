"""What a run uses of its machine: time, CPU and memory, and what that costs about."""

import os
import resource
import sys
import time
from dataclasses import dataclass

_MIB = 2**20
_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in ru_maxrss


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds on the clock, seconds of CPU, and the most memory that the process ever held, in MiB."""

    seconds: float
    cpu_seconds: float
    peak_memory_mib: float

    def cost(self, per_cpu_hour: float, per_gib_hour: float) -> float:
        """Return what CPU and peak memory cost for this long, in the currency of the prices."""
        return (self.cpu_seconds * per_cpu_hour + self.seconds * self.peak_memory_mib / 1024 * per_gib_hour) / 3600


class Meter:
    """Counts from when it is made. Memory is that of the whole process: a run in a pod is a process."""

    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), _cpu_seconds()

    def read(self) -> Usage:
        """Return what has been used since."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / _MIB
        return Usage(time.perf_counter() - self._clock, _cpu_seconds() - self._cpu, peak)


def _cpu_seconds() -> float:
    """Return the seconds of CPU of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
