"""`make bench`: speeds as ratios against a peer that is measured in the same run, into docs/benchmarks.md."""

import json
import os
import tempfile
from collections.abc import Callable
from datetime import date
from io import StringIO
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from confluent_kafka import Consumer, KafkaError, TopicPartition
from deltalake import DeltaTable, write_deltalake

from benchmarks.bench_report import DOCS, Pair, page, timed
from ml_assets.cli.local_runs import LocalRuns, local_instance
from ml_assets.database.promotions import Actor
from ml_assets.defs.resources import Platform
from ml_assets.lake import features_table
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.learning.frames import FeatureNames, model_arrays, model_frame
from ml_assets.learning.pipelines import fit_pipeline
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.training_set import part_of
from ml_assets.lifecycle.evaluation import evaluate_candidates
from ml_assets.lifecycle.features import compute_features, mature_labels
from ml_assets.lifecycle.ingestion import curate_dates, load_reference
from ml_assets.lifecycle.promotion import approve, promote_challenger
from ml_assets.lifecycle.registration import register_challenger
from ml_assets.lifecycle.scoring import score_dates
from ml_assets.lifecycle.training import RunOrigin, assemble_training_set, read_training_set, train_candidate
from ml_assets.local.embedded.broker import stop_broker, temporary_broker
from ml_assets.local.embedded.postgres import stop_server
from ml_assets.local.simulation.market import Market, MarketConfig, simulate
from ml_assets.registry import CHAMPION
from ml_assets.settings import Settings
from ml_assets.spec import UseCase
from ml_assets.usecases import discover

ROUNDS = 3
REPORT = DOCS / "benchmarks.md"


def main() -> None:
    """Measure and write the report."""
    home = Path(tempfile.mkdtemp(prefix="ml_assets_bench_"))
    os.environ["ML_ASSETS_HOME"] = str(home)
    settings = Settings()
    usecase = next(u for u in discover() if u.name == "settlement_fails")
    config = MarketConfig(days=56, instructions_per_day=2000)
    market = simulate(config)
    market.write_reference(settings.reference_uri)
    platform = Platform(home=str(home))
    try:
        landing = measure_landing(platform, usecase, market, home)
        rows = measure_day(settings, platform, usecase, config)
    finally:
        platform.close()
        stop_broker(home)
        stop_server(home)
    write([landing, *rows], config)
    print(REPORT.read_text(encoding="utf-8"))  # noqa: T201 - this is what it is for


def measure_landing(platform: Platform, usecase: UseCase, market: Market, home: Path) -> Pair:
    """Land everything, against reading the same messages and throwing them away."""
    peer = []
    with temporary_broker(home / "broker") as bootstrap:
        kafka = KafkaConnection(bootstrap)
        ensure_topics(kafka, market.topics)
        sent = produce(kafka, market.messages())
        for _ in range(ROUNDS):
            with timed(peer):
                assert drain(bootstrap, [event.topic for event in usecase.events]) == sent
        ours: list[float] = []
        for number in range(ROUNDS):
            lake = platform.lake if number == 0 else type(platform.lake)(str(home / f"lake{number}"))
            with timed(ours):
                reports = Lander(lake, usecase.events, kafka, clock="replay").land_available()
            assert sum(report.consumed for report in reports) == sent
    return Pair(f"landing {sent:,} messages", ours, peer, "the same messages consumed and thrown away")


def drain(bootstrap: str, topics: list[str]) -> int:
    """Return the number of messages read to the end of all topics."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "drain", "enable.partition.eof": True})
    known = consumer.list_topics(timeout=10).topics
    unread = {(topic, p) for topic in topics for p in known[topic].partitions}
    consumer.assign([TopicPartition(topic, p, 0) for topic, p in unread])
    count = 0
    while unread:
        for message in consumer.consume(5_000, timeout=0.2):
            error = message.error()
            if error is None:
                count += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard((message.topic(), message.partition()))
    consumer.close()
    return count


def measure_day(settings: Settings, platform: Platform, usecase: UseCase, config: MarketConfig) -> list[Pair]:
    """Run the whole graph for the last day through Dagster, and the same functions without it, in turns."""
    last = usecase.calendar.add(config.start, config.days - 1)
    days = list(usecase.calendar.between(config.start, last))
    measured: dict[str, tuple[list[float], list[float]]] = {}
    with local_instance(settings) as instance:
        runs = LocalRuns(instance, usecase, platform)
        runs.run_in_chunks("ingest", days, 20)
        runs.run("retrain", [last])  # both sides start with everything imported, and with a champion
        approve(platform.registry, platform.engine, usecase, Actor.person("bench"), reason="to be measured")
        runs.run("score", [last])
        dagster: dict[str, Callable[[], object]] = {
            "ingest": lambda: runs.run("ingest", [last]),
            "retrain": lambda: runs.run("retrain", [last]),
            "score": lambda: runs.run("score", [last]),
        }
        pure: dict[str, Callable[[], object]] = {
            "ingest": lambda: ingest(platform, usecase, last),
            "retrain": lambda: retrain(platform, usecase, last),
            "score": lambda: score(platform, usecase, last),
        }
        for _ in range(ROUNDS):
            for name in dagster:
                ours, peer = measured.setdefault(name, ([], []))
                with timed(peer):
                    pure[name]()
                with timed(ours):
                    dagster[name]()
    whole = [[sum(times) for times in zip(*(measured[n][side] for n in measured), strict=True)] for side in (0, 1)]
    what = "the same functions called without Dagster"
    pairs = [Pair(f"one day, {name}", ours, peer, what) for name, (ours, peer) in measured.items()]
    return [
        Pair("one day, the whole graph (limit 1.5)", whole[0], whole[1], what),
        *pairs,
        scoring_speed(platform, usecase, last),
        training_speed(platform, usecase, last),
        *batch_speed(platform, usecase, last, "logistic"),
        *batch_speed(platform, usecase, last, "lightgbm"),
    ]


def ingest(platform: Platform, usecase: UseCase, day: date) -> None:
    for event in usecase.events:
        curate_dates(platform.lake, usecase, event, [day])
    for reference in usecase.references:
        load_reference(platform.lake, usecase, reference, platform.settings.reference_uri)
    compute_features(platform.lake, usecase, [day])
    mature_labels(platform.lake, usecase, [day])


def retrain(platform: Platform, usecase: UseCase, day: date) -> None:
    assemble_training_set(platform.lake, usecase, day)
    for candidate in usecase.candidates:
        train_candidate(platform.lake, platform.registry, usecase, candidate, day, RunOrigin("bench", "bench"))
    evaluate_candidates(platform.lake, platform.registry, platform.engine, usecase, day)
    register_challenger(platform.registry, platform.engine, usecase, day, Actor.run("bench"))
    promote_challenger(platform.registry, platform.engine, usecase, Actor.run("bench"))


def score(platform: Platform, usecase: UseCase, day: date) -> None:
    origin = RunOrigin("bench", "bench")
    score_dates(platform.lake, platform.registry, platform.engine, usecase, [day], origin)


def scoring_speed(platform: Platform, usecase: UseCase, day: date) -> Pair:
    """Score a day with the champion's ONNX model, against a bare ONNX Runtime session on the same arrays."""
    champion = platform.registry.resolve(usecase.name, CHAMPION)
    assert champion is not None
    scorer = Scorer.from_files(platform.registry.download_model(champion.run_id))
    rows = platform.lake.read(features_table(usecase), where=ds.field("decision_date") <= day)
    numbers, categories = model_arrays(scorer.manifest.features, rows)
    inputs = {name: {"numeric": numbers, "categorical": categories}[name] for name in scorer._inputs}
    ours: list[float] = []
    peer: list[float] = []
    for _ in range(ROUNDS):
        with timed(peer):
            bare = scorer._session.run(None, inputs)
        with timed(ours):
            scores = scorer.score(rows)
    assert len(bare)
    assert np.isfinite(scores).all()
    return Pair(f"scoring {rows.num_rows:,} decisions", ours, peer, "ONNX Runtime alone, on prepared arrays")


def training_speed(platform: Platform, usecase: UseCase, day: date) -> Pair:
    """Fit the LightGBM pipeline on the train part, against LightGBM itself on the matrix that the pipeline makes."""
    candidate = next(c for c in usecase.candidates if c.name == "lightgbm")
    rows = part_of(read_training_set(platform.lake, usecase, day), "train")
    fitted = fit_pipeline(usecase, candidate, rows, {}, threads=0)
    matrix = fitted.steps[0][1].transform(model_frame(FeatureNames.of(usecase.features), rows))
    labels = rows["label"].to_numpy()
    params = {**fitted.steps[-1][1].get_params(), "objective": "binary", "num_threads": os.cpu_count()}
    rounds = params.pop("n_estimators")
    for name in ("n_jobs", "importance_type", "class_weight"):
        params.pop(name)
    ours: list[float] = []
    peer: list[float] = []
    for _ in range(ROUNDS):
        with timed(peer):
            bare = lightgbm.train(params, lightgbm.Dataset(matrix, labels), num_boost_round=rounds)
        with timed(ours):
            fitted = fit_pipeline(usecase, candidate, rows, {}, threads=0)
    assert bare.num_trees() == fitted.steps[-1][1].booster_.num_trees()
    what = "LightGBM alone, on the matrix that the pipeline makes"
    return Pair(f"training on {rows.num_rows:,} decisions (limit 1.2)", ours, peer, what)


def batch_speed(
    platform: Platform, usecase: UseCase, day: date, candidate_name: str, rows: int = 1_000_000
) -> list[Pair]:
    """Read, score and write many decisions, against the same with a bare ONNX Runtime session and with MLflow's pyfunc.

    MLflow's own batch job is `mlflow models predict`, which reads CSV and writes JSON; it also has its pyfunc read and
    write the Delta tables that the others do. The last pair holds ONNX Runtime itself against that pyfunc: what no
    scoring through it can pass.
    """
    made = platform.lake.read(features_table(usecase), where=ds.field("decision_date") <= day)
    with tempfile.TemporaryDirectory() as folder:
        batch = Batch(platform, usecase, day, candidate_name, made.take(np.arange(rows) % made.num_rows), Path(folder))
        jobs: dict[str, Callable[[], object]] = {
            "bare": batch.bare,
            "pyfunc": batch.pyfunc,
            "command": batch.command,
            "ours": batch.ours,
        }
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(ROUNDS):
            for name, scored in jobs.items():
                with timed(seconds[name]):
                    scored()
        calibrated = batch.scorer.manifest.calibration.apply(batch.bare())
        assert len(calibrated) == rows
        assert np.abs(calibrated - batch.ours()).max() < 1e-6
        # A tree may tell a float32 from the decimal that CSV has for it.
        assert np.mean(np.abs(batch.pyfunc() - batch.answers_of_command()) < 1e-6) > 0.99
    what = f"{candidate_name}: {rows:,} decisions read, scored, written"
    in_memory = "MLflow's pyfunc of the same kind of pipeline, on the same tables"
    return [
        Pair(f"{what} (limit 1.43)", seconds["ours"], seconds["bare"], "a bare ONNX Runtime session"),
        Pair(f"{what} (limit 0.2)", seconds["ours"], seconds["command"], "MLflow's batch job, `mlflow models predict`"),
        Pair(what, seconds["ours"], seconds["pyfunc"], in_memory),
        Pair(f"{what} by a bare ONNX Runtime session", seconds["bare"], seconds["pyfunc"], in_memory),
    ]


class Batch:
    """Decisions to be read, scored with a candidate and written, in several ways."""

    def __init__(
        self, platform: Platform, usecase: UseCase, day: date, candidate_name: str, rows: pa.Table, folder: Path
    ) -> None:
        self.names, self.lake, self.day, self.folder = FeatureNames.of(usecase.features), platform.lake, day, folder
        self.keys = ["entity_id", "decision_time", "decision_date"]
        self.columns = [*self.keys, *(name for name in self.names.all if name not in self.keys)]
        decided = pa.array([day] * rows.num_rows, pa.date32())
        rows = rows.set_column(rows.column_names.index("decision_date"), "decision_date", decided)
        self.lake.replace("bench/features", rows, "decision_date", [day])
        run = platform.registry.candidate_runs(usecase.name, day)[candidate_name]
        threads = os.cpu_count() or 1
        self.scorer = Scorer.from_files(platform.registry.download_model(run.run_id), threads=threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(self.scorer.model, options, providers=["CPUExecutionProvider"])
        train = part_of(read_training_set(platform.lake, usecase, day), "train").slice(0, 50_000)
        candidate = next(c for c in usecase.candidates if c.name == candidate_name)
        read = pd.read_csv(StringIO(model_frame(self.names, train.slice(0, 1000)).to_csv(index=False)))
        pipeline = fit_pipeline(usecase, candidate, train, {}, threads=0)
        mlflow.sklearn.save_model(
            pipeline, folder / "model", serialization_format="cloudpickle", pyfunc_predict_fn="predict_proba",
            pip_requirements=["scikit-learn"], signature=mlflow.models.infer_signature(read),
        )  # fmt: skip
        self._pyfunc = mlflow.pyfunc.load_model(str(folder / "model"))
        model_frame(self.names, rows).to_csv(folder / "rows.csv", index=False)

    def ours(self) -> np.ndarray:
        """By the code that scores in production."""
        table = self.lake.read("bench/features", columns=self.columns)
        p = self.scorer.score(table)
        out = table.select(self.keys).append_column("p", pa.array(p))
        self.lake.replace("bench/ours", out, "decision_date", [self.day])
        return p

    def bare(self) -> np.ndarray:
        """By an ONNX Runtime session on the same model."""
        table, names = self._read(), self.names
        numbers = np.column_stack([table[name].to_numpy().astype(np.float32) for name in names.numeric])
        texts = np.column_stack([table[name].to_pandas().fillna("").to_numpy(object) for name in names.categorical])
        (given,) = self._session.run(["probabilities"], {"numeric": numbers, "categorical": texts})
        return self._written(table, given[:, 1])

    def pyfunc(self) -> np.ndarray:
        """By the same kind of pipeline, saved by mlflow.sklearn and loaded as a pyfunc."""
        table = self._read()
        return self._written(table, np.asarray(self._pyfunc.predict(model_frame(self.names, table)))[:, 1])

    def command(self) -> None:
        """By MLflow's batch job on that pyfunc, from CSV to JSON."""
        model, given, made = (str(self.folder / name) for name in ("model", "rows.csv", "scored.json"))
        mlflow.models.predict(model, input_path=given, content_type="csv", output_path=made, env_manager="local")

    def answers_of_command(self) -> np.ndarray:
        """Return what MLflow's batch job has written."""
        return np.asarray(json.loads((self.folder / "scored.json").read_bytes())["predictions"])[:, 1]

    def _read(self) -> pa.Table:
        return DeltaTable(self.lake.uri("bench/features")).to_pyarrow_dataset().to_table(columns=self.columns)

    def _written(self, table: pa.Table, p: np.ndarray) -> np.ndarray:
        out = table.select(self.keys).append_column("p", pa.array(p))
        write_deltalake(self.lake.uri("bench/peer"), out, mode="overwrite", partition_by=["decision_date"])
        return p


def write(pairs: list[Pair], config: MarketConfig) -> None:
    """Write the report."""
    about = ["Written by `make bench`. Seconds depend on the machine; the two sides of a ratio are measured in turns."]
    facts = [
        f"settlement_fails, {config.days} days of {config.instructions_per_day:,} instructions",
        f"medians of {ROUNDS} rounds",
    ]
    table = ["| what | seconds | peer, seconds | ratio | peer |", "| --- | ---: | ---: | ---: | --- |"]
    REPORT.write_text(page("Benchmarks", about, facts, table + [pair.row for pair in pairs]), encoding="utf-8")


if __name__ == "__main__":
    main()
