"""The states of a rule and of its alerts, and what happens when it is evaluated once more.

A row that a rule finds is at first *pending*; when it has been found for as long as `for` asks, the alert *opens*; when
it has been gone for as long as `keep_firing_for` asks, it *closes*. A query that failed, or has no data, says nothing
of the alerts: they stay as they are, and the trouble of the rule is an alert of its own. So an error is never ok.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID, uuid5

import msgspec

from ml_assets.alerts.rule import Found, Rule

Kind = Literal["firing", "error", "no data"]
State = Literal["ok", "pending", "firing", "error", "no data", "not run"]
What = Literal["opened", "repeated", "closed"]

# A query may fail once, as when the server restarts: the trouble of a rule opens and closes after so long.
_TROUBLE: Final = timedelta(minutes=10)
_TICK: Final = timedelta(microseconds=1)
_NAMESPACE: Final = UUID("6d6c5f61-7373-6574-7320-616c65727473")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rule was evaluated: what it found, which may be nothing."""

    found: Sequence[Found]


@dataclass(frozen=True, slots=True)
class Failed:
    """The query failed, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class NoData:
    """What the rule looks at is not there."""


Result = Rows | Failed | NoData


class Alert(msgspec.Struct, frozen=True):
    """Something that a rule says now, or said a moment ago; pending while it has not been opened.

    `since` is when it was first found, `gone` when it was first not found again, `told` when people last heard of it.
    """

    kind: Kind
    key: str
    message: str
    since: datetime
    opened: str | None = None
    told: datetime | None = None
    gone: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What has happened to an alert, to be kept, and told if `tell`. `opened` is the id of the event that opened it."""

    id: str
    what: What
    kind: Kind
    key: str
    message: str
    at: datetime
    opened: str
    tell: bool


@dataclass(frozen=True, slots=True)
class People:
    """What people have said: which openings they acknowledged, and of which keys they want to hear nothing now."""

    acknowledged: Collection[str] = ()
    silenced: Callable[[str], bool] = lambda _: False


@dataclass(frozen=True, slots=True)
class Step:
    """An evaluation: the state of the rule, its alerts, what has happened, and the time that it counts for."""

    state: State
    alerts: tuple[Alert, ...]
    events: tuple[Event, ...]
    at: datetime


def step(
    rule: Rule,
    alerts: Collection[Alert],
    result: Result,
    at: datetime,
    *,
    last: datetime | None = None,
    before: State | None = None,
    people: People = People(),
) -> Step:
    """Return what an evaluation at a time makes of a rule whose last evaluation left some alerts.

    A clock that went back counts as one that stands: no two evaluations are of one time. After a pause longer than the
    rule's deadline, pending alerts start anew: nobody looked meanwhile. What opened in silence is told when the silence
    is over, if it is still there. Data that was never there, by the state `before`, is not missed.
    """
    at = max(at, last + _TICK) if last is not None else at
    paused = last is not None and at - last > rule.deadline
    found, unsaid = _found(result)
    kept: list[Alert] = []
    events: list[Event] = []
    for alert in alerts:
        message = found.pop((alert.kind, alert.key), None)
        if message is not None:
            again = at if paused and alert.opened is None else alert.since
            kept.append(_there(rule, msgspec.structs.replace(alert, message=message, since=again), at, events, people))
        elif alert.kind in unsaid:
            kept.append(alert)
        elif alert.opened is not None and (remains := _gone(rule, alert, at, events, people)) is not None:
            kept.append(remains)
    for (kind, key), message in found.items():
        if kind == "no data" and before in (None, "no data"):
            continue
        kept.append(_there(rule, Alert(kind, key, message, since=at), at, events, people))
    return Step(_state(result, kept), tuple(kept), tuple(events), at)


def hold_of(rule: Rule, kind: Kind) -> timedelta:
    """Return for how long something must be there until it opens."""
    return _TROUBLE if kind == "error" else rule.hold


def keep_of(rule: Rule, kind: Kind) -> timedelta:
    """Return for how long something must be gone until it closes."""
    return _TROUBLE if kind == "error" else rule.keep


def state_at(state: State | None, last: datetime | None, deadline: timedelta, now: datetime) -> State:
    """Return the state of a rule at a time: that of its last evaluation, unless the deadline for another has passed."""
    return "not run" if state is None or last is None or now - last > deadline else state


def event_id(*parts: str) -> str:
    """Return the id of an event: it follows from what the event is of."""
    return str(uuid5(_NAMESPACE, "\n".join(parts)))


def _found(result: Result) -> tuple[dict[tuple[Kind, str], str], frozenset[Kind]]:
    """Return the messages of what is there by kind and key, and the kinds of which the result says nothing."""
    match result:
        case Failed(why):
            return {("error", ""): f"the rule cannot be evaluated: {why}"}, frozenset({"firing", "no data"})
        case NoData():
            return {("no data", ""): "what the rule looks at is not there"}, frozenset({"firing"})
        case Rows(found):
            # Of two rows with one key the first counts.
            rows: dict[tuple[Kind, str], str] = {}
            for one in found:
                rows.setdefault(("firing", one.key), one.message)
            return rows, frozenset()


def _there(rule: Rule, alert: Alert, at: datetime, events: list[Event], people: People) -> Alert:
    alert = msgspec.structs.replace(alert, gone=None)
    silent = people.silenced(alert.key)
    if alert.opened is None:
        if at - alert.since < hold_of(rule, alert.kind):
            return alert
        opened = _event(rule, "opened", alert, at, tell=not silent)
        events.append(opened)
        return msgspec.structs.replace(alert, opened=opened.id, told=None if silent else at)
    due = alert.told is None or at - alert.told >= rule.repeat
    if due and not silent and alert.opened not in people.acknowledged:
        events.append(_event(rule, "repeated", alert, at, tell=True))
        return msgspec.structs.replace(alert, told=at)
    return alert


def _gone(rule: Rule, alert: Alert, at: datetime, events: list[Event], people: People) -> Alert | None:
    gone = alert.gone or at
    if at - gone < keep_of(rule, alert.kind):
        return msgspec.structs.replace(alert, gone=gone)
    heard_of = alert.told is not None and not people.silenced(alert.key)
    events.append(_event(rule, "closed", alert, at, tell=heard_of))
    return None


def _event(rule: Rule, what: What, alert: Alert, at: datetime, *, tell: bool) -> Event:
    """Return an event whose id follows from what it says: written twice it is the same."""
    made = event_id(rule.full_name, what, alert.kind, alert.key, at.isoformat())
    return Event(made, what, alert.kind, alert.key, alert.message, at, alert.opened or made, tell)


def _state(result: Result, alerts: Sequence[Alert]) -> State:
    if isinstance(result, Failed):
        return "error"
    if isinstance(result, NoData):
        return "no data"
    firing = [alert for alert in alerts if alert.kind == "firing"]
    if any(alert.opened is not None for alert in firing):
        return "firing"
    return "pending" if firing else "ok"
