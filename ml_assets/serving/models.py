"""The model that answers: the one that the ledger names, with the files that were approved, tried before it is used."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from ml_assets.database.promotions import LedgerEntry
from ml_assets.errors import StateError
from ml_assets.learning.golden import GoldenSample, sample_rows
from ml_assets.learning.reasons import Explainer
from ml_assets.learning.scorer import MODEL_FILE, Scorer
from ml_assets.registry.integrity import ModelChangedError, file_hashes, model_hash
from ml_assets.settings import Settings
from ml_assets.spec import UseCase

# How far a probability of the golden sample may be from what the pipeline gave.
GOLDEN_TOLERANCE = 1e-5
_FETCH_SECONDS = 180
# A model beside the champion that was refused is tried again after so many seconds, then after twice as many.
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 300.0


class ModelRefusedError(StateError):
    """A model cannot be opened, or does not say what it said when it was approved; the one before stays."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where the files of a model lie, and its golden sample."""

    folder: Path
    golden: Path


# Given an MLflow run and the hash of its model's files, fetches them.
Fetch = Callable[[str, str], ModelFiles]


@dataclass(frozen=True)
class OpenModel:
    """A version of a use case's model, opened and tried. `since` and `by` are of its line in the ledger."""

    usecase: UseCase
    version: int
    run_id: str
    model_hash: str
    since: datetime
    by: str
    scorer: Scorer

    def is_of(self, line: LedgerEntry) -> bool:
        """Return whether this is the model of a line, whatever line it was opened for."""
        return (self.run_id, self.model_hash) == (line.mlflow_run_id, line.model_hash)

    @cached_property
    def explainer(self) -> Explainer:
        """What finds the reasons of its scores.

        Raises:
            ValueError: the model was saved without a background.
        """
        return Explainer(self.usecase, self.scorer)


def open_model(usecase: UseCase, line: LedgerEntry, fetch: Fetch, *, threads: int = 1) -> OpenModel:
    """Return the model of a line of the ledger, opened in a session of its own.

    Raises:
        ModelRefusedError: it cannot be used; the text says why.
    """
    if line.mlflow_run_id is None or line.model_hash is None:
        raise ModelRefusedError(f"version {line.to_version} was made champion before models were hashed; confirm it")
    try:
        files = fetch(line.mlflow_run_id, line.model_hash)
        found = file_hashes(files.folder)
        if model_hash(found) != line.model_hash:
            raise ModelRefusedError(f"the files of version {line.to_version} are not those that were approved")
        scorer = Scorer.from_files(files.folder, threads=threads)
        if hashlib.sha256(scorer.model).hexdigest() != found[MODEL_FILE]:
            raise ModelRefusedError(f"the files of version {line.to_version} changed while they were read")
        if scorer.manifest.feature_set_hash != usecase.feature_set_hash:
            raise ModelRefusedError(
                f"version {line.to_version} was trained on feature set {scorer.manifest.feature_set_hash}, the "
                f"service has {usecase.feature_set_hash}; deploy the code that it was trained with, or retrain"
            )
        sample = msgspec.json.decode(files.golden.read_bytes(), type=GoldenSample)
        scored, expected = scorer.score(sample_rows(scorer.manifest.features, sample)), np.asarray(sample.probabilities)
        if not len(scored) or len(scored) != len(expected) or np.abs(scored - expected).max() > GOLDEN_TOLERANCE:
            raise ModelRefusedError(f"version {line.to_version} does not give the scores of its golden sample")
    except ModelRefusedError:
        raise
    except Exception as error:  # whatever a file that was tampered with makes the runtime raise
        raise ModelRefusedError(f"version {line.to_version} cannot be opened: {error}") from error
    return OpenModel(
        usecase, line.to_version, line.mlflow_run_id, line.model_hash, line.recorded_at, line.actor, scorer
    )


class ChampionKeeper:
    """Keeps the champion of a use case open; a bad one, or an outage, leaves the one before."""

    def __init__(self, usecase: UseCase, fetch: Fetch, *, threads: int = 1) -> None:
        self._usecase, self._fetch, self._threads = usecase, fetch, threads
        self.model: OpenModel | None = None
        # Why the ledger's champion is not the one that answers; empty if it is.
        self.trouble = ""
        self.refused = 0

    def follow(self, line: LedgerEntry | None) -> bool:
        """Open the champion of the ledger's line if it is a new one; return whether the model is another one now."""
        if line is None:
            self.trouble = f"use case {self._usecase.name} has no champion yet"
            return False
        if self.model is not None and self.model.is_of(line):
            self.trouble = ""
            return False
        try:
            self.model = open_model(self._usecase, line, self._fetch, threads=self._threads)
        except ModelRefusedError as error:
            self.trouble, self.refused = str(error), self.refused + 1
            return False
        self.trouble = ""
        return True


class SideKeeper:
    """Keeps a model open that stands beside the champion; one that cannot be opened is none, and is tried again later.

    `known` are open models that are used again, not opened twice.
    """

    def __init__(self, usecase: UseCase, fetch: Fetch, known: Callable[[], Iterable[OpenModel | None]], *,
                 threads: int = 1) -> None:  # fmt: skip
        self._usecase, self._fetch, self._known, self._threads = usecase, fetch, known, threads
        self.model: OpenModel | None = None
        self.trouble = ""
        self._again, self._wait = 0.0, _FIRST_WAIT
        self._refused: LedgerEntry | None = None

    def follow(self, line: LedgerEntry | None) -> None:
        """Open the model of a line, which takes seconds if it has to be fetched; no line, no model."""
        if line is None:
            self.model, self.trouble, self._refused = None, "", None
            return
        if self.model is not None and self.model.is_of(line):
            return
        if line != self._refused:
            self._again, self._wait = 0.0, _FIRST_WAIT
        elif time.monotonic() < self._again:
            return
        self.model = next((model for model in self._known() if model is not None and model.is_of(line)), None)
        try:
            self.model = self.model or open_model(self._usecase, line, self._fetch, threads=self._threads)
            self.trouble, self._refused = "", None
        except ModelRefusedError as error:
            self.trouble, self._refused = str(error), line
            self._again, self._wait = time.monotonic() + self._wait, min(2 * self._wait, _LONGEST_WAIT)


def fetch_beside(settings: Settings) -> Fetch:
    """Return what fetches models in a process of its own: MLflow is neither imported nor waited for here.

    A model that is in the cache, as approved, is fetched no more: so a restart needs no MLflow.
    """

    def fetch(run_id: str, expected: str) -> ModelFiles:
        files = ModelFiles(settings.home_path / "models" / run_id, settings.home_path / "golden" / f"{run_id}.json")
        cached = files.folder.is_dir() and model_hash(file_hashes(files.folder)) == expected
        if cached and files.golden.is_file():
            return files
        command = [sys.executable, "-m", "ml_assets.serving.fetch", run_id, expected, str(files.golden)]
        environment = {**os.environ, "ML_ASSETS_HOME": str(settings.home_path)}
        done = subprocess.run(  # noqa: S603 - our own module, and ids of the ledger
            command, env=environment, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing was said"]
            raise ModelChangedError(said[-1])
        return files

    return fetch
