"""A process that keeps the small blocks of memory that it gives back, and need not look for them again."""

import os
import sys

_VARIABLE = "GLIBC_TUNABLES"
# glibc keeps 7 blocks of each size up to 1,032 bytes by itself; 1,000 of each are at most 33 MiB per thread.
_KEPT = "glibc.malloc.tcache_count=1000"


def keep_small_blocks() -> None:
    """Begin this process anew with larger caches of small blocks, unless the environment says what it should have.

    DuckDB takes and gives back tens of thousands of small blocks to plan a statement, and glibc takes a third of that
    time to find them. With larger caches a what-if takes a sixth less of processor time. They can only be set before a
    process begins; it keeps its id, its files and its arguments. Where there is no glibc nothing reads the variable.
    """
    if sys.platform == "linux" and _VARIABLE not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _VARIABLE: _KEPT})  # noqa: S606
