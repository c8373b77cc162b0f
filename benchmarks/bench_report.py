"""What the benchmarks share: pairs of times taken in turns, and the head of a page of results."""

import os
import platform as machine
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

DOCS = Path(__file__).parents[1] / "docs"


@dataclass(frozen=True)
class Pair:
    """Seconds of ours and of what it is held against, a pair a round, taken in turns."""

    name: str
    ours: list[float]
    peer: list[float]
    what: str

    @property
    def row(self) -> str:
        """The pair as a line of a Markdown table: name, medians, median of the ratios, peer."""
        ours, peer = statistics.median(self.ours), statistics.median(self.peer)
        ratio = statistics.median(a / b for a, b in zip(self.ours, self.peer, strict=True))
        return f"| {self.name} | {ours:.2f} | {peer:.2f} | {ratio:.2f} | {self.what} |"


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Append the seconds that a block takes."""
    started = perf_counter()
    yield
    into.append(perf_counter() - started)


def page(title: str, about: Sequence[str], facts: Sequence[str], body: Sequence[str]) -> str:
    """Return a page of results: what it is, when and on what machine it was measured, then the body; all lines."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    where = f"Python {machine.python_version()}, {machine.system()}, {os.cpu_count()} cores"
    lines = [
        f"# {title}",
        "",
        *about,
        "",
        f"- {datetime.now(UTC):%Y-%m-%d}, commit {git.stdout.strip()}, {where}, load average at the end {load}",
        *(f"- {fact}" for fact in facts),
        "",
        *body,
        "",
    ]
    return "\n".join(lines)
