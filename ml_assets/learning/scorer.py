"""Scoring: an ONNX model and a manifest. The only way in which a model gives probabilities outside training.

Nothing here unpickles, and scikit-learn is not imported.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.errors import InputError
from ml_assets.learning.calibration import Calibration
from ml_assets.learning.frames import FeatureNames, model_arrays
from ml_assets.learning.reference import ScoreReference

if TYPE_CHECKING:
    import pandas as pd

MODEL_FILE, MANIFEST_FILE = "model.onnx", "manifest.json"
_BATCH = 65_536


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a scorer must know besides the graph.

    `background` holds some typical decisions, a list a feature: what reasons compare a decision with. `reference` is
    what scores are held against before they are published; None if the model was made before there was one.
    """

    usecase: str
    candidate: str
    feature_set_hash: str
    features: FeatureNames
    calibration: Calibration
    classes: tuple[int, int] = (0, 1)
    background: dict[str, list[float | str | None]] = {}
    reference: ScoreReference | None = None


def _has_data_elsewhere(model: bytes) -> bool:
    """Return whether tensors of a model lie in other files: ONNX Runtime would read them from the working directory."""
    if b"location" not in model:
        return False
    import onnx

    # The key of such a reference (StringStringEntryProto), as protobuf writes it.
    return b"\n\x08location" in onnx.load_from_string(model).SerializeToString()


class Scorer:
    """A model that turns feature rows into calibrated probabilities."""

    def __init__(self, model: bytes, manifest: Manifest, *, threads: int = 1) -> None:
        """Open the model; `threads` are ONNX Runtime's, 0 is one per core.

        Raises:
            ValueError: the model refers to data in other files, which no hash of it covers.
        """
        if _has_data_elsewhere(model):
            raise InputError("the ONNX model refers to data in other files; save it with all of its data in one file")
        # From 1.32 on it reports its use to its maker: a look-up of a host and a file in the user's cache.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.model = model
        self.manifest = manifest
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = [i.name for i in self._session.get_inputs()]

    @classmethod
    def from_files(cls, folder: Path, *, threads: int = 1) -> Self:
        """Return the scorer that `save` wrote.

        Raises:
            FileNotFoundError: the folder lacks one of the two files.
            msgspec.ValidationError: the manifest is not one of this version.
        """
        absent = [name for name in (MODEL_FILE, MANIFEST_FILE) if not (folder / name).is_file()]
        if absent:
            raise FileNotFoundError(f"{folder} lacks {' and '.join(absent)}; it is not the folder of a saved scorer")
        manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)
        return cls((folder / MODEL_FILE).read_bytes(), manifest, threads=threads)

    def save(self, folder: Path) -> None:
        """Write `model.onnx` and `manifest.json` to the folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).write_bytes(self.model)
        (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(self.manifest), indent=2))

    def score(self, rows: pd.DataFrame | pa.Table) -> NDArray[np.float64]:
        """Return the calibrated probability of each row: (n,), in the order of `rows`.

        Columns that are not features are ignored.

        Raises:
            MissingColumnsError: a feature is not among the columns.
        """
        return self.manifest.calibration.apply(self.score_uncalibrated(rows))

    def score_arrays(self, numbers: NDArray[np.float32], categories: NDArray[np.object_]) -> NDArray[np.float64]:
        """Return the calibrated probability of each row of the arrays that `model_arrays` makes: (n,)."""
        return self.manifest.calibration.apply(self._run(numbers, categories))

    def score_uncalibrated(self, rows: pd.DataFrame | pa.Table) -> NDArray[np.float64]:
        """Return the probabilities as the ONNX model gives them: (n,). Of many rows, some at a time become arrays."""
        if len(rows) <= _BATCH:
            return self._run(*model_arrays(self.manifest.features, rows))
        parts = (
            rows.slice(start, _BATCH) if isinstance(rows, pa.Table) else rows.iloc[start : start + _BATCH]
            for start in range(0, len(rows), _BATCH)
        )
        return np.concatenate([self._run(*model_arrays(self.manifest.features, part)) for part in parts])

    def _run(self, numbers: NDArray[np.float32], categories: NDArray[np.object_]) -> NDArray[np.float64]:
        given = {"numeric": numbers, "categorical": categories}
        probabilities = np.empty(len(numbers), dtype=np.float64)
        for start in range(0, len(numbers), _BATCH):
            feed = {name: given[name][start : start + _BATCH] for name in self._inputs}
            rows = min(_BATCH, len(numbers) - start)
            if rows == 1:
                # A row alone is added up in another order, by float32, than among others: it is given company.
                feed = {name: np.repeat(values, 2, axis=0) for name, values in feed.items()}
            (result,) = self._session.run(["probabilities"], feed)
            probabilities[start : start + rows] = result[:rows, 1]
        return probabilities
