"""Part of `make bench-scale`: a backfill of features by one process and by two, into docs/benchmarks-backfill.md.

Each process is what a run of a backfill is, without Dagster and without the start of its pod: it takes the next dates
that nobody has taken, and has one thread, as two pods on two cores have. Each measurement begins with the curated
events alone, so parts of days are made too, by whoever needs them first.

    python -m benchmarks.bench_backfill --home <home of a demo>
"""

import argparse
import multiprocessing
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import pandas as pd

from benchmarks.bench_report import DOCS, page
from ml_assets.lake import Lake, curated_table, features_table
from ml_assets.lifecycle.features import compute_features
from ml_assets.spec import UseCase
from ml_assets.usecases import discover

REPORT = DOCS / "benchmarks-backfill.md"
DATES = 5  # in one run, so that a demo's sixty days are a dozen runs
PROCESSES = (1, 2)


class Made(NamedTuple):
    """What one run made: CPU seconds, and the days of which it made parts."""

    cpu: float
    days: tuple[date, ...]


def usecase_named(name: str) -> UseCase:
    """Return a use case of the project."""
    return next(usecase for usecase in discover() if usecase.name == name)


def make_dates(root: str, name: str, dates: Sequence[date]) -> Made:
    """Make the features of some dates with one thread, in this process."""
    cpu = process_time()
    report = compute_features(Lake(root), usecase_named(name), dates, threads=1)
    return Made(process_time() - cpu, report.daily_made)


def warm_up(name: str) -> None:
    """Import what a run needs: how long that takes is not measured."""
    usecase_named(name)


def measure(source: Path, usecase: UseCase, processes: int) -> tuple[str, pd.DataFrame]:
    """Return the line of the table for so many processes, and the rows that they made, in order."""
    with tempfile.TemporaryDirectory(prefix="ml_assets_backfill_") as folder:
        for kind in ("curated", "reference"):
            shutil.copytree(source / kind, Path(folder) / kind)
        lake = Lake(folder)
        event = curated_table(usecase, usecase.events[0])
        days = sorted({file.partition for file in lake.files(event, "business_date")})
        runs = [days[at : at + DATES] for at in range(0, len(days), DATES)]
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(warm_up, [usecase.name] * processes))
            started = perf_counter()
            made = list(pool.map(make_dates, [folder] * len(runs), [usecase.name] * len(runs), runs))
            seconds = perf_counter() - started
        rows = lake.read(features_table(usecase))
        parts = [day for of in made for day in of.days]
        again = f"{len(parts) - len(set(parts))} of {len(set(parts))}"
        line = f"| {processes} | {len(days)} | {len(runs)} | {rows.num_rows:,} | {seconds:.1f} | "
        return f"{line}{sum(of.cpu for of in made):.1f} | {again} |", rows.to_pandas().sort_values(
            ["decision_time", "entity_id"], ignore_index=True
        )


def main() -> None:
    """Measure and write the report.

    Raises:
        AssertionError: two processes made other rows than one.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", required=True, type=Path, help="home of a demo")
    given = parser.parse_args()
    usecase = usecase_named("settlement_fails")
    lines, found = zip(*(measure(given.home / "lake", usecase, each) for each in PROCESSES), strict=True)
    for rows in found[1:]:
        pd.testing.assert_frame_equal(rows, found[0], check_exact=True)
    about = [
        f"Written by `make bench-scale`. Features of all dates, from curated events alone, in runs of {DATES} dates "
        "that one or several processes take one after the other; all make the same rows, to the last bit."
    ]
    facts = ["settlement_fails; each process has one thread; the start of Dagster and of pods is not in it"]
    body = [
        "| processes | dates | runs | rows | seconds | CPU seconds | days whose parts were made twice |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *lines,
    ]
    REPORT.write_text(page("A backfill by one process and by two", about, facts, body), encoding="utf-8")


if __name__ == "__main__":
    main()
