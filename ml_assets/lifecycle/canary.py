"""A canary: a version that passed the gate answers for a share of the entities, until a person or the guard ends it.

Like a promotion it is a line of the ledger, and in the tier `high` another person approves it. The scoring service
reads the line; nothing in MLflow changes. The guard is `ml_assets.serving.canary`.
"""

from sqlalchemy import Engine

from ml_assets.database.promotions import Actor, LedgerEntry, last_change, open_request, record, running_canary
from ml_assets.errors import InputError, NotFoundError, StateError
from ml_assets.learning.gate import judge
from ml_assets.lifecycle.champion import settle
from ml_assets.lifecycle.evaluation import read_evidence
from ml_assets.lifecycle.promotion import Promotion
from ml_assets.lifecycle.registration import deciding, identify, identity_of, require_registered
from ml_assets.registry import CHALLENGER, ModelRegistry, ModelVersion
from ml_assets.spec import UseCase


def start_canary(
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    actor: Actor,
    *,
    share: float,
    version: int | None = None,
) -> Promotion:
    """Let a version, by default the challenger, answer for a share of the entities, if it passes the gate.

    A canary that runs already is replaced. In the tier `high` it is only requested; `approve` by another person starts
    it. The gate is judged on the version's own evidence, whoever is champion now: how it does beside this one is what a
    canary is to show. Nobody overrides the gate here.

    Raises:
        ValueError: `share` is not between 0 and 1.
        LookupError: there is no such version, no champion, no evidence, or the ledger does not know the version.
        StateError: the version is champion.
        ModelChangedError: its files are not those that were evaluated and registered.
        StrayAliasError: somebody has moved the alias `champion`.
        LedgerError: the ledger refuses the line.
    """
    if not 0 < share < 1:
        raise InputError(f"--share {share:g}: give a share of the entities between 0 and 1, for example 0.1")
    chosen = _version(registry, usecase, version)
    evidence, evidence_hash = read_evidence(registry, usecase, chosen.run_id)
    model = identify(registry, usecase, chosen, evidence, evidence_hash)
    settle(registry, engine, usecase)
    with deciding(engine, usecase) as ledger:
        champion = last_change(ledger, usecase.name)
        if champion is None:
            raise NotFoundError(
                f"use case {usecase.name} has no champion beside which a canary would run; "
                f"`ml-assets promote {usecase.name}`"
            )
        if champion.mlflow_run_id == chosen.run_id:
            raise StateError(f"use case {usecase.name}: version {chosen.version} is champion; choose with --version")
        verdict = judge(usecase.gate, evidence)
        if not verdict.passed:
            failed = ", ".join(condition.name for condition in verdict.failures)
            return Promotion(chosen, verdict, "refused", f"the gate: {failed}")
        require_registered(ledger, usecase, model)
        if usecase.needs_approval:
            entry = open_request(ledger, usecase.name)
            if entry is None or entry.share != share or identity_of(entry) != model:
                entry = record(
                    ledger, usecase.name, "requested", model=model, actor=actor, reason="the gate passed", share=share
                )
            why = f"tier {usecase.tier}: another person than {entry.actor} approves it"
            return Promotion(chosen, verdict, "awaiting approval", why, entry)
        entry = record(ledger, usecase.name, "canary", model=model, actor=actor, reason="the gate passed", share=share)
    return Promotion(chosen, verdict, "canary", f"answers for {entry.percent} of the entities", entry)


def end_canary(engine: Engine | str, usecase: UseCase, actor: Actor, *, reason: str) -> LedgerEntry:
    """End the canary that runs, in every tier by one person, and return the ledger's line.

    Raises:
        LookupError: none runs.
        LedgerError: the ledger refuses the line.
    """
    with deciding(engine, usecase) as ledger:
        running = running_canary(ledger, usecase.name)
        model = identity_of(running) if running else None
        if model is None:
            raise NotFoundError(f"use case {usecase.name}: no canary runs; see `ml-assets history {usecase.name}`")
        return record(ledger, usecase.name, "canary_ended", model=model, actor=actor, reason=reason)


def _version(registry: ModelRegistry, usecase: UseCase, version: int | None) -> ModelVersion:
    if version is not None:
        return registry.version(usecase.name, version)
    challenger = registry.resolve(usecase.name, CHALLENGER)
    if challenger is None:
        raise NotFoundError(f"use case {usecase.name} has no challenger; run the job {usecase.name}_retrain first")
    return challenger
