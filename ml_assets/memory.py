"""How much memory this process may use: what its container may, else what the machine has; and saying so beforehand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MIB = 2**20
_CGROUPS = Path("/proc/self/cgroup")
_MOUNTED = Path("/sys/fs/cgroup")


def memory_allowed(setting_mib: int = 0, *, cgroups: Path = _CGROUPS, mounted: Path = _MOUNTED) -> int:
    """Return how many bytes this process may use: as a setting says or, with 0, the least of its limits.

    Its limits are the memory of the machine, and what each of its control groups (cgroup v1 or v2) allows: the limit of
    a Kubernetes container is one of them. `cgroups` is its list of groups, `mounted` where groups can be read.
    """
    if setting_mib:
        return setting_mib * MIB
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits_of_groups(cgroups, mounted)])


def _limits_of_groups(cgroups: Path, mounted: Path) -> Iterator[int]:
    """Yield the limits of the groups of this process, and of those above them."""
    try:
        lines = cgroups.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (mounted / "memory", "memory.limit_in_bytes") if controllers else (mounted, "memory.max")
        # Within a container its own group is mounted at the top, and its path from outside may not be there.
        folder = top / group.lstrip("/")
        for at in (folder, *folder.parents):
            if not at.is_relative_to(top):
                break
            try:
                limit = (at / name).read_text(encoding="utf-8").strip()
            except OSError:
                continue
            if limit.isdigit():  # else it is `max`
                yield int(limit)
