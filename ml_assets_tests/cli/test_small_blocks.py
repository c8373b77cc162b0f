"""A process begins anew with larger caches of small blocks: once, as itself, and not against a person's will."""

import os
import subprocess
import sys

PROGRAM = (
    "import os, sys; from ml_assets.cli.small_blocks import keep_small_blocks; keep_small_blocks(); "
    "print(os.environ['GLIBC_TUNABLES'], os.getpid(), *sys.argv[1:])"
)


def said(**variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | variables
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", "--port"], env=environment, stdout=subprocess.PIPE, text=True
    )
    out, _ = running.communicate()
    assert running.returncode == 0
    tunables, pid, *arguments = out.split()
    assert int(pid) == running.pid
    assert arguments == ["serve", "--port"]
    return tunables.split(":")


def test_it_begins_anew_once_and_stays_itself() -> None:
    assert said() == ["glibc.malloc.tcache_count=1000"]


def test_what_a_person_has_set_stays() -> None:
    assert said(GLIBC_TUNABLES="glibc.malloc.arena_max=2") == ["glibc.malloc.arena_max=2"]
