"""The model that answers: the version that the ledger names, with the approved files, checked before it is used."""

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

# The largest difference allowed between a probability of the golden sample and the pipeline's.
GOLDEN_TOLERANCE = 1e-5
_FETCH_SECONDS = 180
# Seconds after which a refused model beside the champion is tried again: the first wait, doubled up to the longest.
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 300.0


class ModelRefusedError(StateError):
    """A model cannot be opened, or does not give the scores that it gave when it was approved; the one before stays."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The folder with the files of a model, and the file of its golden sample."""

    folder: Path
    golden: Path


# Fetches the model files of an MLflow run that have the given hash.
Fetch = Callable[[str, str], ModelFiles]


@dataclass(frozen=True)
class OpenModel:
    """A version of a use case's model, opened and checked. `since` and `by` come from its line in the ledger."""

    usecase: UseCase
    version: int
    run_id: str
    model_hash: str
    since: datetime
    by: str
    scorer: Scorer

    def is_of(self, line: LedgerEntry) -> bool:
        """Return whether a line names this model, even if it was opened for another line."""
        return (self.run_id, self.model_hash) == (line.mlflow_run_id, line.model_hash)

    @cached_property
    def explainer(self) -> Explainer:
        """The explainer that finds the reasons of its scores.

        Raises:
            ValueError: the model was saved without a background sample.
        """
        return Explainer(self.usecase, self.scorer)


def open_model(usecase: UseCase, line: LedgerEntry, fetch: Fetch, *, threads: int = 1) -> OpenModel:
    """Return the model that a line of the ledger names, opened in a separate ONNX session.

    Raises:
        ModelRefusedError: the model cannot be used; the text says why.
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
            raise ModelRefusedError(f"the files of version {line.to_version} changed while they were being read")
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
    except Exception as error:  # a file that was tampered with can make the runtime raise anything
        raise ModelRefusedError(f"version {line.to_version} cannot be opened: {error}") from error
    return OpenModel(
        usecase, line.to_version, line.mlflow_run_id, line.model_hash, line.recorded_at, line.actor, scorer
    )


class ChampionKeeper:
    """Keeps the champion of a use case open; if the next one is refused or cannot be fetched, the one before stays."""

    def __init__(self, usecase: UseCase, fetch: Fetch, *, threads: int = 1) -> None:
        self._usecase, self._fetch, self._threads = usecase, fetch, threads
        self.model: OpenModel | None = None
        # Why the ledger's champion is not the one that answers; empty if it is.
        self.trouble = ""
        self.refused = 0

    def follow(self, line: LedgerEntry | None) -> bool:
        """Open the champion that the ledger's line names if it is new; return whether the model has changed."""
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
    """Keeps a model beside the champion open; if it cannot be opened, there is no model, and it is tried again later.

    `known` returns the models that are open already; one of these is used instead of opening it twice.
    """

    def __init__(self, usecase: UseCase, fetch: Fetch, known: Callable[[], Iterable[OpenModel | None]], *,
                 threads: int = 1) -> None:  # fmt: skip
        self._usecase, self._fetch, self._known, self._threads = usecase, fetch, known, threads
        self.model: OpenModel | None = None
        self.trouble = ""
        self._again, self._wait = 0.0, _FIRST_WAIT
        self._refused: LedgerEntry | None = None

    def follow(self, line: LedgerEntry | None) -> None:
        """Open the model that a line names, which takes seconds if it has to be fetched; without a line, close it."""
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
    """Return a function that fetches models in a separate process, so that this one does not import MLflow.

    A model that is in the cache with the approved hash is not fetched again, so a restart does not need MLflow.
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
            said = done.stderr.strip().splitlines() or ["the process gave no reason"]
            raise ModelChangedError(said[-1])
        return files

    return fetch
