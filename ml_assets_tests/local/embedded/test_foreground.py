"""A program in the foreground, and the ways in which people and scripts end it."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

# Runs a program with `run_until_told`, as `ml-assets ui` does, and says with what it ended.
_OURS = """
import os, sys
from ml_assets.local.embedded.foreground import run_until_told
print("ended with", *run_until_told([[sys.executable, "-c", sys.argv[1]]], os.environ, grace=float(sys.argv[2])))
"""
# Has a child, as Dagster has, and ends it when told; says how often it was told.
_PARENT = """
import signal, subprocess, sys, time
times = []
signal.signal(signal.SIGINT, lambda *_: times.append(1))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
while not times:
    time.sleep(0.05)
time.sleep(0.5)
child.kill()
print("told", len(times), flush=True)
"""
_DEAF = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""
# A program that runs for half a second before `Popen` returns.
_SLOW_TO_START = """
import subprocess, time
class Slow(subprocess.Popen):
    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        print("begun", self.pid, flush=True)
        time.sleep(0.5)
subprocess.Popen = Slow
"""


def start(program: str, grace: float, *, background: bool = False) -> tuple["subprocess.Popen[str]", int]:
    """Start it in a session of its own; return it and the number of its program's child."""
    ours = subprocess.Popen(
        [sys.executable, "-c", _OURS, program, str(grace)],
        stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=Path(__file__).parents[3],
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if background else None,
    )  # fmt: skip
    assert ours.stdout is not None
    return ours, int(ours.stdout.readline().split()[1])


def ended(pid: int) -> bool:
    """Whether a process runs no more; nobody may have asked yet what became of it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("background", [False, True], ids=["terminal", "script's &"])
def test_the_program_is_told_once_and_ends_its_children(number, background):
    """Guards: SIGTERM, and SIGINT after a script's `&`, ended nothing: web server and daemon went on."""
    ours, child = start(_PARENT, 30, background=background)
    ours.send_signal(number)
    said, _ = ours.communicate(timeout=60)
    assert said.split("\n")[:2] == ["told 1", "ended with 0"]
    assert ended(child)


def test_what_does_not_listen_is_killed_with_its_children():
    ours, child = start(_DEAF, 0.2)
    ours.send_signal(signal.SIGINT)
    said, _ = ours.communicate(timeout=60)
    assert said == f"ended with {-signal.SIGKILL}\n"
    assert ended(child)


def test_a_program_that_is_just_starting_is_ended_too():
    """Guards: told between the start of a program and its being noted, we ended and it went on."""
    ours = subprocess.Popen(
        [sys.executable, "-c", f"{_SLOW_TO_START}{_OURS}", "import time; time.sleep(600)", "10"],
        stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert ours.stdout is not None
    program = int(ours.stdout.readline().split()[1])
    ours.send_signal(signal.SIGTERM)
    said, _ = ours.communicate(timeout=60)
    assert said.startswith("ended with")
    assert ended(program)
