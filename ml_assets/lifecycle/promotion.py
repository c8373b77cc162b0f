"""Which model scores: promotion on evidence alone, approval by a second person, rollback; each a line of the ledger.

A decision is a committed line of the ledger; the alias in MLflow follows it (`ml_assets.lifecycle.champion`), so a
process may die between the two at any step. `at_step` is called with the name of each step that has been reached.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Engine

from ml_assets.database.promotions import (
    Actor,
    LedgerEntry,
    ModelIdentity,
    champion_before,
    former_champions,
    last_change,
    open_request,
    promotion_of,
    record,
    was_rolled_back,
    was_taken_back,
)
from ml_assets.errors import NotFoundError, StateError
from ml_assets.learning.gate import Verdict
from ml_assets.lifecycle.champion import AGAINST_THE_GATE, ChampionError, StrayAliasError, agreement, settle
from ml_assets.lifecycle.evaluation import judge_now, read_evidence
from ml_assets.lifecycle.registration import deciding, identify, identity_of, require_registered
from ml_assets.registry import CHALLENGER, CHAMPION, ModelChangedError, ModelRegistry, ModelVersion
from ml_assets.spec import UseCase

__all__ = ["Promotion", "agreement", "approve", "promote_challenger", "roll_back"]

Outcome = Literal["promoted", "canary", "awaiting approval", "champion already", "refused"]
Step = Callable[[str], None]


@dataclass(frozen=True)
class Promotion:
    """The result for a version: the gate's verdict, the outcome with its reason, and the ledger's line if any."""

    challenger: ModelVersion
    verdict: Verdict
    outcome: Outcome
    why: str
    entry: LedgerEntry | None = None


def promote_challenger(
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    actor: Actor,
    *,
    override: str = "",
    at_step: Step = lambda _: None,
) -> Promotion:
    """Judge the challenger again from the evidence on its MLflow run, and make it champion if it passes.

    The verdict of an earlier step is not trusted: a later run of only this step would slip past it. Without evidence
    there is no promotion. In the tier `high` a promotion is only requested; `approve` by another person completes it.
    A person may override a failed gate by giving the reason as `override`. A run never promotes a version that was
    rolled back, or whose canary the guard took back.

    Raises:
        LookupError: there is no challenger, its run carries no evidence, or the ledger does not know it.
        ModelChangedError: its files are not those that were evaluated and registered.
        StrayAliasError: somebody has moved the alias `champion`, and no person overrides.
        LedgerError: the ledger refuses the line.
    """
    challenger = registry.resolve(usecase.name, CHALLENGER)
    if challenger is None:
        raise NotFoundError(f"use case {usecase.name} has no challenger; run the job {usecase.name}_retrain first")
    evidence, evidence_hash = read_evidence(registry, usecase, challenger.run_id)
    model = identify(registry, usecase, challenger, evidence, evidence_hash)
    by_person = bool(override) and actor.is_person
    settled = _settled_or_not(registry, engine, usecase, stray_too=by_person)
    with deciding(engine, usecase) as ledger:
        before = last_change(ledger, usecase.name)
        verdict = judge_now(registry, ledger, usecase, evidence)
        if settled and before is not None and before.mlflow_run_id == challenger.run_id:
            return Promotion(challenger, verdict, "champion already", f"version {challenger.version} is champion")
        if not verdict.passed and not override:
            failed = ", ".join(condition.name for condition in verdict.failures)
            return Promotion(challenger, verdict, "refused", f"the gate: {failed}")
        if was_rolled_back(ledger, usecase.name, challenger.run_id) and not by_person:
            why = f"version {challenger.version} was rolled back; only a person promotes it again, with a reason"
            return Promotion(challenger, verdict, "refused", why)
        if was_taken_back(ledger, usecase.name, challenger.run_id) and not by_person:
            why = f"the canary of version {challenger.version} was taken back; only a person promotes it, with a reason"
            return Promotion(challenger, verdict, "refused", why)
        require_registered(ledger, usecase, model)
        reason = f"{AGAINST_THE_GATE}{override}" if override and not verdict.passed else override or "the gate passed"
        if usecase.needs_approval:
            entry = open_request(ledger, usecase.name)
            if entry is None or entry.share is not None or identity_of(entry) != model:
                entry = record(ledger, usecase.name, "requested", model=model, actor=actor, reason=reason)
            why = f"tier {usecase.tier}: another person than {entry.actor} approves it"
            return Promotion(challenger, verdict, "awaiting approval", why, entry)
        entry = record(ledger, usecase.name, "promoted", model=model, actor=actor, reason=reason)
        at_step("before_ledger")
    at_step("after_ledger")
    settle(registry, engine, usecase, force=True, at_step=at_step)
    return Promotion(challenger, verdict, "promoted", reason, entry)


def approve(
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    actor: Actor,
    *,
    reason: str,
    decline: bool = False,
    at_step: Step = lambda _: None,
) -> LedgerEntry:
    """Answer the open request: make the version champion or a canary, or decline it; return the ledger's line.

    Raises:
        LookupError: no request is open, or its model is no longer registered.
        RuntimeError: evidence or model have changed since the request, or somebody has moved the alias `champion`.
        LedgerError: the approver is no person, the one who asked, or uses the login by which it was asked.
    """
    asked = open_request(engine, usecase.name)
    if asked is None:
        raise NotFoundError(f"use case {usecase.name}: nothing awaits approval; see `ml-assets history {usecase.name}`")
    command = "promote" if asked.share is None else "canary"
    again = f"ask again with `ml-assets {command} {usecase.name}`"
    model = identity_of(asked)
    if model is None:
        raise NotFoundError(
            f"use case {usecase.name}: the request of {asked.actor} is from before models were hashed; {again} "
            "(after a retraining, which enters the model into the ledger)"
        )
    if not decline:
        _settled_or_not(registry, engine, usecase)
        version = registry.version_of(usecase.name, model.mlflow_run_id)
        if version is None:
            raise NotFoundError(
                f"use case {usecase.name}: version {model.version}, of MLflow run {model.mlflow_run_id}, is no longer "
                f"in the registry: somebody has deleted it in MLflow. `ml-assets approve {usecase.name} --decline "
                f'--reason "..."` closes the request; then retrain, and {again}'
            )
        evidence, evidence_hash = read_evidence(registry, usecase, version.run_id)
        if evidence_hash != model.evidence_hash:
            raise StateError(
                f"use case {usecase.name}: the evidence of version {version.version} has changed since "
                f"{asked.actor} asked for it; retrain, and {again}"
            )
        found = identify(registry, usecase, version, evidence, evidence_hash)
        if found.model_hash != model.model_hash:
            raise ModelChangedError(
                f"use case {usecase.name}: the model of version {version.version} has changed since {asked.actor} "
                f"asked for it; restore its artifacts, or retrain, and {again}"
            )
    with deciding(engine, usecase) as ledger:
        entry = record(
            ledger,
            usecase.name,
            "declined" if decline else "promoted" if asked.share is None else "canary",
            model=model,
            actor=actor,
            reason=reason,
            request_id=asked.id,
            share=None if decline else asked.share,
        )
        at_step("before_ledger")
    at_step("after_ledger")
    if entry.action == "promoted":
        settle(registry, engine, usecase, force=True, at_step=at_step)
    return entry


def roll_back(
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    actor: Actor,
    *,
    reason: str,
    to_version: int | None = None,
    at_step: Step = lambda _: None,
) -> LedgerEntry | None:
    """Make the previous champion score again, or an earlier one, and return the ledger's line.

    Where somebody has moved the alias, or deleted the champion in MLflow, a rollback without a version (or to the
    champion's own) puts the ledger's champion back instead: the line is `restored`. If nobody has ever been approved it
    takes the alias away and returns None. A rollback needs one person, in every tier: it leads to a model that was
    approved before, by its run and hashes. A run may roll a model back once, outside the tier `high` (see
    `lifecycle.shadow`).

    Raises:
        LookupError: there is no champion, nothing before it, or `to_version` has never been champion.
        ModelChangedError: the files of the model are not those that were approved.
    """
    line = last_change(engine, usecase.name)
    if line is None:
        if registry.resolve(usecase.name, CHAMPION) is None:
            raise NotFoundError(f"use case {usecase.name}: the ledger knows of no champion to roll back")
        settle(registry, engine, usecase, force=True)
        return None
    try:
        settle(registry, engine, usecase)
        wrong = False
    except ChampionError:
        wrong = True
    restores = wrong and (line.mlflow_run_id is not None if to_version is None else to_version == line.to_version)
    target = line if restores else _former_champion(engine, usecase, line, to_version)
    model = _approved(registry, engine, usecase, target)
    with deciding(engine, usecase) as ledger:
        entry = record(
            ledger,
            usecase.name,
            "restored" if restores else "rolled_back",
            model=model,
            actor=actor,
            reason=reason,
        )
        at_step("before_ledger")
    at_step("after_ledger")
    settle(registry, engine, usecase, force=True, at_step=at_step)
    return entry


def _settled_or_not(
    registry: ModelRegistry, engine: Engine | str, usecase: UseCase, *, stray_too: bool = False
) -> bool:
    """Repair what a crash left, and return whether ledger and registry name one champion now.

    A champion that is gone from the registry, or was never hashed, is replaced by a promotion: that is the way out.

    Raises:
        StrayAliasError: somebody has moved the alias, and this is not `stray_too`.
    """
    try:
        settle(registry, engine, usecase)
    except StrayAliasError:
        if not stray_too:
            raise
        return False
    except ChampionError:
        return False
    return True


def _approved(registry: ModelRegistry, engine: Engine | str, usecase: UseCase, target: LedgerEntry) -> ModelIdentity:
    """Return a former champion, registered again if it was deleted in MLflow; its files must be those approved."""
    promotion = promotion_of(engine, usecase.name, target)
    if promotion is None or promotion.evidence_hash is None:
        raise NotFoundError(f"use case {usecase.name}: the ledger has no promotion of version {target.to_version}")
    run_id = target.mlflow_run_id
    if run_id is None:  # from before runs were recorded: the evidence tells whether it is still that model
        run_id = registry.version(usecase.name, target.to_version).run_id
        if read_evidence(registry, usecase, run_id)[1] != promotion.evidence_hash:
            raise ModelChangedError(
                f"use case {usecase.name}: version {target.to_version} in the registry, MLflow run {run_id}, is "
                "another model than the one that was promoted: its evidence is another. Choose another former "
                "champion, or retrain and promote"
            )
    version = registry.ensure_version(usecase.name, run_id)
    found = registry.stored_hash(run_id)
    if target.model_hash not in (None, found):
        raise ModelChangedError(
            f"use case {usecase.name}: the model of version {target.to_version}, MLflow run {run_id}, is not the one "
            "that was approved; restore its artifacts from a backup, choose another former champion with --to, or "
            "retrain"
        )
    return ModelIdentity(version.version, run_id, found, promotion.evidence_hash)


def _former_champion(engine: Engine | str, usecase: UseCase, champion: LedgerEntry, wanted: int | None) -> LedgerEntry:
    """Return the line of the champion that was before, or the promotion of the version that is wanted."""
    if wanted is None:
        before = champion_before(engine, usecase.name, champion)
        if before is None:
            raise NotFoundError(
                f"use case {usecase.name}: version {champion.to_version} is the first champion, there is none to go "
                "back to; train and promote another"
            )
        return before
    former = {
        line.to_version: line
        for line in former_champions(engine, usecase.name)
        if (line.to_version, line.evidence_hash) != (champion.to_version, champion.evidence_hash)
    }
    if wanted not in former:
        known = ", ".join(map(str, sorted(former))) or "none"
        raise NotFoundError(f"use case {usecase.name}: version {wanted} is no former champion; these are: {known}")
    return former[wanted]
