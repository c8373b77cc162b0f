"""Alerts in PostgreSQL: the ledger, the last evaluations, and the outbox; see `models.AlertEvent` and the next two."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Select, and_, delete, exists, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import aliased

from ml_assets.database.connect import begin
from ml_assets.database.models import AlertEvaluation, AlertEvent, AlertOutbox
from ml_assets.errors import StateError

# Turns that no use case has: its name is a Python name.
EVALUATING: Final = "alerts: evaluate"
SENDING: Final = "alerts: send"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """A line of the ledger of alerts, without what the database itself sets."""

    what: str
    use_case: str
    rule: str
    rule_hash: str
    kind: str
    key: str
    severity: str
    message: str
    at: datetime
    event_id: str | None = None
    about: str | None = None
    until: datetime | None = None
    sink: str | None = None
    message_id: str | None = None
    actor: str | None = None
    reason: str | None = None
    files: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The last evaluation of a rule; `alerts` are those that it left, as JSON has them."""

    use_case: str
    rule: str
    rule_hash: str
    number: int
    state: str
    why: str
    found: int
    seconds: float
    evaluated_at: datetime
    deadline_at: datetime
    alerts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing is told of a rule until a time: of one key, or of all if it is empty."""

    use_case: str
    rule: str
    key: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that goes to a sink, not before a time."""

    event_id: str
    sink: str
    not_before: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that waits for a sink: its line, from when on it may be sent, and the message that it is in, if any."""

    event: EventRow
    due: datetime
    message_id: str | None
    form: str
    attempts: int


_EVENT: Final = tuple(AlertEvent.__table__.c[name] for name in EventRow.__dataclass_fields__)
_EVALUATION: Final = tuple(AlertEvaluation.__table__.c[name] for name in Evaluated.__dataclass_fields__)


def last_evaluations(where: Engine | str) -> dict[tuple[str, str], Evaluated]:
    """Return the last evaluation of each rule, by use case and rule."""
    with begin(where) as connection:
        rows = [Evaluated(**row) for row in connection.execute(select(*_EVALUATION)).mappings()]
    return {(row.use_case, row.rule): row for row in rows}


def keep_evaluation(
    where: Engine | str, made: Evaluated, events: Sequence[EventRow], deliveries: Sequence[Delivery]
) -> bool:
    """Write an evaluation, what it made happen and who is to be told, in one transaction.

    Return False, and write nothing, if another evaluator has written the evaluation of this number.
    """
    values = asdict(made)
    first = postgresql.insert(AlertEvaluation).values(values).on_conflict_do_nothing()
    its_own = and_(AlertEvaluation.use_case == made.use_case, AlertEvaluation.rule == made.rule)
    next_one = update(AlertEvaluation).where(its_own, AlertEvaluation.number == made.number - 1).values(values)
    with begin(where) as connection:
        written = (first if made.number == 1 else next_one).returning(AlertEvaluation.number)
        if connection.scalar(written) is None:
            return False
        if events:
            connection.execute(insert(AlertEvent), [asdict(event) for event in events])
        if deliveries:
            connection.execute(insert(AlertOutbox), _waiting(deliveries, "alert"))
    return True


def say_reported(where: Engine | str, line: EventRow) -> bool:
    """Write that people are to be sent a report; return False if this very one was written before."""
    written = postgresql.insert(AlertEvent).values(asdict(line)).on_conflict_do_nothing(index_elements=["event_id"])
    with begin(where) as connection:
        return connection.execute(written.returning(AlertEvent.event_id)).scalar() is not None


def put_deliveries(where: Engine | str, deliveries: Sequence[Delivery]) -> int:
    """Put reports into the outbox, each once for a sink; return how many were not there yet."""
    if not deliveries:
        return 0
    written = postgresql.insert(AlertOutbox).on_conflict_do_nothing().returning(AlertOutbox.event_id)
    with begin(where) as connection:
        return len(connection.execute(written, _waiting(deliveries, "report")).all())


def reported_since(where: Engine | str, since: datetime) -> list[EventRow]:
    """Return the lines since a time that say that people are to be sent a report; oldest first."""
    query = select(*_EVENT).where(AlertEvent.what == "reported", AlertEvent.at > since)
    return _events(where, query.order_by(AlertEvent.id))


def reported(where: Engine | str, use_case: str, report: str, key: str) -> list[EventRow]:
    """Return the lines that say that people are to be sent a report of a date; oldest first."""
    query = _of(select(*_EVENT), use_case, report).where(AlertEvent.what == "reported", AlertEvent.key == key)
    return _events(where, query.order_by(AlertEvent.id))


def _waiting(deliveries: Sequence[Delivery], form: str) -> list[dict[str, Any]]:
    state = {"state": "waiting", "message_id": None, "form": form, "attempts": 0, "why": ""}
    return [{**asdict(one), **state} for one in deliveries]


def open_alerts(where: Engine | str, use_case: str = "", rule: str = "") -> list[EventRow]:
    """Return the openings of all alerts that have not been closed, of a use case and a rule if given; oldest first."""
    closed = aliased(AlertEvent)
    query = select(*_EVENT).where(
        AlertEvent.what == "opened", ~exists().where(closed.what == "closed", closed.about == AlertEvent.event_id)
    )
    return _events(where, _of(query, use_case, rule).order_by(AlertEvent.id))


def ledger(where: Engine | str, use_case: str = "", rule: str = "", *, limit: int = 100) -> list[EventRow]:
    """Return the newest lines of the ledger, of a use case and a rule if given; newest first."""
    return _events(where, _of(select(*_EVENT), use_case, rule).order_by(AlertEvent.id.desc()).limit(limit))


def acknowledged(where: Engine | str) -> dict[str, str]:
    """Return who has acknowledged which alerts, by the id of their opening; those that are open alone."""
    closed = aliased(AlertEvent)
    query = select(AlertEvent.about, AlertEvent.actor).where(
        AlertEvent.what == "acknowledged", ~exists().where(closed.what == "closed", closed.about == AlertEvent.about)
    )
    with begin(where) as connection:
        return {about: actor for about, actor in connection.execute(query.order_by(AlertEvent.id)) if about and actor}


def silences(where: Engine | str, now: datetime) -> list[Silence]:
    """Return the silences that hold at a time: of each rule and key the newest that was said counts."""
    said = (AlertEvent.use_case, AlertEvent.rule, AlertEvent.key)
    newest = (
        select(*said, AlertEvent.until)
        .ext(postgresql.distinct_on(*said))
        .where(AlertEvent.what == "silenced")
        .order_by(*said, AlertEvent.id.desc())
        .subquery()
    )
    with begin(where) as connection:
        return [Silence(*row) for row in connection.execute(select(newest).where(newest.c.until > now))]


def say(where: Engine | str, line: EventRow) -> None:
    """Add a line that a person says: `acknowledged` or `silenced`.

    Raises:
        StateError: the database refuses it, or this login may not write to the ledger.
    """
    try:
        with begin(where) as connection:
            connection.execute(insert(AlertEvent).values(asdict(line)))
    except IntegrityError as error:
        raise StateError(str(error.orig).splitlines()[0], where=f"{line.use_case}/{line.rule}") from error
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == "42501":  # insufficient privilege
            raise StateError(
                "this login may not write to the ledger of alerts", to_do="members of the role ml_assets_load may"
            ) from error
        raise


def waiting(where: Engine | str, sink: str, now: datetime) -> list[Waiting]:
    """Return what may be sent to a sink now, in the order in which it happened."""
    query = (
        select(
            *_EVENT, AlertOutbox.not_before.label("due"), AlertOutbox.message_id.label("in_message"), AlertOutbox.form,
            AlertOutbox.attempts,
        )
        .join(AlertOutbox, AlertOutbox.event_id == AlertEvent.event_id)
        .where(AlertOutbox.sink == sink, AlertOutbox.state == "waiting", AlertOutbox.not_before <= now)
        .order_by(AlertEvent.id)
    )  # fmt: skip
    size = len(_EVENT)
    with begin(where) as connection:
        rows = connection.execute(query).all()
    names = EventRow.__dataclass_fields__
    return [Waiting(EventRow(**dict(zip(names, row[:size], strict=True))), *row[size:]) for row in rows]


def put_into_message(where: Engine | str, sink: str, message_id: str, form: str, event_ids: Collection[str]) -> None:
    """Decide that some events go to a sink in one message, before it is sent: a repeat then has the same id."""
    its_own = and_(AlertOutbox.sink == sink, AlertOutbox.event_id.in_(event_ids), AlertOutbox.message_id.is_(None))
    with begin(where) as connection:
        connection.execute(update(AlertOutbox).where(its_own).values(message_id=message_id, form=form))


def record_sending(
    where: Engine | str, sink: str, message_id: str, *, what: str, why: str, at: datetime, next_at: datetime | None
) -> None:
    """Write down what became of a message: `sent`, `failed` (tried again at `next_at`) or `given up`.

    The ledger has a line for each of its events; of a failure one, for the first.
    """
    state = {"sent": "sent", "given up": "given up"}.get(what, "waiting")
    its_own = and_(AlertOutbox.sink == sink, AlertOutbox.message_id == message_id, AlertOutbox.state == "waiting")
    with begin(where) as connection:
        of_message = select(AlertOutbox.event_id).where(its_own).with_for_update()
        events = _rows(connection.execute(select(*_EVENT).where(AlertEvent.event_id.in_(of_message))))
        if not events:
            return
        done: dict[str, Any] = {"state": state, "attempts": AlertOutbox.attempts + 1, "why": why}
        if next_at is not None:
            done["not_before"] = next_at
        connection.execute(update(AlertOutbox).where(its_own).values(done))
        lines = [
            asdict(event) | {
                "what": what, "about": event.event_id, "event_id": None, "sink": sink, "message_id": message_id,
                "at": at, "reason": why or None,
            }
            for event in (events[:1] if what == "failed" else events)
        ]  # fmt: skip
        connection.execute(insert(AlertEvent), lines)


def sent_since(where: Engine | str, sink: str, since: datetime) -> int:
    """Return how many messages about alerts a sink has taken since a time."""
    query = select(func.count(AlertEvent.message_id.distinct())).where(
        AlertEvent.what == "sent", AlertEvent.sink == sink, AlertEvent.at > since, AlertEvent.kind != "report"
    )
    with begin(where) as connection:
        return int(connection.execute(query).scalar_one())


def under_way(where: Engine | str, sink: str) -> int:
    """Return how many messages about alerts to a sink are composed and not sent, also those that are tried again."""
    query = select(func.count(AlertOutbox.message_id.distinct())).where(
        AlertOutbox.sink == sink, AlertOutbox.state == "waiting", AlertOutbox.form != "report"
    )
    with begin(where) as connection:
        return int(connection.execute(query).scalar_one())


def outbox_counts(where: Engine | str) -> dict[tuple[str, str], int]:
    """Return how many events are in each state at each sink: keys are sink and state."""
    query = select(AlertOutbox.sink, AlertOutbox.state, func.count()).group_by(AlertOutbox.sink, AlertOutbox.state)
    with begin(where) as connection:
        return {(sink, state): number for sink, state, number in connection.execute(query)}


def retire_outbox(where: Engine | str, *, before: datetime) -> int:
    """Delete from the outbox what was sent or given up, of events put there before a time; the ledger keeps it all."""
    old = and_(AlertOutbox.state != "waiting", AlertOutbox.put_at < before)
    with begin(where) as connection:
        return connection.execute(delete(AlertOutbox).where(old)).rowcount


def last_heartbeat(where: Engine | Connection | str) -> datetime | None:
    """Return when a rule was evaluated last, of all rules; None if none ever was."""
    with begin(where) as connection:
        return connection.execute(select(func.max(AlertEvaluation.evaluated_at))).scalar()


def _of(query: Select[Any], use_case: str, rule: str) -> Select[Any]:
    if use_case:
        query = query.where(AlertEvent.use_case == use_case)
    return query.where(AlertEvent.rule == rule) if rule else query


def _events(where: Engine | str, query: Select[Any]) -> list[EventRow]:
    with begin(where) as connection:
        return _rows(connection.execute(query))


def _rows(found: Any) -> list[EventRow]:
    return [EventRow(**row) for row in found.mappings()]
