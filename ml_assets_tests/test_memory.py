"""What a process may use: the setting, else the least of what machine and control groups allow."""

import os
from pathlib import Path

import pytest

from ml_assets.memory import MIB, memory_allowed

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def allowed(folder: Path, cgroups: str, limits: dict[str, str]) -> int:
    """What is allowed to a process of these groups, whose files are below a folder."""
    (folder / "groups").write_text(cgroups)
    for name, text in limits.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return memory_allowed(cgroups=folder / "groups", mounted=folder)


@pytest.mark.parametrize(
    ("cgroups", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": str(300 * MIB)}, 300 * MIB),
        ("0::/\n", {"memory.max": "max"}, MACHINE),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": str(200 * MIB)}, 200 * MIB),
        ("0::/of/the/node\n", {"memory.max": str(100 * MIB)}, 100 * MIB),
        ("4:cpu,memory:/pod\n0::/\n", {"memory/pod/memory.limit_in_bytes": str(50 * MIB)}, 50 * MIB),
        ("4:memory:/pod\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
        ("7:blkio:/pod\n", {"memory/pod/memory.limit_in_bytes": "1"}, MACHINE),
    ],
)
def test_the_least_limit_counts(tmp_path, cgroups, limits, expected):
    """Guards a pod of 2 GiB on a node of 256, whose process thinks it has the node."""
    assert allowed(tmp_path, cgroups, limits) == expected


def test_a_setting_counts_before_all(tmp_path):
    assert memory_allowed(7) == 7 * MIB
    assert memory_allowed(cgroups=tmp_path / "none") == MACHINE
