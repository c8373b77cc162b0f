"""`make bench-scale`: training and scoring as the market grows, stage by stage, into docs/benchmarks-scale.md.

Features and labels are those of a simulated market of 4,000 instructions a day, made by the SQL of settlement_fails; a
larger market has copies of each decision under other entities. So sizes differ in rows alone, and a large one is there
in a minute. Each stage runs in a process of its own, which is ended at a time limit, and whose CPU seconds and largest
memory are told; beside it, in another, runs what the stage cannot be faster than on the same rows.

    python -m benchmarks.bench_scale --times 1 --times 4
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import msgspec

from benchmarks.bench_report import DOCS, page
from ml_assets.duck import Room, use_duckdb
from ml_assets.lake import Lake, features_table, labels_table, predictions_table
from ml_assets.settings import Settings
from ml_assets.spec import UseCase
from ml_assets.usecases import discover

REPORT = DOCS / "benchmarks-scale.md"
A_DAY = 4_000
TIMES = (1, 4, 10)
# Sizes that are worked out from the two largest ones where they are not measured.
WANTED = (40_000, 400_000)
DAY = date(2026, 3, 27)
# Dates of a year, on each of which as many are asked as a market has instructions.
ASKED_DATES = 250
# Of the Jobs, in ml_assets/defs/jobs/pods.py.
TRAINING_MIB, SCORING_MIB = 4 * 1024, 2 * 1024


class Measured(NamedTuple):
    """What a stage took: rows, seconds, CPU seconds, the largest memory in MiB, of all of the process; and figures."""

    rows: int
    seconds: float
    cpu: float
    memory: float
    said: dict[str, float]


@dataclass
class Place:
    """Where a stage works, and what of its process is measured: all, unless it says `measured` of a part."""

    folder: Path
    usecase: UseCase
    times: int
    said: dict[str, float] = field(default_factory=dict)
    took: tuple[float, float] | None = None

    @property
    def lake(self) -> Lake:
        """The lake of this size."""
        return Lake(str(self.folder / "lake"))

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Take the time of this block alone."""
        wall, cpu = perf_counter(), process_time()
        yield
        self.took = perf_counter() - wall, process_time() - cpu

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Take the CPU seconds of this block among the figures."""
        began = process_time()
        yield
        self.said[name] = process_time() - began


def make_market(at: Place) -> int:
    """Simulate a market of 4,000 a day, and write its features and labels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from benchmarks.drift_days import days_of
    from ml_assets.local.simulation.market import MarketConfig

    days = days_of(MarketConfig(instructions_per_day=A_DAY))
    known = {day: at.usecase.calendar.next(day) for day in days.days}
    for name, rows, of, column in (
        (features_table(at.usecase), days.features, "decision_date", ""),
        (labels_table(at.usecase), days.labels, "outcome_date", "known_date"),
    ):
        for day in rows[of].unique().to_pylist():
            part, partition = rows.filter(pc.equal(rows[of], pa.scalar(day))), day
            if column:
                partition = known[day]
                dates = pa.repeat(pa.scalar(partition, pa.date32()), part.num_rows)
                part = part.append_column(pa.field(column, pa.date32(), nullable=False), dates)
            at.lake.replace(name, part, column or of, [partition])
    return days.features.num_rows


def grow(at: Place) -> int:
    """Copy features and labels so many times, each under entities of its own."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    market, written = Lake(str(at.folder.parent / "market" / "lake")), 0
    for name, column in ((features_table(at.usecase), "decision_date"), (labels_table(at.usecase), "known_date")):
        for day in sorted({file.partition for file in market.files(name, column)}):
            rows = market.read(name, where=ds.field(column) == day)
            place = rows.column_names.index("entity_id")
            named = (pc.binary_join_element_wise(rows["entity_id"], f"copy{n}", "~") for n in range(1, at.times))
            copies = [rows, *(rows.set_column(place, rows.schema.field("entity_id"), ids) for ids in named)]
            at.lake.replace(name, pa.concat_tables(copies), column, [day])
            written += rows.num_rows * at.times
    return written


def import_all(at: Place) -> int:
    """Import what the process of a Job has imported before any row is read."""
    import mlflow  # noqa: F401
    import sklearn.linear_model  # noqa: F401

    import ml_assets.definitions  # noqa: F401

    return 0


def assemble(at: Place) -> int:
    """Write the training set."""
    from ml_assets.lifecycle.training import assemble_training_set

    return sum(part["rows"] for part in assemble_training_set(at.lake, at.usecase, DAY).parts.values())


def assemble_by_hand(at: Place) -> int:
    """Join and sort the same files by one query, into one file of Parquet."""
    import duckdb

    columns = [f"f.{feature.name}" for feature in at.usecase.features if feature.name != "slot"]
    with duckdb.connect() as db, tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        for name, table in (("f", features_table(at.usecase)), ("l", labels_table(at.usecase))):
            db.register(name, at.lake.dataset(table))
        ((rows,),) = db.execute(
            f"COPY (SELECT f.entity_id, f.decision_time, f.slot, f.outcome_date, f.cost_if_fail, {', '.join(columns)}, "
            "l.label FROM f JOIN l USING (entity_id, decision_time) ORDER BY f.decision_time, f.entity_id) "
            f"TO '{file.name}' (COMPRESSION zstd)"
        ).fetchall()
    return int(rows)


def train(candidate: str) -> Callable[[Place], int]:
    """Return what reads the training set, and fits, calibrates, exports and measures a candidate, and saves it."""

    def run(at: Place) -> int:
        from ml_assets.learning.fit import fit_candidate
        from ml_assets.lifecycle.training import read_training_set

        with at.part("CPU to read"):
            rows = read_training_set(at.lake, at.usecase, DAY, for_models=True)
        chosen = next(c for c in at.usecase.candidates if c.name == candidate)
        fitted = fit_candidate(at.usecase, chosen, rows, threads=0)
        at.said |= {name: fitted.metrics[name] for name in ("pr_auc", "calibration_error")}
        fitted.scorer.save(_model(at, candidate))
        (_model(at, candidate) / "evidence.json").write_bytes(msgspec.json.encode(fitted.evidence))
        return rows.num_rows

    return run


def _model(at: Place, candidate: str) -> Path:
    return at.folder / "models" / candidate


def evaluate(at: Place) -> int:
    """Compare the saved candidates on the test window, with all intervals: the evidence that the gate judges."""
    from ml_assets.learning.compare import compare
    from ml_assets.learning.evidence import build_evidence
    from ml_assets.learning.gate import ModelEvidence
    from ml_assets.learning.intervals import metric_intervals
    from ml_assets.learning.scorer import Scorer
    from ml_assets.lifecycle.training import read_training_set

    usecase = at.usecase
    test = read_training_set(at.lake, usecase, DAY, parts=["test"], for_models=True)
    names = [c.name for c in usecase.candidates]
    scorers = {name: Scorer.from_files(_model(at, name), threads=0) for name in names}
    saved = {name: (_model(at, name) / "evidence.json").read_bytes() for name in names}
    models = {name: msgspec.json.decode(text, type=ModelEvidence) for name, text in saved.items()}
    with at.part("CPU to score and compare"):
        found = compare(test, scorers, capacity=usecase.capacity, action=usecase.action, metric=usecase.gate.metric)
    with at.part("CPU of the evidence"):
        build_evidence(
            usecase.gate, found, models, challenger="lightgbm", rule=usecase.rule.name, champion=None, seed=usecase.seed
        )
    with at.part("CPU of the intervals"):
        metric_intervals(
            found.window, found.probabilities["lightgbm"], capacity=usecase.capacity, action=usecase.action
        )
    return test.num_rows


def score_a_day(at: Place) -> int:
    """Score all decisions of the newest date with the saved LightGBM, with reasons, and keep the predictions."""
    from datetime import UTC, datetime

    from ml_assets.learning.scorer import Scorer
    from ml_assets.lifecycle.scoring import decisions_of
    from ml_assets.predictions.score import Provenance, predictions_for, score

    rows, version = decisions_of(at.lake, at.usecase, [DAY])
    scorer = Scorer.from_files(_model(at, "lightgbm"), threads=0)
    scored = score(at.usecase, scorer, rows, despite="a benchmark")
    made = Provenance(
        model_name=at.usecase.name, model_version=1, mlflow_run_id="bench", git_commit="bench", dagster_run_id="bench",
        feature_set_hash=at.usecase.feature_set_hash, data_versions={features_table(at.usecase): version},
        scored_at=datetime.now(UTC),
    )  # fmt: skip
    found = predictions_for(at.usecase, rows, scored.probabilities, made, scored.reasons)
    at.lake.replace(predictions_table(at.usecase), found, "decision_date", [DAY])
    return found.num_rows


def upsert(at: Place) -> int:
    """Write the predictions of a day into PostgreSQL, where there are none of them."""
    from ml_assets.database.predictions import upsert_predictions
    from ml_assets.database.schema import PREDICTIONS_SCHEMA

    rows = at.lake.read(predictions_table(at.usecase), columns=PREDICTIONS_SCHEMA.names)
    with _database(at) as engine, at.measured():
        return upsert_predictions(engine, rows).inserted


def copy_alone(at: Place) -> int:
    """Write them by COPY into a table with the same columns, key and constraints."""
    from sqlalchemy import text

    from ml_assets.database.connect import begin
    from ml_assets.database.copying import copy_rows
    from ml_assets.database.schema import PREDICTIONS_SCHEMA

    rows = at.lake.read(predictions_table(at.usecase), columns=PREDICTIONS_SCHEMA.names)
    with _database(at) as engine, begin(engine) as connection:
        connection.execute(text("CREATE TABLE alone (LIKE predictions INCLUDING ALL)"))
        with at.measured():
            copy_rows(connection, "alone", rows)
    return int(rows.num_rows)


@contextmanager
def _database(at: Place) -> Iterator[Any]:
    from ml_assets.local.embedded.postgres import stop_server
    from ml_assets.platform import open_platform

    with tempfile.TemporaryDirectory() as home:
        platform = open_platform(Settings(home=Path(home)))
        try:
            yield platform.engine
        finally:
            platform.close()
            stop_server(platform.settings.home_path)


def _fit(*, bare: bool) -> Callable[[Place], int]:
    """Return what fits LightGBM, without reading: the candidate on rows, or LightGBM itself on the ready matrix."""

    def run(at: Place) -> int:
        import lightgbm  # before the time of either is taken
        import pyarrow as pa

        from ml_assets.learning.frames import FeatureNames, model_frame
        from ml_assets.learning.pipelines import fit_pipeline
        from ml_assets.learning.sampling import weighted_sample
        from ml_assets.lifecycle.training import read_training_set

        usecase = at.usecase
        candidate = next(c for c in usecase.candidates if c.name == "lightgbm")
        rows = read_training_set(at.lake, usecase, DAY, parts=["train"], for_models=True)
        if not bare:
            with at.measured():
                fit_pipeline(usecase, candidate, rows, {}, threads=0)
            return int(rows.num_rows)
        weights = None
        if sample := weighted_sample(rows["label"].to_numpy(), usecase.split.fit_rows, seed=usecase.seed):
            rows, weights = rows.take(pa.array(sample.rows)), sample.weights
        pipeline: Any = candidate.build(usecase.features, usecase.seed)
        frame = model_frame(FeatureNames.of(usecase.features), rows)
        matrix = pipeline.steps[0][1].fit(frame).transform(frame)
        params = {**pipeline.steps[-1][1].get_params(), "objective": "binary", "num_threads": os.cpu_count()}
        rounds = params.pop("n_estimators")
        for name in ("n_jobs", "importance_type", "class_weight"):
            params.pop(name)
        with at.measured():
            data = lightgbm.Dataset(matrix, rows["label"].to_numpy(), weight=weights)
            lightgbm.train(params, data, num_boost_round=rounds)
        return int(rows.num_rows)

    return run


def _asked(at: Place) -> tuple[Any, Any]:
    """Return the files of asks and quotes, which are written by whoever comes first."""
    import pyarrow.parquet as pq

    from benchmarks.bench_features import as_of_events

    files = at.folder / "asks.parquet", at.folder / "quotes.parquet"
    if not files[1].exists():
        for rows, file in zip(as_of_events(at.times * A_DAY * ASKED_DATES), files, strict=True):
            pq.write_table(rows, file)
    return files


def write_asked(at: Place) -> int:
    """Write what as-of features are made of: a year of questions, and of quotes of 2,000 entities."""
    _asked(at)
    return at.times * A_DAY * ASKED_DATES


def as_of_features(at: Place) -> int:
    """Read, load, and make the newest known quote of each question's entity, for each date of a year."""
    import pyarrow.parquet as pq

    from benchmarks.bench_features import as_of_decisions, as_of_usecase
    from ml_assets.features import AsOfDatabase

    usecase = as_of_usecase(at.folder)
    with at.measured():
        with at.part("CPU to read"):
            asks, quotes = (pq.read_table(file) for file in _asked(at))
        with at.part("CPU to load"):
            db = AsOfDatabase(usecase, {"asks": asks, "quotes": quotes}, {})
        with db, at.part("CPU of the SQL"):
            made = db.features_at(as_of_decisions(usecase))
    return int(made.num_rows)


def as_of_by_pandas(at: Place) -> int:
    """Do the same by pandas."""
    import pyarrow.parquet as pq

    from benchmarks.bench_features import merge_asof

    with at.measured():
        return len(merge_asof(*(pq.read_table(file) for file in _asked(at))))


class Stage(NamedTuple):
    """What runs, for how many seconds at most, which other stage it is held against, and the MiB of its Job."""

    run: Callable[[Place], int]
    seconds: int = 300
    peer: str = ""
    job: int = TRAINING_MIB


STAGES: dict[str, Stage] = {
    "before any row": Stage(import_all),
    "training set": Stage(assemble, peer="one DuckDB query: join, sort, write Parquet"),
    "one DuckDB query: join, sort, write Parquet": Stage(assemble_by_hand),
    **{name: Stage(train(name), 600) for name in ("rule", "logistic", "lightgbm", "hist_gradient_boosting")},
    "fit of lightgbm": Stage(_fit(bare=False), peer="LightGBM alone on the ready matrix"),
    "LightGBM alone on the ready matrix": Stage(_fit(bare=True)),
    "evaluation": Stage(evaluate),
    "scoring of a date, with reasons": Stage(score_a_day, job=SCORING_MIB),
    "upsert of a date": Stage(upsert, peer="COPY alone", job=SCORING_MIB),
    "COPY alone": Stage(copy_alone),
    "as-of features": Stage(as_of_features, peer="pandas.merge_asof on the same files", job=SCORING_MIB),
    "pandas.merge_asof on the same files": Stage(as_of_by_pandas),
}
MAKING = {"market": Stage(make_market, 900), "copies": Stage(grow, 900), "asked": Stage(write_asked)}
PEERS = {stage.peer for stage in STAGES.values() if stage.peer}


def run_stage(folder: Path, times: int, name: str) -> None:
    """Run a stage in this process, and print what it took as JSON."""
    usecase = next(u for u in discover() if u.name == "settlement_fails")
    at, stage = Place(folder, usecase, times), {**MAKING, **STAGES}[name]
    use_duckdb(Room.of(Settings(home=folder, memory_mib=stage.job)))
    wall, cpu = perf_counter(), process_time()
    rows = stage.run(at)
    seconds, used = at.took or (perf_counter() - wall, process_time() - cpu)
    print(json.dumps(Measured(rows, seconds, used, _peak(), at.said)._asdict()))  # noqa: T201 - read by `measure`


def _peak() -> float:
    """Return the largest memory of this process in MiB; `ru_maxrss` has that of the parent in it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(folder: Path, times: int, name: str) -> Measured | str:
    """Run a stage in a process of its own; in words why it did not come to its end."""
    stage = {**MAKING, **STAGES}[name]
    command = [sys.executable, "-m", "benchmarks.bench_scale", "--folder", str(folder), "--times", str(times)]
    try:
        done = subprocess.run(
            [*command, "--stage", name], capture_output=True, text=True, check=False, timeout=stage.seconds
        )
    except subprocess.TimeoutExpired:
        return f"ended at its limit of {stage.seconds} seconds"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def size(folder: Path, times: int) -> Iterator[tuple[str, Measured | str]]:
    """Yield each stage, as it ends, with what it took at a size; the copies are thrown away at the end."""
    with tempfile.TemporaryDirectory(prefix=f"times{times}_", dir=folder) as place:
        for name in ("copies", "asked"):
            if isinstance(why := measure(Path(place), times, name), str):
                raise RuntimeError(f"{name} at {times * A_DAY:,} a day: {why}")
        for name in STAGES:
            yield name, measure(Path(place), times, name)


def line(times: int, name: str, of: Measured, peer: Measured | str | None) -> str:
    """Return a line of the table."""
    against = f"{of.cpu / peer.cpu:.2f}" if isinstance(peer, Measured) else ""
    numbers = f"{of.rows:,} | {of.seconds:.0f} | {of.cpu:.1f} | {_memory(name, of.memory)}"
    return f"| {times * A_DAY:,} | {name} | {numbers} | {against} | {_figures(of.said)} |"


def extrapolated(a_day: int, name: str, sizes: Mapping[int, Mapping[str, Measured]]) -> str:
    """Return the line of so many a day: linear in rows beyond the two largest sizes."""
    small, large = (sizes[times][name] for times in sorted(sizes)[-2:])
    rows = large.rows / max(sizes) * a_day / A_DAY

    def at(value: str) -> float:
        a, b = getattr(small, value), getattr(large, value)
        slope = (b - a) / (large.rows - small.rows) if large.rows > small.rows else 0.0
        return float(b + max(0.0, slope) * (rows - large.rows))

    numbers = f"{rows:,.0f} | {at('seconds'):,.0f} | {at('cpu'):,.0f} | {_memory(name, at('memory'))}"
    return f"| {a_day:,}, extrapolated | {name} | {numbers} | | |"


def _memory(name: str, mib: float) -> str:
    return f"{mib:,.0f}" if mib <= STAGES[name].job else f"**{mib:,.0f}**"


def _figures(said: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" if value < 1 else f"{name} {value:.1f}" for name, value in said.items())


def refusals(usecase: UseCase, sizes: Mapping[int, Mapping[str, Measured]]) -> list[str]:
    """Return what a training is said to need beforehand, by rows of its training set."""
    from ml_assets.lifecycle.training import memory_needed

    found = []
    set_of = {times * A_DAY: of["training set"].rows for times, of in sizes.items() if "training set" in of}
    most = max(set_of, default=0)
    for a_day in [*set_of, *(wanted for wanted in WANTED if wanted not in set_of and most)]:
        rows = set_of.get(a_day) or set_of[most] * a_day // most
        mib = memory_needed(rows, usecase.split) / 2**20
        verdict = "it runs" if mib <= TRAINING_MIB else "it is refused before it starts"
        found.append(f"- {a_day:,} a day: a training is reckoned to need {mib:,.0f} MiB, so {verdict}")
    return found


def body(found: Mapping[int, Mapping[str, Measured | str]], usecase: UseCase) -> list[str]:
    """Return the lines of the report."""
    sizes = {t: {name: of for name, of in each.items() if isinstance(of, Measured)} for t, each in found.items()}
    shown = [name for name in STAGES if name not in PEERS]
    lines = [
        "| instructions a day | stage | rows | seconds | CPU seconds | peak MiB | CPU to that of the peer | figures |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for times, of in sizes.items():
        lines += [line(times, name, of[name], of.get(STAGES[name].peer)) for name in shown if name in of]
    for a_day in WANTED if len(sizes) > 1 else ():
        if a_day // A_DAY not in sizes:
            lines += [extrapolated(a_day, name, sizes) for name in shown if all(name in of for of in sizes.values())]
    lines += ["", *(f"- {name}: the peer is {stage.peer}" for name, stage in STAGES.items() if stage.peer)]
    lines += refusals(usecase, sizes)
    return lines + [
        f"- {name} at {times * A_DAY:,} a day: {why}"
        for times, each in found.items() for name, why in each.items() if isinstance(why, str)
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report, or run one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, action="append", help=f"how many copies; {TIMES} if not given")
    parser.add_argument("--folder", type=Path, help="where the market is, or is made; a temporary one if not given")
    parser.add_argument("--stage", choices=[*MAKING, *STAGES], help="run this one here, and print what it took")
    parser.add_argument("--out", type=Path, default=REPORT)
    given = parser.parse_args(arguments)
    if given.stage:
        run_stage(given.folder, given.times[0], given.stage)
        return
    began = perf_counter()
    usecase = next(u for u in discover() if u.name == "settlement_fails")
    found: dict[int, dict[str, Measured | str]] = {}
    with tempfile.TemporaryDirectory(prefix="ml_assets_scale_") as temporary:
        folder = given.folder or Path(temporary)
        if not (folder / "market").is_dir() and isinstance(why := measure(folder / "market", 1, "market"), str):
            raise RuntimeError(f"the market: {why}")
        for times in given.times or TIMES:
            found[times] = {}
            for name, of in size(folder, times):
                found[times][name] = of
                print(f"{times * A_DAY:,} a day, {name}: {of}", flush=True)  # noqa: T201 - it takes long
    about = [
        f"Written by `make bench-scale`. Larger markets are copies of one of {A_DAY:,} instructions a day, under other "
        "entities. Landing, ingestion and the audit of a training set are not on this page.",
    ]
    facts = [
        f"settlement_fails, each stage in a process of its own; the whole took {(perf_counter() - began) / 60:.0f} "
        "minutes",
        f"the Job `retrain` may use {TRAINING_MIB:,} MiB, one that scores {SCORING_MIB:,}; bold: more than that. A "
        "stage's MiB include Python and its libraries; in a Job, those of `before any row` are there too",
        f"as-of features: {ASKED_DATES} dates, on each as many questions as instructions a day",
    ]
    text = page("Training and scoring as the market grows", about, facts, body(found, usecase))
    given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
