"""`make bench-trees`: trees scored by ONNX Runtime, by LightGBM itself and by treelite, into docs/benchmarks-trees.md.

All get the matrix that the pipeline makes of decisions, so that only trees are measured. Processor seconds are shown,
the least of the rounds: on a busy machine they say more than the clock. treelite is no dependency of the project: it
gets an environment of its own, with LightGBM from the lock.
"""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import process_time

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.bench_report import DOCS, page
from ml_assets.learning.candidates import lightgbm
from ml_assets.learning.export import round_thresholds, to_onnx
from ml_assets.learning.frames import FeatureNames, model_frame
from ml_assets.learning.pipelines import fit_pipeline
from ml_assets_tests.usecases.settlement import USE_CASE

REPORT = DOCS / "benchmarks-trees.md"
ROWS, TRAINED, ROUNDS = 200_000, 60_000, 4
WANTED = 2.5


def main() -> None:
    """Measure and write the report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trees = prepare(folder)
        least, off = measure(folder, trees)
    text = page(
        "Benchmarks of tree scoring",
        ["Written by `make bench-trees`. Processor seconds, the least of the rounds; read the ratios."],
        [
            f"{ROWS:,} decisions, drawn at random, with the features of settlement_fails and its LightGBM; one thread",
            f"{ROUNDS} rounds; lightgbm {version('lightgbm')}, onnxruntime {version('onnxruntime')}",
        ],
        [
            "| predictor | seconds a million | times ONNX Runtime's speed | largest difference from the pipeline |",
            "| --- | ---: | ---: | ---: |",
            *(_row(name, seconds, least["onnxruntime"], off[name]) for name, seconds in least.items()),
            "",
            f"What replaces ONNX Runtime must be {WANTED} times as fast, within 1e-9, and unpickle nothing: see",
            "[decisions](decisions/README.md).",
        ],
    )
    REPORT.write_text(text, encoding="utf-8")
    print(text)  # noqa: T201 - this is what it is for


def _row(name: str, seconds: float, of_onnx: float, off: float) -> str:
    return f"| {name} | {seconds / ROWS * 1e6:.2f} | {of_onnx / seconds:.2f} | {off:.1e} |"


def rows_of(count: int, rng: np.random.Generator) -> pa.Table:
    """Return decisions with the features of the use case, drawn at random, and a label that depends on them."""
    columns: dict[str, NDArray[np.float64] | list[str]] = {}
    total = np.zeros(count)
    for feature in USE_CASE.features:
        if feature.kind == "numeric":
            drawn = rng.gamma(2.0, size=count)
            total += rng.normal() * drawn + rng.normal() * (drawn > 2) * (total > 0)
            columns[feature.name] = np.where(rng.random(count) < 0.05, np.nan, drawn)
        else:
            columns[feature.name] = [f"kind {number}" for number in rng.integers(0, 6, count)]
    level = np.quantile(total, 0.93)
    columns["label"] = (total + rng.normal(size=count) > level).astype(np.int8)
    return pa.table(columns)


def prepare(folder: Path) -> onnxruntime.InferenceSession:
    """Fit the model, write what the peers read, and return ONNX Runtime's session of the trees alone."""
    rng = np.random.default_rng(1)
    candidate = next((c for c in USE_CASE.candidates if c.name == "lightgbm"), lightgbm())
    names = FeatureNames.of(USE_CASE.features)
    pipeline = fit_pipeline(USE_CASE, candidate, rows_of(TRAINED, rng), {}, threads=1)
    round_thresholds(pipeline)
    frame = model_frame(names, rows_of(ROWS, rng))
    matrix = np.asarray(pipeline.steps[0][1].transform(frame), dtype=np.float64)
    np.save(folder / "matrix.npy", matrix)
    np.save(folder / "expected.npy", pipeline.predict_proba(frame)[:, 1])
    pipeline.steps[-1][1].booster_.save_model(folder / "model.txt")
    return onnxruntime.InferenceSession(trees_alone(to_onnx(pipeline, names)), one_thread(), ["CPUExecutionProvider"])


def trees_alone(model: bytes) -> bytes:
    """Return the part of an exported model from its trees on."""
    whole = onnx.load_from_string(model)
    nodes = list(whole.graph.node)
    first = next(i for i, node in enumerate(nodes) if node.op_type.startswith("TreeEnsemble"))
    given = helper.make_tensor_value_info(nodes[first].input[0], TensorProto.DOUBLE, [None, None])
    graph = helper.make_graph(nodes[first:], "trees", [given], list(whole.graph.output))
    made = helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)
    return bytes(made.SerializeToString())


def one_thread() -> onnxruntime.SessionOptions:
    """Return the options of a session that uses one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def measure(folder: Path, session: onnxruntime.InferenceSession) -> tuple[dict[str, float], dict[str, float]]:
    """Return by predictor the processor seconds of the rows, and the largest difference from the pipeline."""
    matrix, expected = np.load(folder / "matrix.npy"), np.load(folder / "expected.npy")
    (given,) = [one.name for one in session.get_inputs()]
    seconds: dict[str, list[float]] = {"onnxruntime": [], "lightgbm": [], "treelite": []}
    off = dict.fromkeys(seconds, 0.0)
    environment = folder / "peer"
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    peer = str(environment / "bin" / "python")
    wanted = [f"lightgbm=={version('lightgbm')}", "treelite", "scipy"]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", peer, *wanted], check=True)
    script = Path(__file__).with_name("peer_trees.py")
    with subprocess.Popen(
        [peer, str(script), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as other:  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None
        for _ in range(ROUNDS):
            started = process_time()
            (probabilities,) = session.run(["probabilities"], {given: matrix})
            seconds["onnxruntime"].append(process_time() - started)
            off["onnxruntime"] = float(np.abs(probabilities[:, 1] - expected).max())
            for name in ("lightgbm", "treelite"):
                other.stdin.write(f"{name}\n")
                other.stdin.flush()
                used, difference = map(float, other.stdout.readline().split())
                seconds[name].append(used)
                off[name] = difference
        other.stdin.close()
    return {name: min(took) for name, took in seconds.items()}, off


if __name__ == "__main__":
    main()
