"""Runs, versions and aliases of models in MLflow.

MLflow is imported when the registry is first used: it takes seconds. Everything goes through `MlflowClient` with
explicit ids, so that two runs in one process cannot mix.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.errors import NotFoundError, StateError
from ml_assets.registry.integrity import (
    MODEL_HASH,
    ModelChangedError,
    changed_files,
    file_hashes,
    hash_tags,
    model_hash,
)
from ml_assets.registry.lineage import Lineage
from ml_assets.registry.reader import CandidateRun, DatabaseReader, ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

# MLflow reads these when it is imported. It would report its use to its makers, and draw bars into our logs.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

CHALLENGER = "challenger"
CHAMPION = "champion"
PREVIOUS_CHAMPION = "previous_champion"
GATE_OVERRIDE = "gate_override"
_MODEL = "model"
# Any number, the same in every process that makes MLflow's tables.
_MIGRATION_LOCK = 7_310_842
_process_lock = threading.Lock()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrackedTrial:
    """One set of parameters tried in a search: the metric on each fold, and their mean; None if it was given up."""

    number: int
    state: str
    metric: str
    parameters: Mapping[str, Any]
    folds: Sequence[float]
    value: float | None
    seconds: float


class ModelRegistry:
    """Tracking and registry of all use cases: an MLflow experiment and a registered model for each.

    `tracking_uri` is a database (`postgresql+psycopg2://...`) or an MLflow server, which `credentials` (user and
    password) open and which keeps the artifacts itself; without a server they lie below `artifact_root`, a folder or
    an `s3://` prefix. Downloaded models are kept in the folder `cache`.
    """

    def __init__(
        self,
        tracking_uri: str,
        artifact_root: str,
        *,
        cache: Path | None = None,
        credentials: tuple[str, str] = ("", ""),
    ) -> None:
        self._tracking_uri = tracking_uri
        self._credentials = credentials
        self._artifact_root = artifact_root.rstrip("/")
        self._cache = cache
        self._reader = None if self._is_server else DatabaseReader(tracking_uri)

    def prepare(self) -> None:
        """Make or migrate MLflow's tables."""
        assert self._client  # noqa: S101 - opening the client is what does it

    def log_candidate(
        self,
        use_case: str,
        candidate: str,
        *,
        training_date: date,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        plots: Mapping[str, bytes],
        tables: Mapping[str, str],
        model_folder: Path,
        lineage: Lineage,
        made_by: Mapping[str, str] | None = None,
    ) -> str:
        """Track a fitted candidate and return the id of its MLflow run.

        `plots` and `tables` map paths of artifacts to PNG bytes and to text; `model_folder` holds `model.onnx` and
        `manifest.json`. `made_by` maps what made the run to its address: links in the run's
        description and tags. A metric that is not a number cannot be logged: its name goes into the tag
        `undefined_metrics`. If anything fails, the run is marked as failed and is never found again.
        """
        from mlflow.entities import Metric, Param, RunTag

        tags = {
            "use_case": use_case,
            "candidate": candidate,
            "training_date": training_date.isoformat(),
            "mlflow.runName": f"{candidate} {training_date}",
            **lineage.tags(),
        }
        if undefined := sorted(name for name, value in metrics.items() if value != value):
            tags["undefined_metrics"] = ", ".join(undefined)
        links = {name: url for name, url in (made_by or {}).items() if url}
        now = time.time_ns() // 1_000_000
        run_id = str(self._client.create_run(self._experiment(use_case), start_time=now, tags=tags).info.run_id)
        try:
            self._client.log_batch(
                run_id,
                metrics=[Metric(name, float(value), now, 0) for name, value in metrics.items() if value == value],
                params=[Param(name, str(value)) for name, value in params.items()],
                tags=[
                    RunTag(
                        "mlflow.note.content", _note(f"{candidate} of {use_case}, trained as of {training_date}", links)
                    ),
                    *(RunTag(f"{name} url".lower().replace(" ", "_"), url) for name, url in links.items()),
                ],
            )
            with tempfile.TemporaryDirectory() as folder:
                _write_artifacts(Path(folder), plots, tables)
                _save_model(model_folder, Path(folder) / _MODEL)
                files = file_hashes(Path(folder) / _MODEL)
                self._client.log_artifacts(run_id, folder)
            self.tag_run(run_id, hash_tags(files))
        except BaseException:
            self._client.set_terminated(run_id, "FAILED")
            raise
        self._client.set_terminated(run_id, "FINISHED")
        return run_id

    def candidate_runs(self, use_case: str, training_date: date) -> dict[str, CandidateRun]:
        """Return the newest finished run of each candidate for a training date, by candidate."""
        runs = self._client.search_runs(
            [self._experiment(use_case)],
            filter_string=f"tags.training_date = '{training_date}' and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time ASC"],
        )
        return {run.data.tags["candidate"]: _candidate_run(run) for run in runs}

    def log_trials(self, use_case: str, parent_run_id: str, trials: Sequence[TrackedTrial]) -> None:
        """Track the trials of a search as child runs of the candidate's run, where MLflow's UI compares them.

        A trial has its parameters, its metric fold by fold as the steps of `fold_<metric>`, and the mean as `<metric>`
        unless it was given up. Child runs have no training date, so that they are never taken for a candidate.
        """
        from mlflow.entities import Metric, Param

        experiment = self._experiment(use_case)
        now = time.time_ns() // 1_000_000
        for trial in trials:
            tags = {
                "mlflow.parentRunId": parent_run_id,
                "mlflow.runName": f"trial {trial.number}",
                "use_case": use_case,
                "trial_state": trial.state,
            }
            run_id = str(self._client.create_run(experiment, start_time=now, tags=tags).info.run_id)
            measured = [Metric(f"fold_{trial.metric}", value, now, step) for step, value in enumerate(trial.folds)]
            if trial.value is not None:
                measured.append(Metric(trial.metric, trial.value, now, 0))
            given = [Param(name, str(value)) for name, value in trial.parameters.items()]
            self._client.log_batch(run_id, metrics=[m for m in measured if m.value == m.value], params=given)
            ended = now + int(trial.seconds * 1000)
            self._client.set_terminated(run_id, "FINISHED" if trial.state == "complete" else "KILLED", ended)

    def experiment_id(self, use_case: str) -> str:
        """Return the id of the experiment of a use case; its runs have it in their address."""
        return self._experiment(use_case)

    def trials(self, use_case: str, parent_run_id: str) -> list[CandidateRun]:
        """Return the child runs of a candidate's run, in the order of their trials."""
        found = self._client.search_runs(
            [self._experiment(use_case)],
            filter_string=f"tags.`mlflow.parentRunId` = '{parent_run_id}'",
            order_by=["attributes.start_time ASC"],
        )
        return sorted(map(_candidate_run, found), key=lambda run: int(run.tags["mlflow.runName"].split()[-1]))

    def run(self, run_id: str) -> CandidateRun:
        """Return a run.

        Raises:
            LookupError: there is no such run.
        """
        if self._reader is not None:
            if (found := self._reader.run(run_id)) is None:
                raise NotFoundError(f"there is no MLflow run {run_id}")
            return found
        from mlflow.exceptions import MlflowException

        try:
            return _candidate_run(self._client.get_run(run_id))
        except MlflowException as error:
            raise NotFoundError(f"there is no MLflow run {run_id}") from error

    def register(self, use_case: str, run_id: str, *, tags: Mapping[str, str]) -> ModelVersion:
        """Register the model of a run with the alias `challenger`; the version it already has, if it has one."""
        version = self.ensure_version(use_case, run_id, tags=tags)
        self._client.set_registered_model_alias(use_case, CHALLENGER, str(version.version))
        return version

    def ensure_version(self, use_case: str, run_id: str, *, tags: Mapping[str, str] | None = None) -> ModelVersion:
        """Return the version that the model of a run has, registered if need be; its tags name the files' hashes.

        Raises:
            LookupError: the run is not there, or has been deleted.
            ModelChangedError: the model's files are not there, or not those that the run has logged.
        """
        if (version := self.version_of(use_case, run_id)) is not None:
            return version
        self._active_run(run_id)
        files = self.stored_files(run_id)
        self._ensure_model(use_case)
        run = self._client.get_run(run_id)
        made = self._client.create_model_version(
            use_case, f"{run.info.artifact_uri}/{_MODEL}", run_id=run_id, tags={**(tags or {}), **hash_tags(files)}
        )
        return _model_version(made)

    def resolve(self, use_case: str, alias: str) -> ModelVersion | None:
        """Return the version that an alias stands for now, or None. Use it and record it; do not resolve twice."""
        if self._reader is not None:
            return self._reader.by_alias(use_case, alias)
        if (model := self._model(use_case)) is None or alias not in model.aliases:
            return None
        return self.version(use_case, int(model.aliases[alias]))

    def version_of(self, use_case: str, run_id: str) -> ModelVersion | None:
        """Return the version that is the model of a run, or None. Numbers come again once a model has been deleted."""
        if self._reader is not None:
            return self._reader.by_run(use_case, run_id)
        version = self._version_of(use_case, run_id)
        return None if version is None else _model_version(version)

    def remove_alias(self, use_case: str, alias: str) -> None:
        """Take an alias away, if it is there."""
        if (model := self._model(use_case)) is not None and alias in model.aliases:
            self._client.delete_registered_model_alias(use_case, alias)

    def version(self, use_case: str, version: int) -> ModelVersion:
        """Return a version.

        Raises:
            LookupError: the use case has no such version.
        """
        from mlflow.exceptions import MlflowException

        try:
            return _model_version(self._client.get_model_version(use_case, str(version)))
        except MlflowException as error:
            known = ", ".join(str(v.version) for v in self.versions(use_case)) or "none"
            raise NotFoundError(f"use case {use_case} has no model version {version}; it has {known}") from error

    def versions(self, use_case: str) -> list[ModelVersion]:
        """Return all versions, the newest first."""
        found = self._client.search_model_versions(f"name = '{use_case}'")
        return sorted((_model_version(version) for version in found), key=lambda version: -version.version)

    def trained_data_versions(self, use_case: str) -> list[str]:
        """Return, for each registered version, the Delta versions that it was trained on: JSON, by table.

        A version whose run has been deleted for good (`mlflow gc`) pins nothing: what it was trained on is not known.
        """
        found = []
        for version in self.versions(use_case):
            try:
                tags = self.run(version.run_id).tags
            except LookupError:
                _log.warning(
                    "use case %s: the MLflow run %s of version %d is gone; its training data are not kept for it",
                    use_case, version.run_id, version.version,
                )  # fmt: skip
                continue
            if "data_versions" in tags:
                found.append(tags["data_versions"])
        return found

    def promote(self, use_case: str, version: int, *, override: str = "") -> ModelVersion:
        """Give a version the alias `champion`, and note on it which one was champion before.

        `override` is the reason of a person who promotes against the gate, also noted.

        Raises:
            LookupError: the use case has no such version.
        """
        promoted = self.version(use_case, version)
        before = self.resolve(use_case, CHAMPION)
        if before is not None and before.version == version:
            return promoted
        # The note first: an alias that has moved without it would have lost the way back.
        self._client.set_model_version_tag(
            use_case, str(version), PREVIOUS_CHAMPION, str(before.version) if before else "none"
        )
        if override:
            self._client.set_model_version_tag(use_case, str(version), GATE_OVERRIDE, override)
        self._client.set_registered_model_alias(use_case, CHAMPION, str(version))
        return self.version(use_case, version)

    def download_model(self, run_id: str, expected: str | None = None) -> Path:
        """Return a local folder with the model of a run, whose hash is `expected`; if None, what the run has logged.

        A copy in the cache that is another is fetched again. Runs from before hashes were logged are not compared.

        Raises:
            ModelChangedError: the model in the artifact store is another, or is not there.
        """
        if expected is None:
            expected = self.run(run_id).tags.get(MODEL_HASH)
        if self._cache is None:
            return self._checked(run_id, self._download(run_id, None), expected)
        folder = self._cache / run_id
        if folder.is_dir() and (expected is None or model_hash(file_hashes(folder)) == expected):
            return folder
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache) as part:
            fetched = self._checked(run_id, self._download(run_id, part), expected)
            if folder.is_dir():
                _log.warning("the cached model %s was not what was registered; it is fetched again", folder)
                with suppress(OSError):  # another process was faster
                    folder.replace(Path(part) / "replaced")
            try:
                fetched.replace(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
                self._checked(run_id, folder, expected)
        return folder

    def stored_files(self, run_id: str) -> dict[str, str]:
        """Return the SHA-256 of each file of a run's model, read from the artifact store and not from the cache.

        Raises:
            ModelChangedError: they are not those that the run has logged, or not there.
        """
        with tempfile.TemporaryDirectory() as folder:
            expected = self.run(run_id).tags.get(MODEL_HASH)
            return file_hashes(self._checked(run_id, self._download(run_id, folder), expected))

    def stored_hash(self, run_id: str) -> str:
        """Return one hash over the files of a run's model in the artifact store; raises as `stored_files` does."""
        return model_hash(self.stored_files(run_id))

    def _download(self, run_id: str, folder: str | None) -> Path:
        from mlflow.exceptions import MlflowException

        try:
            return Path(self._client.download_artifacts(run_id, _MODEL, folder))
        except (MlflowException, FileNotFoundError) as error:
            raise ModelChangedError(
                f"the model of MLflow run {run_id} cannot be read from the artifact store: {error}. Restore its "
                "artifacts from a backup, or let another version score: `ml-assets rollback <use case> --to <version>`"
            ) from error

    def _checked(self, run_id: str, folder: Path, expected: str | None) -> Path:
        files = file_hashes(folder)
        if expected is not None and model_hash(files) != expected:
            raise ModelChangedError(
                f"the model of MLflow run {run_id} is not the one that was registered: "
                f"{changed_files(files, self.run(run_id).tags)} differ (hash {model_hash(files)[:12]}, expected "
                f"{expected[:12]}). Nothing is scored or promoted with it. "
                "Restore its artifacts from a backup, or let another version score: "
                "`ml-assets rollback <use case> --to <version>`"
            )
        return folder

    def _active_run(self, run_id: str) -> None:
        """Do nothing if the run is there.

        Raises:
            LookupError: it is gone, or marked as deleted.
        """
        from mlflow.exceptions import MlflowException

        try:
            if self._client.get_run(run_id).info.lifecycle_stage == "active":
                return
        except MlflowException as error:
            raise NotFoundError(
                f"the MLflow run {run_id} is gone; let another version score: `ml-assets rollback <use case> --to "
                "<version>`, or retrain and `ml-assets promote <use case>`"
            ) from error
        raise NotFoundError(
            f"the MLflow run {run_id} has been deleted; bring it back with `mlflow runs restore --run-id {run_id}`"
        )

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run, in place of earlier ones of the same name."""
        for name, value in tags.items():
            self._client.set_tag(run_id, name, value)

    def fetch_model(self, run_id: str, folder: Path) -> Path:
        """Return where in `folder` the model of a run lies, fetched anew from the artifacts: not from the cache."""
        return self._checked(run_id, self._download(run_id, str(folder)), self.run(run_id).tags.get(MODEL_HASH))

    def write_evidence(self, run_id: str, name: str, text: str) -> None:
        """Write a text as an artifact of a run, in place of an earlier one."""
        self._client.log_text(run_id, text, name)

    def read_evidence(self, run_id: str, name: str) -> str:
        """Return the text of an artifact of a run.

        Raises:
            FileNotFoundError: the run has no such artifact.
        """
        if name not in {artifact.path for artifact in self._client.list_artifacts(run_id)}:
            raise FileNotFoundError(f"the MLflow run {run_id} has no artifact {name}")
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")

    @cached_property
    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        user, password = self._credentials
        if user and self._is_server:
            # MLflow's client takes them from nowhere else.
            os.environ.update(MLFLOW_TRACKING_USERNAME=user, MLFLOW_TRACKING_PASSWORD=password)
        with _one_at_a_time(self._tracking_uri):
            client = MlflowClient(tracking_uri=self._tracking_uri, registry_uri=self._tracking_uri)
            client.search_experiments(max_results=1)  # the first call makes or migrates the tables
            client.search_registered_models(max_results=1)
        return client

    @property
    def _is_server(self) -> bool:
        return self._tracking_uri.startswith(("http://", "https://"))

    def require_experiment(self, use_case: str) -> None:
        """Make the experiment of a use case if need be, before work begins that is to be tracked in it.

        Raises:
            RuntimeError: somebody has deleted it; the message says how it comes back.
        """
        self._experiment(use_case)

    def _experiment(self, use_case: str) -> str:
        """Return the id of a use case's experiment, made if need be."""
        from mlflow.exceptions import MlflowException

        if (found := self._client.get_experiment_by_name(use_case)) is None:
            try:
                location = None if self._is_server else f"{self._artifact_root}/{use_case}"
                return str(self._client.create_experiment(use_case, location))
            except MlflowException:  # another process was faster
                if (found := self._client.get_experiment_by_name(use_case)) is None:
                    raise
        if found.lifecycle_stage != "active":
            raise StateError(
                f"the MLflow experiment {use_case} (id {found.experiment_id}) has been deleted; bring it back with "
                f"`mlflow experiments restore --experiment-id {found.experiment_id}`, with MLFLOW_TRACKING_URI set to "
                "the address of MLflow"
            )
        return str(found.experiment_id)

    def _model(self, use_case: str) -> Any:
        """Return MLflow's registered model, or None."""
        found = self._client.search_registered_models(f"name = '{use_case}'", max_results=1)
        return found[0] if found else None

    def _ensure_model(self, use_case: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(use_case)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _version_of(self, use_case: str, run_id: str) -> MlflowVersion | None:
        found = self._client.search_model_versions(f"name = '{use_case}' and run_id = '{run_id}'")
        return found[0] if found else None


def _candidate_run(run: Run) -> CandidateRun:
    return CandidateRun(str(run.info.run_id), dict(run.data.metrics), dict(run.data.tags), dict(run.data.params))


def _model_version(version: MlflowVersion) -> ModelVersion:
    return ModelVersion(str(version.name), int(version.version), str(version.run_id), dict(version.tags))


def _write_artifacts(folder: Path, plots: Mapping[str, bytes], tables: Mapping[str, str]) -> None:
    for name, content in {**plots, **{path: text.encode() for path, text in tables.items()}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _save_model(source: Path, target: Path) -> None:
    """Save the model as MLflow's ONNX flavour, so that its tools know it, with our manifest beside it."""
    import mlflow.onnx
    import onnx

    mlflow.onnx.save_model(
        onnx.load(str(source / "model.onnx")),
        str(target),
        # Given, or MLflow would run the model in a subprocess to find out what it imports.
        pip_requirements=["onnxruntime"],
        save_as_external_data=False,
    )
    shutil.copy(source / "manifest.json", target / "manifest.json")


@contextmanager
def _one_at_a_time(tracking_uri: str) -> Iterator[None]:
    """Hold off other processes while MLflow makes its tables: it does so without a lock of its own."""
    if not tracking_uri.startswith("postgresql"):
        yield
        return
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with _process_lock, create_engine(tracking_uri, poolclass=NullPool).connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        yield  # the lock goes with the connection


def _note(text: str, links: Mapping[str, str]) -> str:
    """Return a description with links, in Markdown."""
    return "\n\n".join([text, *([" · ".join(f"[{name}]({url})" for name, url in links.items())] if links else [])])
