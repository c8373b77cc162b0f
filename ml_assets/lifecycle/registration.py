"""Registration: the challenger in MLflow with its model-risk pack, and in the ledger with the hashes of what it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from sqlalchemy import Connection, Engine

from ml_assets.database.monitoring import newest_shadow_verdict
from ml_assets.database.promotions import (
    Actor,
    LedgerEntry,
    LedgerError,
    ModelIdentity,
    declare_tiers,
    history,
    record,
    registered,
    writing,
)
from ml_assets.errors import NotFoundError
from ml_assets.learning.gate import Evidence
from ml_assets.lifecycle.evaluation import evaluated_challenger, judge_now, read_evidence
from ml_assets.lifecycle.model_risk import PACK_HTML, PACK_MARKDOWN, model_risk_pack
from ml_assets.registry import ModelChangedError, ModelRegistry, ModelVersion
from ml_assets.spec import UseCase


def register_challenger(
    registry: ModelRegistry, engine: Engine | str, usecase: UseCase, training_date: date, actor: Actor
) -> ModelVersion:
    """Register the model that the evaluation of this date chose, with the alias `challenger`, and in the ledger.

    Its model-risk pack is written first, as artifacts of its run: a model without a pack is not registered.

    Raises:
        LookupError: no candidate run of this date carries an evaluation.
        ModelChangedError: its files are not those that were evaluated.
        ml_assets.governance.PackError: a section of the pack would be empty.
    """
    if found := evaluated_challenger(registry, usecase, training_date):
        candidate, run = found
        write_pack(registry, engine, usecase, run.run_id)
        version = registry.register(
            usecase.name, run.run_id, tags={"candidate": candidate, "training_date": training_date.isoformat()}
        )
        enter(registry, engine, usecase, version, actor)
        return version
    raise NotFoundError(
        f"use case {usecase.name}: no evaluated candidate of {training_date}; materialize the evaluation first"
    )


def write_pack(registry: ModelRegistry, engine: Engine | str, usecase: UseCase, run_id: str) -> None:
    """Write the model-risk pack of the evaluated model of a run, with the verdict on it in the shadow if there is one.

    Raises:
        LookupError: the run carries no evidence.
        ml_assets.governance.PackError: a section of the pack would be empty.
    """
    evidence, _ = read_evidence(registry, usecase, run_id)
    pack = model_risk_pack(
        registry,
        usecase,
        run_id,
        evidence,
        judge_now(registry, engine, usecase, evidence),
        history(engine, usecase.name),
        newest_shadow_verdict(engine, usecase.name, run_id),
    )
    registry.write_evidence(run_id, PACK_MARKDOWN, pack.markdown)
    registry.write_evidence(run_id, PACK_HTML, pack.html)


def enter(registry: ModelRegistry, engine: Engine | str, usecase: UseCase, version: ModelVersion, actor: Actor) -> None:
    """Enter a registered model into the ledger, with the hashes of its files and of its evidence, once.

    Raises:
        LookupError: its run carries no evidence.
        ModelChangedError: its files are not those that were evaluated.
        LedgerError: its files are not those that the ledger knows.
    """
    evidence, evidence_hash = read_evidence(registry, usecase, version.run_id)
    model = identify(registry, usecase, version, evidence, evidence_hash)
    with deciding(engine, usecase) as ledger:
        known = registered(ledger, usecase.name, version.run_id)
        if known is None or identity_of(known) != model:
            record(ledger, usecase.name, "registered", model=model, actor=actor, reason="evaluated and registered")


@contextmanager
def deciding(engine: Engine | str, usecase: UseCase) -> Iterator[Connection]:
    """Yield the only transaction that decides on the champion, in a database that knows the use case's tier."""
    with writing(engine, usecase.name) as ledger:
        declare_tiers(ledger, {usecase.name: usecase.tier})
        yield ledger


def identify(
    registry: ModelRegistry, usecase: UseCase, version: ModelVersion, evidence: Evidence, evidence_hash: str
) -> ModelIdentity:
    """Return the identity of a version, by its files in the artifact store; they must be those that were evaluated."""
    found = registry.stored_hash(version.run_id)
    if evidence.model_hash != found:
        said = (evidence.model_hash or "none")[:12]
        raise ModelChangedError(
            f"use case {usecase.name}: the model of version {version.version}, MLflow run {version.run_id}, is not the "
            f"one that was evaluated (hash {found[:12]}, the evidence says {said}). Evaluate and register it again: "
            f"run the job {usecase.name}_retrain"
        )
    return ModelIdentity(version.version, version.run_id, found, evidence_hash)


def identity_of(line: LedgerEntry) -> ModelIdentity | None:
    """Return which model a line is about; None if it is from before models were hashed."""
    if line.mlflow_run_id is None or line.model_hash is None or line.evidence_hash is None:
        return None
    return ModelIdentity(line.to_version, line.mlflow_run_id, line.model_hash, line.evidence_hash)


def require_registered(ledger: Connection, usecase: UseCase, model: ModelIdentity) -> None:
    """Do nothing if the ledger knows this model with this evidence.

    Raises:
        LookupError: it does not, so its registration was not finished, or it was made by hand in MLflow.
        ModelChangedError: it knows another model or other evidence of that run.
    """
    known = registered(ledger, usecase.name, model.mlflow_run_id)
    register_again = f"materialize the asset `{usecase.name}/challenger` of its training date"
    if known is None:
        raise NotFoundError(
            f"use case {usecase.name}: version {model.version}, MLflow run {model.mlflow_run_id}, is not in the "
            f"ledger; {register_again}"
        )
    if known.model_hash != model.model_hash:
        raise ModelChangedError(
            f"use case {usecase.name}: the model of version {model.version} has changed since it was registered; "
            "restore its artifacts from a backup, or retrain"
        )
    if identity_of(known) != model:
        raise LedgerError(
            f"use case {usecase.name}: the evidence or the number of version {model.version} has changed since it was "
            f"registered; {register_again}"
        )
