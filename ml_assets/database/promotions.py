"""The promotion ledger: adding a line, and reading what it says."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

import psycopg
from sqlalchemy import Connection, Engine, Select, and_, exists, insert, or_, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import aliased

from ml_assets.database.connect import begin
from ml_assets.database.models import Promotion, UseCaseTier
from ml_assets.errors import StateError

Action = Literal["registered", "requested", "declined", "promoted", "rolled_back", "restored", "canary", "canary_ended"]
# After these the version is champion.
CHAMPION_ACTIONS: Final[tuple[Action, ...]] = ("promoted", "rolled_back", "restored")
# The newest of these says whether a canary runs.
CANARY_ACTIONS: Final[tuple[Action, ...]] = ("canary", "canary_ended", *CHAMPION_ACTIONS)
_MAY_NOT: Final = "use case {}: this login may not write to the ledger; members of the role ml_assets_load may"
_COLUMNS: Final = tuple(Promotion.__table__.columns)


class LedgerError(StateError):
    """The ledger refuses the line, for example an approval by the person who asked for it."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a person by name, or a Dagster run by its id."""

    name: str
    is_person: bool

    @classmethod
    def run(cls, run_id: str) -> Actor:
        """Return the actor of a Dagster run."""
        return cls(f"dagster run {run_id}", is_person=False)

    @classmethod
    def person(cls, name: str) -> Actor:
        """Return a person, in the one spelling that the ledger keeps: lower case, single spaces."""
        return cls(" ".join(unicodedata.normalize("NFKC", name).lower().split()), is_person=True)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A line of the ledger; see `ml_assets.database.models.Promotion`."""

    id: int
    use_case: str
    action: Action
    from_version: int | None
    to_version: int
    actor: str
    is_person: bool
    needs_approval: bool
    request_id: int | None
    evidence_hash: str | None
    reason: str
    recorded_at: datetime
    database_user: str
    mlflow_run_id: str | None
    model_hash: str | None
    from_run_id: str | None
    share: float | None

    @property
    def percent(self) -> str:
        """The share as people read it; empty if there is none."""
        return "" if self.share is None else f"{100 * self.share:g} %"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model a line is about: its number for people, and run and SHA-256 of files and evidence, which are it."""

    version: int
    mlflow_run_id: str
    model_hash: str
    evidence_hash: str


@contextmanager
def writing(where: Engine | str, use_case: str) -> Iterator[Connection]:
    """Yield a transaction that is alone in deciding on a use case's champion."""
    with begin(where) as connection:
        _hold(connection, use_case)
        yield connection


@contextmanager
def hold_ledger(where: Engine | str, use_cases: Iterable[str]) -> Iterator[None]:
    """Hold off every change of the champions of these use cases for the length of a block."""
    with begin(where) as connection:
        for use_case in sorted(set(use_cases)):
            _hold(connection, use_case)
        yield


def _hold(connection: Connection, use_case: str) -> None:
    try:
        connection.execute(text("SELECT public.promotions_hold(:use_case)"), {"use_case": use_case})
    except ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise LedgerError(_MAY_NOT.format(use_case)) from error
        raise


def declare_tiers(where: Engine | Connection | str, tiers: Mapping[str, str]) -> None:
    """Let the database know the tier of each use case, by which it judges promotions.

    Only who migrates may write them. Anybody else may ask that they are as the code says.

    Raises:
        LedgerError: the database knows another tier, or none, and this login may not write it.
    """
    with begin(where) as connection:
        known = {row[0]: row[1] for row in connection.execute(select(UseCaseTier.use_case, UseCaseTier.tier))}
        changed = {name: tier for name, tier in tiers.items() if known.get(name) != tier}
        if not changed:
            return
        if not connection.scalar(text("SELECT has_table_privilege('public.use_case_tiers', 'INSERT')")):
            said = "; ".join(
                f"{name} is {tier}, in the database {known.get(name, 'none')}" for name, tier in changed.items()
            )
            raise LedgerError(
                f"the database knows another tier than the code: {said}. Run `ml-assets migrate` with the role that "
                "migrates"
            )
        for name, tier in changed.items():
            upsert = postgresql.insert(UseCaseTier).values(use_case=name, tier=tier)
            connection.execute(upsert.on_conflict_do_update(index_elements=["use_case"], set_={"tier": tier}))


def record(
    connection: Connection,
    use_case: str,
    action: Action,
    *,
    model: ModelIdentity,
    actor: Actor,
    reason: str,
    request_id: int | None = None,
    share: float | None = None,
) -> LedgerEntry:
    """Add a line and return it, with what the database itself sets: champion before, approval, time and login.

    `share`, in (0, 1), is the share of the entities for which a canary answers; only it and a request for it have one.

    Raises:
        LedgerError: the database refuses it; the message says why.
    """
    values: dict[str, Any] = {
        "use_case": use_case,
        "action": action,
        "to_version": model.version,
        "mlflow_run_id": model.mlflow_run_id,
        "model_hash": model.model_hash,
        "evidence_hash": model.evidence_hash,
        "actor": actor.name,
        "is_person": actor.is_person,
        "request_id": request_id,
        "reason": reason,
        "share": share,
    }
    try:
        row = connection.execute(insert(Promotion).values(values).returning(*_COLUMNS)).one()
    except IntegrityError as error:
        raise LedgerError(f"use case {use_case}: {str(error.orig).splitlines()[0]}") from error
    except ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise LedgerError(_MAY_NOT.format(use_case)) from error
        raise
    return LedgerEntry(*row)


def history(
    where: Engine | Connection | str, use_case: str, *, limit: int = 100, actions: Collection[Action] = get_args(Action)
) -> list[LedgerEntry]:
    """Return the lines of a use case, newest first; those of some actions only, if they are given."""
    query = select(*_COLUMNS).where(Promotion.use_case == use_case, Promotion.action.in_(actions))
    return _lines(where, query.order_by(Promotion.id.desc()).limit(limit))


def line_of(where: Engine | Connection | str, number: int) -> LedgerEntry:
    """Return a line by its number."""
    (line,) = _lines(where, select(*_COLUMNS).where(Promotion.id == number))
    return line


def last_change(where: Engine | Connection | str, use_case: str) -> LedgerEntry | None:
    """Return the line that made the present champion, or None if the ledger knows of none."""
    return _first(where, _changes(use_case))


def in_force(where: Engine | Connection | str, use_case: str, run_id: str, moment: datetime) -> LedgerEntry | None:
    """Return the line by which the model of a run was champion at a moment, or None if another was.

    A line from before runs were recorded says whose it is by nothing but its version: it is taken as it is.
    """
    line = _first(where, _changes(use_case).where(Promotion.recorded_at <= moment))
    return line if line is not None and line.mlflow_run_id in (None, run_id) else None


def _changes(use_case: str) -> Select[Any]:
    return select(*_COLUMNS).where(Promotion.use_case == use_case, Promotion.action.in_(CHAMPION_ACTIONS))


def open_request(where: Engine | Connection | str, use_case: str) -> LedgerEntry | None:
    """Return the request that awaits approval, or None.

    A later request, or a change of champion, overtakes an earlier request: its evidence compares with another model.
    A canary overtakes none, unless a request was for it.
    """
    decided = select(*_COLUMNS).where(
        Promotion.use_case == use_case,
        Promotion.action.not_in(("registered", "canary_ended")),
        or_(Promotion.action != "canary", Promotion.request_id.is_not(None)),
    )
    newest = _first(where, decided)
    return newest if newest is not None and newest.action == "requested" else None


def running_canary(where: Engine | Connection | str, use_case: str) -> LedgerEntry | None:
    """Return the line of the canary that runs now, or None."""
    newest = newest_of_canaries(where, use_case)
    return newest if newest is not None and newest.action == "canary" else None


def newest_of_canaries(where: Engine | Connection | str, use_case: str) -> LedgerEntry | None:
    """Return the newest line that began or ended a canary of this champion, or None."""
    query = select(*_COLUMNS).where(Promotion.use_case == use_case, Promotion.action.in_(CANARY_ACTIONS))
    newest = _first(where, query)
    return newest if newest is not None and newest.action not in CHAMPION_ACTIONS else None


def canary_of(where: Engine | Connection | str, use_case: str, run_id: str, moment: datetime) -> LedgerEntry | None:
    """Return the line by which the model of a run was in canary last before a moment, or None."""
    query = select(*_COLUMNS).where(
        Promotion.use_case == use_case,
        Promotion.action == "canary",
        Promotion.mlflow_run_id == run_id,
        Promotion.recorded_at <= moment,
    )
    return _first(where, query)


def was_taken_back(where: Engine | Connection | str, use_case: str, run_id: str) -> bool:
    """Return whether the last that the ledger says of the model of a run is that the guard took back its canary."""
    query = select(*_COLUMNS).where(
        Promotion.use_case == use_case, Promotion.mlflow_run_id == run_id, Promotion.action.in_(CANARY_ACTIONS)
    )
    newest = _first(where, query)
    return newest is not None and newest.action == "canary_ended" and not newest.is_person


def take_back(where: Engine | str, canary: LedgerEntry, why: str) -> bool:
    """End a canary as the guard, for a login that may write nothing else; return False if it had ended already.

    Raises:
        LedgerError: this login may not do that either.
    """
    try:
        with begin(where) as connection:
            call = text("SELECT public.promotions_end_canary(:line, :why)")
            return connection.scalar(call, {"line": canary.id, "why": why}) is not None
    except ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise LedgerError(
                f"use case {canary.use_case}: this login may not end a canary; members of the role ml_assets_serve may"
            ) from error
        raise


def judged_beside(
    where: Engine | Connection | str,
    use_case: str,
    champion: LedgerEntry,
    asking: Collection[str] = ("requested", "canary"),
) -> LedgerEntry | None:
    """Return the newest line since this champion by which another model is asked for; else the predecessor's.

    `asking` are the actions that ask for one. What was only registered the gate has refused. None if there has been no
    other champion either.
    """
    others = select(*_COLUMNS).where(
        Promotion.use_case == use_case,
        Promotion.mlflow_run_id.is_not(None),
        Promotion.mlflow_run_id != champion.mlflow_run_id,
    )
    since = others.where(Promotion.action.in_(asking), Promotion.id > champion.id)
    return _first(where, since) or _first(where, others.where(Promotion.action.in_(CHAMPION_ACTIONS)))


@dataclass(frozen=True, slots=True)
class StageLines:
    """What the ledger says of a use case: lines of the champion, of the newest canary beside it, of the challenger."""

    champion: LedgerEntry | None
    canary: LedgerEntry | None
    challenger: LedgerEntry | None

    @property
    def running(self) -> LedgerEntry | None:
        """The line of the canary, if it has not ended."""
        return self.canary if self.canary is not None and self.canary.action == "canary" else None


def stage_lines(where: Engine | Connection | str, use_case: str) -> StageLines:
    """Return what the ledger says now of all stages."""
    champion = last_change(where, use_case)
    challenger = judged_beside(where, use_case, champion) if champion is not None else None
    return StageLines(champion, newest_of_canaries(where, use_case), challenger)


def registered(where: Engine | Connection | str, use_case: str, run_id: str) -> LedgerEntry | None:
    """Return the newest line by which the model of a run entered the ledger, or None."""
    query = select(*_COLUMNS).where(
        Promotion.use_case == use_case, Promotion.action == "registered", Promotion.mlflow_run_id == run_id
    )
    return _first(where, query)


def promotion_of(where: Engine | Connection | str, use_case: str, entry: LedgerEntry) -> LedgerEntry | None:
    """Return the newest promotion of the model that a line is about, or None."""
    promoted = select(*_COLUMNS).where(Promotion.use_case == use_case, Promotion.action == "promoted")
    if entry.mlflow_run_id is None:  # from before revision 0004
        return _first(where, promoted.where(Promotion.to_version == entry.to_version))
    same = Promotion.mlflow_run_id == entry.mlflow_run_id
    legacy = and_(
        Promotion.mlflow_run_id.is_(None),
        Promotion.to_version == entry.to_version,
        Promotion.evidence_hash == entry.evidence_hash,
    )
    return _first(where, promoted.where(or_(same, legacy)))


def champion_before(where: Engine | Connection | str, use_case: str, entry: LedgerEntry) -> LedgerEntry | None:
    """Return the line that made the champion before the one of `entry` was promoted; None if there was none."""
    promotion = promotion_of(where, use_case, entry)
    if promotion is None:
        return None
    return _first(where, _changes(use_case).where(Promotion.id < promotion.id))


def former_champions(where: Engine | Connection | str, use_case: str) -> list[LedgerEntry]:
    """Return the newest promotion of each version number, the highest first."""
    query = (
        select(*_COLUMNS)
        .ext(postgresql.distinct_on(Promotion.to_version))
        .where(Promotion.use_case == use_case, Promotion.action == "promoted")
        .order_by(Promotion.to_version.desc(), Promotion.id.desc())
    )
    return _lines(where, query)


def was_rolled_back(where: Engine | Connection | str, use_case: str, run_id: str) -> bool:
    """Return whether the last that the ledger says of the model of a run is that it was rolled back."""
    later = aliased(Promotion)
    again = exists().where(
        later.use_case == use_case,
        later.mlflow_run_id == run_id,
        later.id > Promotion.id,
        later.action.in_(CHAMPION_ACTIONS),
    )
    query = select(*_COLUMNS).where(
        Promotion.use_case == use_case, Promotion.action == "rolled_back", Promotion.from_run_id == run_id, ~again
    )
    return _first(where, query) is not None


def rolled_back_by_run(where: Engine | Connection | str, use_case: str, run_id: str) -> bool:
    """Return whether the model of a run has ever been rolled back by itself, without a person."""
    query = select(*_COLUMNS).where(
        Promotion.use_case == use_case,
        Promotion.action == "rolled_back",
        Promotion.from_run_id == run_id,
        Promotion.is_person.is_(False),
    )
    return _first(where, query) is not None


def _first(where: Engine | Connection | str, query: Select[Any]) -> LedgerEntry | None:
    return next(iter(_lines(where, query.order_by(Promotion.id.desc()).limit(1))), None)


def _lines(where: Engine | Connection | str, query: Select[Any]) -> list[LedgerEntry]:
    with begin(where) as connection:
        return [LedgerEntry(*row) for row in connection.execute(query)]
