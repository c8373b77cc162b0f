"""`make bench-scale`: what training takes as the market grows, stage by stage, into docs/benchmarks-scale.md.

The market is one of 4,000 instructions a day that is simulated, landed and ingested once; a larger one has copies of
each decision under other entities. So sizes differ in rows alone, and a large one is there in a minute. Each stage runs
in a process of its own, whose CPU seconds and largest memory are told; beside it, in another, runs what the stage
cannot be faster than on the same rows.

    python -m benchmarks.bench_scale --home <home of a demo> --times 1 --times 10
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from time import perf_counter, process_time
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from benchmarks.bench_report import DOCS, page
from ml_assets.lake import Lake, features_table, labels_table
from ml_assets.spec import UseCase
from ml_assets.usecases import discover

REPORT = DOCS / "benchmarks-scale.md"
A_DAY = 4_000
# Of the Job `retrain`, in ml_assets/defs/jobs/pods.py.
LIMIT = 4 * 1024


class Measured(NamedTuple):
    """What a stage took: rows, seconds, CPU seconds, the largest memory in MiB, of all of the process; and metrics."""

    rows: int
    seconds: float
    cpu: float
    memory: float
    said: dict[str, float]


def assemble(lake: Lake, usecase: UseCase, day: date) -> int:
    """Write the training set."""
    from ml_assets.lifecycle.training import assemble_training_set

    report = assemble_training_set(lake, usecase, day)
    return sum(part["rows"] for part in report.parts.values())


def assemble_by_hand(lake: Lake, usecase: UseCase, day: date) -> int:
    """Join and sort the same files by one query, into one file of Parquet."""
    import duckdb

    tables = {name: lake.dataset(name) for name in (features_table(usecase), labels_table(usecase))}
    columns = [f"f.{feature.name}" for feature in usecase.features]
    with duckdb.connect() as db, tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        for name, dataset in zip(("f", "l"), tables.values(), strict=True):
            db.register(name, dataset)
        ((rows,),) = db.execute(
            f"COPY (SELECT f.entity_id, f.decision_time, f.slot, f.outcome_date, f.cost_if_fail, {', '.join(columns)}, "
            "l.label FROM f JOIN l USING (entity_id, decision_time) ORDER BY f.decision_time, f.entity_id) "
            f"TO '{file.name}' (COMPRESSION zstd)"
        ).fetchall()
    return int(rows)


def train(candidate: str) -> Callable[[Lake, UseCase, date], tuple[int, dict[str, float]]]:
    """Return what reads the training set, and fits, calibrates, exports and measures a candidate."""

    def run(lake: Lake, usecase: UseCase, day: date) -> tuple[int, dict[str, float]]:
        from ml_assets.learning.fit import fit_candidate
        from ml_assets.lifecycle.training import read_training_set

        rows = read_training_set(lake, usecase, day, for_models=True)
        chosen = next(c for c in usecase.candidates if c.name == candidate)
        fitted = fit_candidate(usecase, chosen, rows)
        return rows.num_rows, {name: fitted.metrics[name] for name in ("pr_auc", "calibration_error")}

    return run


def _fit(bare: bool, lake: Lake, usecase: UseCase, day: date) -> tuple[int, float, float]:
    """Return the rows of a fit of LightGBM, and its seconds and CPU seconds, without reading."""
    from ml_assets.learning.frames import FeatureNames, model_frame
    from ml_assets.learning.pipelines import fit_pipeline
    from ml_assets.lifecycle.training import read_training_set

    candidate = next(c for c in usecase.candidates if c.name == "lightgbm")
    rows = read_training_set(lake, usecase, day, parts=["train"], for_models=True)
    if not bare:
        wall, cpu = perf_counter(), process_time()
        fit_pipeline(usecase, candidate, rows, {}, threads=0)
        return rows.num_rows, perf_counter() - wall, process_time() - cpu
    import lightgbm

    rows = rows.slice(0, usecase.split.fit_rows)
    pipeline: Any = candidate.build(usecase.features, usecase.seed)
    names = FeatureNames.of(usecase.features)
    matrix = pipeline.steps[0][1].fit(model_frame(names, rows)).transform(model_frame(names, rows))
    params = {**pipeline.steps[-1][1].get_params(), "objective": "binary", "num_threads": os.cpu_count()}
    rounds = params.pop("n_estimators")
    for name in ("n_jobs", "importance_type", "class_weight"):
        params.pop(name)
    wall, cpu = perf_counter(), process_time()
    lightgbm.train(params, lightgbm.Dataset(matrix, rows["label"].to_numpy()), num_boost_round=rounds)
    return rows.num_rows, perf_counter() - wall, process_time() - cpu


STAGES: dict[str, Callable[[Lake, UseCase, date], Any]] = {
    "training set": assemble,
    "training set, by hand": assemble_by_hand,
    "logistic": train("logistic"),
    "lightgbm": train("lightgbm"),
    "fit of lightgbm": lambda *where: _fit(False, *where),
    "fit of lightgbm, alone": lambda *where: _fit(True, *where),
}
# What a stage is held against, and what that is in words.
PEERS = {
    "training set": ("training set, by hand", "one DuckDB query by hand: join, sort, write Parquet"),
    "fit of lightgbm": ("fit of lightgbm, alone", "LightGBM alone on the ready matrix, of as many rows as are sampled"),
}


def run_stage(root: str, day: date, stage: str) -> None:
    """Run a stage in this process, and print what it took as JSON."""
    usecase = next(u for u in discover() if u.name == "settlement_fails")
    wall, cpu = perf_counter(), process_time()
    found = STAGES[stage](Lake(root), usecase, day)
    seconds, cpu = perf_counter() - wall, process_time() - cpu
    rows, said = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    if isinstance(found, tuple) and len(found) == 3:
        rows, seconds, cpu = found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(Measured(rows, seconds, cpu, peak, said)._asdict()))  # noqa: T201 - read by `measure`


def measure(root: str, day: date, stage: str) -> Measured | None:
    """Run a stage in a process of its own; None if it did not come to its end."""
    command = [sys.executable, "-m", "benchmarks.bench_scale", "--home", root, "--stage", stage, "--day", str(day)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr[-2000:])
        return None
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def grow(lake: Lake, into: Lake, usecase: UseCase, times: int) -> None:
    """Copy features and labels so many times, each under entities of its own."""
    for name, column in ((features_table(usecase), "decision_date"), (labels_table(usecase), "known_date")):
        dataset = lake.dataset(name)
        assert dataset is not None, f"{lake.root} has no {name}: run the demo there first"
        for day in sorted({file.partition for file in lake.files(name, column)}):
            rows = dataset.to_table(filter=ds.field(column) == day)
            at = rows.column_names.index("entity_id")
            named = (pc.binary_join_element_wise(rows["entity_id"], f"copy{n}", "~") for n in range(1, times))
            copies = [rows, *(rows.set_column(at, rows.schema.field("entity_id"), ids) for ids in named)]
            into.replace(name, pa.concat_tables(copies), column, [day])


def line(times: int, stage: str, of: Measured, peer: Measured | None) -> str:
    """Return a line of the table."""
    against = f"{of.cpu / peer.cpu:.2f}" if peer else ""
    quality = ", ".join(f"{value:.4f}" for value in of.said.values())
    numbers = f"{of.rows:,} | {of.seconds:.0f} | {of.cpu:.1f} | {of.memory:,.0f}"
    return f"| {times * A_DAY:,} | {stage} | {numbers} | {against} | {quality} |"


def extrapolated(stage: str, sizes: dict[int, dict[str, Measured]]) -> str:
    """Return the line of 400,000 a day: linear in rows beyond the two largest sizes."""
    small, large = (sizes[times][stage] for times in sorted(sizes)[-2:])
    rows = large.rows / max(sizes) * 400_000 / A_DAY

    def at(value: str) -> float:
        a, b = getattr(small, value), getattr(large, value)
        return float(b + (b - a) / (large.rows - small.rows) * (rows - large.rows))

    numbers = " | ".join(f"{value:,.0f}" for value in (rows, at("seconds"), at("cpu"), at("memory")))
    return f"| 400,000, extrapolated | {stage} | {numbers} | | |"


def main() -> None:
    """Measure and write the report, or run one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", required=True, help="home of a demo of 4,000 a day; of a stage, the lake")
    parser.add_argument("--times", type=int, action="append", help="how many copies; 1 and 10 if not given")
    parser.add_argument("--day", type=date.fromisoformat, default=date(2026, 3, 27))
    parser.add_argument("--only", action="append", choices=list(STAGES), help="measure this; all if not given")
    parser.add_argument("--stage", choices=list(STAGES), help="run this one here, and print what it took")
    given = parser.parse_args()
    if given.stage:
        run_stage(given.home, given.day, given.stage)
        return
    usecase = next(u for u in discover() if u.name == "settlement_fails")
    sizes: dict[int, dict[str, Measured]] = {}
    failed: list[str] = []
    for times in given.times or [1, 10]:
        with tempfile.TemporaryDirectory(prefix="ml_assets_scale_") as folder:
            grow(Lake(f"{given.home}/lake"), Lake(folder), usecase, times)
            found = {stage: measure(folder, given.day, stage) for stage in given.only or STAGES}
        failed += [f"{stage} at {times * A_DAY:,} a day" for stage, of in found.items() if of is None]
        sizes[times] = {stage: of for stage, of in found.items() if of is not None}
    peers = {peer for peer, _ in PEERS.values()}
    stages = [stage for stage in STAGES if stage not in peers]
    body = [
        "| instructions a day | stage | rows | seconds | CPU seconds | peak MiB | CPU to that of the peer | PR-AUC, "
        "calibration error |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for times, of in sizes.items():
        for stage in stages:
            if stage in of:
                body.append(line(times, stage, of[stage], of.get(PEERS[stage][0]) if stage in PEERS else None))
    if len(sizes) > 1:
        body += [extrapolated(stage, sizes) for stage in stages if all(stage in of for of in sizes.values())]
    body += ["", *(f"- {stage}: the peer is {what}" for stage, (_, what) in PEERS.items())]
    body += [f"- not measured in this run: {stage}" for stage in stages if given.only and stage not in given.only]
    body += [f"- it failed: {what}" for what in failed]
    about = [
        f"Written by `make bench-scale`. Larger markets are copies of one of {A_DAY:,} instructions a day, under other "
        "entities; landing, ingestion and scoring are not on this page.",
    ]
    facts = [
        f"settlement_fails; the Job `retrain` may use {LIMIT:,} MiB; a stage's MiB include Python and its libraries"
    ]
    REPORT.write_text(page("Training as the market grows", about, facts, body), encoding="utf-8")


if __name__ == "__main__":
    main()
