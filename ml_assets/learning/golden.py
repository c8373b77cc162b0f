"""The golden sample: decisions with the pipeline's own probabilities, and the proof that the saved model gives them.

The proof runs in a fresh process that holds nothing of the training:

    python -m ml_assets.learning.golden <folder of the saved model> <golden sample>

It opens the files as scoring does, scores the sample, times single decisions, and prints a `ServingEvidence` as JSON.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from ml_assets.errors import StateError
from ml_assets.learning.frames import FeatureNames, model_arrays, model_frame
from ml_assets.learning.gate import ServingEvidence
from ml_assets.learning.scorer import MODEL_FILE, Scorer

if TYPE_CHECKING:
    from ml_assets.learning.fit import FittedCandidate

GOLDEN_SAMPLE = "golden_sample.json"
GOLDEN_ROWS = 256
_TIMED = 200
_TIMEOUT = 120


class GoldenSample(msgspec.Struct, frozen=True):
    """Feature columns by name (n values each), and the calibrated probabilities (n) of the pipeline that was fitted."""

    columns: dict[str, list[float | str | None]]
    probabilities: list[float]


class ServingCheckError(StateError):
    """The saved model could not be loaded and scored in a fresh process."""


def golden_sample(fitted: FittedCandidate, rows: pa.Table) -> str:
    """Return the golden sample of a fitted candidate as JSON: evenly spread over `rows`, which have its features."""
    names = fitted.scorer.manifest.features
    at = np.unique(np.linspace(0, len(rows) - 1, min(GOLDEN_ROWS, len(rows))).astype(np.int64))
    chosen = rows.take(pa.array(at))
    numbers, categories = model_arrays(names, chosen)
    columns: dict[str, list[Any]] = {
        name: [None if np.isnan(value) else float(value) for value in numbers[:, i]]
        for i, name in enumerate(names.numeric)
    }
    columns |= {name: categories[:, i].tolist() for i, name in enumerate(names.categorical)}
    uncalibrated = fitted.estimator.predict_proba(model_frame(names, chosen))[:, 1]
    sample = GoldenSample(columns, fitted.calibration.apply(uncalibrated).tolist())
    return msgspec.json.encode(sample).decode()


def check_in_fresh_process(folder: Path, sample: Path) -> ServingEvidence:
    """Return what another process finds of the saved model in a folder.

    Raises:
        ServingCheckError: the process failed; the message has its last line.
    """
    command = [sys.executable, "-m", "ml_assets.learning.golden", str(folder), str(sample)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)  # noqa: S603
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        raise ServingCheckError(f"the model in {folder} does not score in a fresh process: {said[-1]}")
    return msgspec.json.decode(done.stdout, type=ServingEvidence)


def check(folder: Path, sample: GoldenSample) -> ServingEvidence:
    """Return what this process finds of the saved model: the difference from the sample, and its speed."""
    started = time.perf_counter()
    scorer = Scorer.from_files(folder, threads=1)
    loaded = time.perf_counter() - started
    rows = sample_rows(scorer.manifest.features, sample)
    scored = scorer.score(rows)
    expected = np.asarray(sample.probabilities)
    difference = float(np.abs(scored - expected).max()) if len(expected) == len(scored) and len(scored) else None
    seconds = []
    for turn in range(_TIMED if rows.num_rows else 0):
        one = rows.slice(turn % rows.num_rows, 1)
        started = time.perf_counter()
        scorer.score(one)
        seconds.append(time.perf_counter() - started)
    return ServingEvidence(
        model_hash=hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest(),
        rows=rows.num_rows,
        max_abs_difference=difference,
        latency_ms=float(np.median(seconds)) * 1000 if seconds else None,
        load_ms=loaded * 1000,
    )


def sample_rows(names: FeatureNames, sample: GoldenSample) -> pa.Table:
    """Return the sample's decisions as a table of features."""
    numeric = {name: pa.array(sample.columns[name], pa.float64()) for name in names.numeric}
    return pa.table(numeric | {name: pa.array(sample.columns[name], pa.string()) for name in names.categorical})


def main() -> None:
    """Check the model and the sample that the command line names; print the evidence."""
    folder, sample = (Path(argument) for argument in sys.argv[1:3])
    found = check(folder, msgspec.json.decode(sample.read_bytes(), type=GoldenSample))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    main()
