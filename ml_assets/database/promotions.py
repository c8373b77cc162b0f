"""The promotion ledger: adding a line, and reading what it says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.exc import IntegrityError

from ml_assets.database.connect import begin
from ml_assets.database.models import Promotion

Action = Literal["requested", "declined", "promoted", "rolled_back", "restored"]
# After these the version is champion.
CHAMPION_ACTIONS: Final[tuple[Action, ...]] = ("promoted", "rolled_back", "restored")
_LEDGER_LOCK: Final = 0x6C656467


class LedgerError(RuntimeError):
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
        """Return a person."""
        return cls(name, is_person=True)


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


@contextmanager
def writing(where: Engine | str, use_case: str) -> Iterator[Connection]:
    """Yield a transaction that is alone in deciding on a use case's champion.

    What is done to the model registry inside is undone in the ledger if it fails.
    """
    with begin(where) as connection:
        _lock(connection, use_case)
        yield connection


@contextmanager
def hold_ledger(where: Engine | str, use_cases: Iterable[str]) -> Iterator[None]:
    """Hold off every change of the champions of these use cases for the length of a block."""
    with begin(where) as connection:
        for use_case in sorted(set(use_cases)):
            _lock(connection, use_case)
        yield


def _lock(connection: Connection, use_case: str) -> None:
    connection.execute(
        text("SELECT pg_advisory_xact_lock(:lock, hashtext(:use_case))"), {"lock": _LEDGER_LOCK, "use_case": use_case}
    )


def record(
    connection: Connection,
    use_case: str,
    action: Action,
    *,
    from_version: int | None,
    to_version: int,
    actor: Actor,
    reason: str,
    needs_approval: bool = False,
    request_id: int | None = None,
    evidence_hash: str | None = None,
) -> LedgerEntry:
    """Add a line and return it, with the time and the login that the database saw.

    Raises:
        LedgerError: the database refuses it; the message says why.
    """
    values: dict[str, Any] = {
        "use_case": use_case,
        "action": action,
        "from_version": from_version,
        "to_version": to_version,
        "actor": actor.name,
        "is_person": actor.is_person,
        "needs_approval": needs_approval,
        "request_id": request_id,
        "evidence_hash": evidence_hash,
        "reason": reason,
    }
    try:
        row = connection.execute(insert(Promotion).values(values).returning(*Promotion.__table__.columns)).one()
    except IntegrityError as error:
        raise LedgerError(f"use case {use_case}: {str(error.orig).splitlines()[0]}") from error
    return LedgerEntry(*row)


def history(
    where: Engine | Connection | str, use_case: str, *, limit: int = 100, actions: Collection[Action] = get_args(Action)
) -> list[LedgerEntry]:
    """Return the lines of a use case, newest first; those of some actions only, if they are given."""
    query = (
        select(*Promotion.__table__.columns)
        .where(Promotion.use_case == use_case, Promotion.action.in_(actions))
        .order_by(Promotion.id.desc())
        .limit(limit)
    )
    if isinstance(where, Connection):
        return [LedgerEntry(*row) for row in where.execute(query)]
    with begin(where) as connection:
        return [LedgerEntry(*row) for row in connection.execute(query)]


def last_change(where: Engine | Connection | str, use_case: str) -> LedgerEntry | None:
    """Return the line that made the present champion, or None if the ledger knows of none."""
    return next(iter(history(where, use_case, limit=1, actions=CHAMPION_ACTIONS)), None)


def open_request(where: Engine | Connection | str, use_case: str) -> LedgerEntry | None:
    """Return the request that awaits approval, or None.

    A later request, or a change of champion, overtakes an earlier request: its evidence compares with another model.
    """
    for line in history(where, use_case, limit=10_000):
        if line.action == "requested":
            return line
        if line.action in CHAMPION_ACTIONS or line.action == "declined":
            return None
    return None


def replaced_by(where: Engine | Connection | str, use_case: str, version: int) -> int | None:
    """Return which version was champion before `version` became it by promotion; None if there was none.

    Raises:
        LookupError: the ledger has no promotion of that version.
    """
    for line in history(where, use_case, limit=10_000):
        if line.action == "promoted" and line.to_version == version:
            return line.from_version
    raise LookupError(f"use case {use_case}: the ledger has no promotion of version {version}")


def was_rolled_back(where: Engine | Connection | str, use_case: str, version: int) -> bool:
    """Return whether the last that the ledger says of a version is that it was rolled back."""
    for line in history(where, use_case, limit=10_000):
        if line.action in CHAMPION_ACTIONS and line.to_version == version:
            return False
        if line.action == "rolled_back" and line.from_version == version:
            return True
    return False
