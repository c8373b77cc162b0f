"""Who scores: promotion on evidence alone, approval by a second person, rollback; each a line of the ledger."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Engine

from ml_assets.database.promotions import (
    Actor,
    LedgerEntry,
    history,
    last_change,
    open_request,
    record,
    replaced_by,
    was_rolled_back,
    writing,
)
from ml_assets.learning.gate import Verdict
from ml_assets.lifecycle.evaluation import judge_now, read_evidence
from ml_assets.registry import CHALLENGER, CHAMPION, ModelRegistry, ModelVersion
from ml_assets.spec import UseCase

Outcome = Literal["promoted", "awaiting approval", "champion already", "refused"]


@dataclass(frozen=True)
class Promotion:
    """What became of a challenger: the gate's verdict, the outcome with its reason, and the ledger's line if any."""

    challenger: ModelVersion
    verdict: Verdict
    outcome: Outcome
    why: str
    entry: LedgerEntry | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether the alias `champion` and the ledger name the same version."""

    by_alias: int | None
    by_ledger: int | None

    @property
    def agrees(self) -> bool:
        """Whether they do; before the first promotion both are None."""
        return self.by_alias == self.by_ledger

    def __str__(self) -> str:
        if self.agrees:
            return f"alias and ledger agree on {_named(self.by_alias)}"
        return f"the alias champion is {_named(self.by_alias)}, the ledger says {_named(self.by_ledger)}"


def agreement(registry: ModelRegistry, where: Engine | Connection | str, usecase: UseCase) -> Agreement:
    """Return what alias and ledger say of the champion."""
    champion, line = registry.resolve(usecase.name, CHAMPION), last_change(where, usecase.name)
    return Agreement(champion.version if champion else None, line.to_version if line else None)


def promote_challenger(
    registry: ModelRegistry, engine: Engine | str, usecase: UseCase, actor: Actor, *, override: str = ""
) -> Promotion:
    """Judge the challenger anew from the evidence on its MLflow run, and make it champion if it passes.

    The verdict of an earlier step is not trusted: a later run of only this step would slip past it. Without evidence
    there is no promotion. In the tier `high` a promotion is only requested; `approve` by another person completes it.
    A person may `override` a no by giving the reason. A run never promotes what was rolled back.

    Raises:
        LookupError: there is no challenger, or its run carries no evidence.
        RuntimeError: a run acts while alias and ledger disagree.
        LedgerError: the ledger refuses the line.
    """
    challenger = registry.resolve(usecase.name, CHALLENGER)
    if challenger is None:
        raise LookupError(f"use case {usecase.name} has no challenger; run the job {usecase.name}_retrain first")
    evidence, evidence_hash = read_evidence(registry, usecase, challenger.run_id)
    with writing(engine, usecase.name) as ledger:
        now = agreement(registry, ledger, usecase)
        verdict = judge_now(registry, usecase, evidence)
        if not now.agrees and not override:
            raise RuntimeError(_disagreement(usecase, now))
        if now.agrees and now.by_alias == challenger.version:
            return Promotion(challenger, verdict, "champion already", f"version {challenger.version} is champion")
        if not verdict.passed and not override:
            failed = ", ".join(condition.name for condition in verdict.failures)
            return Promotion(challenger, verdict, "refused", f"the gate: {failed}")
        if was_rolled_back(ledger, usecase.name, challenger.version) and not (override and actor.is_person):
            why = f"version {challenger.version} was rolled back; only a person promotes it again, with a reason"
            return Promotion(challenger, verdict, "refused", why)
        reason = f"against the gate: {override}" if override and not verdict.passed else override or "the gate passed"

        def write(action: Literal["requested", "promoted"]) -> LedgerEntry:
            return record(
                ledger,
                usecase.name,
                action,
                from_version=now.by_alias,
                to_version=challenger.version,
                actor=actor,
                reason=reason,
                needs_approval=usecase.needs_approval,
                evidence_hash=evidence_hash,
            )

        if usecase.needs_approval:
            entry = open_request(ledger, usecase.name)
            if entry is None or (entry.to_version, entry.evidence_hash) != (challenger.version, evidence_hash):
                entry = write("requested")
            why = f"tier {usecase.tier}: another person than {entry.actor} approves it"
            return Promotion(challenger, verdict, "awaiting approval", why, entry)
        entry = write("promoted")
        # Last: if the alias cannot be moved, the line is taken back with the transaction.
        registry.promote(usecase.name, challenger.version, override=override if not verdict.passed else "")
        return Promotion(challenger, verdict, "promoted", reason, entry)


def approve(
    registry: ModelRegistry, engine: Engine | str, usecase: UseCase, actor: Actor, *, reason: str, decline: bool = False
) -> LedgerEntry:
    """Answer the open request: make the version champion, or decline it; return the ledger's line.

    Raises:
        LookupError: no request is open.
        RuntimeError: the evidence has changed since the request, or alias and ledger disagree.
        LedgerError: the approver is no person, or the one who asked.
    """
    with writing(engine, usecase.name) as ledger:
        request = open_request(ledger, usecase.name)
        if request is None:
            raise LookupError(
                f"use case {usecase.name}: nothing awaits approval; see `ml-assets history {usecase.name}`"
            )
        now = agreement(registry, ledger, usecase)
        if not now.agrees:
            raise RuntimeError(_disagreement(usecase, now))
        version = registry.version(usecase.name, request.to_version)
        evidence, evidence_hash = read_evidence(registry, usecase, version.run_id)
        if evidence_hash != request.evidence_hash:
            raise RuntimeError(
                f"use case {usecase.name}: the evidence of version {version.version} has changed since "
                f"{request.actor} asked for its promotion; ask again with `ml-assets promote {usecase.name}`"
            )
        entry = record(
            ledger,
            usecase.name,
            "declined" if decline else "promoted",
            from_version=now.by_alias,
            to_version=request.to_version,
            actor=actor,
            reason=reason,
            needs_approval=True,
            request_id=request.id,
            evidence_hash=evidence_hash,
        )
        if not decline:
            passed = judge_now(registry, usecase, evidence).passed
            registry.promote(usecase.name, request.to_version, override="" if passed else request.reason)
        return entry


def roll_back(
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    actor: Actor,
    *,
    reason: str,
    to_version: int | None = None,
) -> LedgerEntry:
    """Give the alias `champion` back to the version before, or to an earlier one, and return the ledger's line.

    If somebody has moved the alias past the ledger, it goes back to what the ledger says. A rollback needs one person,
    in every tier: it leads to a version that was approved before.

    Raises:
        LookupError: there is no champion, nothing before it, or `to_version` has never been champion.
    """
    with writing(engine, usecase.name) as ledger:
        now = agreement(registry, ledger, usecase)
        if now.by_ledger is None:
            raise LookupError(f"use case {usecase.name}: the ledger knows of no champion to roll back")
        if now.agrees:
            target = _former_champion(ledger, usecase, now.by_ledger, to_version)
        elif to_version in (None, now.by_ledger):
            target = now.by_ledger
        else:
            raise LookupError(f"use case {usecase.name}: {now}; roll back without a version first")
        entry = record(
            ledger,
            usecase.name,
            "rolled_back" if now.agrees else "restored",
            from_version=now.by_alias,
            to_version=target,
            actor=actor,
            reason=reason,
        )
        registry.promote(usecase.name, target)
        return entry


def _former_champion(ledger: Connection, usecase: UseCase, champion: int, wanted: int | None) -> int:
    """Return the version that the champion replaced, or the one that is wanted, if it has been champion."""
    if wanted is None:
        wanted = replaced_by(ledger, usecase.name, champion)
        if wanted is None:
            raise LookupError(
                f"use case {usecase.name}: version {champion} is the first champion, there is none to go back to; "
                "train and promote another"
            )
    former = {line.to_version for line in history(ledger, usecase.name, limit=10_000) if line.action == "promoted"}
    if wanted not in former - {champion}:
        known = ", ".join(map(str, sorted(former - {champion}))) or "none"
        raise LookupError(f"use case {usecase.name}: version {wanted} is no former champion; these are: {known}")
    return wanted


def _disagreement(usecase: UseCase, now: Agreement) -> str:
    return (
        f"use case {usecase.name}: {now}: somebody has moved one without the other. "
        f"`ml-assets rollback {usecase.name} --reason ...` gives the alias back to the ledger's version"
    )


def _named(version: int | None) -> str:
    return "none" if version is None else f"version {version}"
