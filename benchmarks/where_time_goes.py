"""Where a process of Python spends its time: py-spy, a sampling profiler in an environment of its own, looks on."""

import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Stack = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A part of the work: its name, and what is in the innermost frame of it, as `function (file)`."""

    name: str
    frames: Sequence[str]


# The innermost frame that one of these names tells the part.
KNOWN_ENTITY = (
    Part("the service: read the body, under a time limit", ("_body (", "asyncio/timeouts.py")),
    Part(
        "the service: who asks, look up, put the answer together, count and log it",
        ("/ml_assets/serving/app.py", "/ml_assets/serving/s", "structlog/", "prometheus_client/"),
    ),
    Part(
        "Starlette and FastAPI: middleware, path, request and response objects",
        ("starlette/", "fastapi/", "opentelemetry/"),
    ),
    Part("uvicorn: parse the request, start its task, write the answer", ("uvicorn/protocols/", "heads.py")),
)
WHAT_IF = (
    Part("decode the requests by their contracts", ("decode_what_if (",)),
    Part("add the rows to the tables", ("_add (",)),
    Part("see how far they reach: daily tables, parts that are compared", ("_look (",)),
    Part("make decisions and features", ("_made (",)),
    Part("score, and make the answers", ("score_rows (",)),
)
REST = "event loop: wait for sockets, and read them"
# Threads that do not answer: they keep tables and models, and send to Kafka.
_BESIDE = ("_keep (", "serving/recorder.py")


def profiled(program: Path, pid: int, seconds: float, work: Callable[[], object]) -> Counter[Stack]:
    """Return how often each stack was seen, outermost frame first, of threads that answered while `work` ran.

    Raises:
        RuntimeError: py-spy may not look into the process.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "stacks"
        command = [program, "record", "--pid", str(pid), "--duration", str(round(seconds)), "--rate", "250",
                   "--format", "raw", "--nolineno", "--full-filenames", "--output", out]  # fmt: skip
        looking = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        work()
        _, said = looking.communicate(timeout=120)
        if looking.returncode:
            raise RuntimeError(f"py-spy: {said.strip()[-500:]}")
        stacks = Counter[Stack]()
        for line in out.read_text(encoding="utf-8").splitlines():
            frames, _, count = line.rpartition(" ")
            if not any(one in frames for one in _BESIDE):
                stacks[tuple(frames.split(";"))] += int(count)
        return stacks


def shares(stacks: Mapping[Stack, int], parts: Sequence[Part]) -> dict[str, float]:
    """Return the share of each part, largest first; they sum to 1."""
    found = Counter[str]()
    for stack, count in stacks.items():
        found[next((p for frame in reversed(stack) if (p := _part(frame, parts))), REST)] += count
    whole = found.total() or 1
    return {name: count / whole for name, count in found.most_common()}


def _part(frame: str, parts: Sequence[Part]) -> str:
    return next((part.name for part in parts if any(one in frame for one in part.frames)), "")
