"""Messages of alerts on their way: what is composed, sent, tried again and given up. Every step is written down first.

Which events a message carries is decided, and committed, before it is sent. So after a crash at any point each event
is sent at least once, and what is sent again has the id of the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import cast
from uuid import uuid4

from sqlalchemy import Engine

from ml_assets.alerts.compose import Bundle, Cause, Form, Notice, compose
from ml_assets.alerts.message import Message, write_message
from ml_assets.alerts.retry import Outcome, next_try
from ml_assets.alerts.routes import Routing, Sink
from ml_assets.alerts.rule import Rule, Severity
from ml_assets.database.alerts import (
    SENDING,
    Waiting,
    open_alerts,
    put_into_message,
    record_sending,
    sent_since,
    under_way,
    waiting,
)
from ml_assets.lifecycle.alerts import alone
from ml_assets.senders import send

_HOUR = timedelta(hours=1)
Send = Callable[[Sink, str, Message], Outcome]


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message: `what` is `sent`, `failed` or `given up`, and `why` what the sink said."""

    sink: str
    message_id: str
    subject: str
    events: int
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Office:
    """What is needed to send: routes, secrets by sink, rules with the assets that they are about, and the asset graph.

    `upstream` has all assets that an asset is made from; `runbooks` is the address of the page of runbooks.
    """

    routing: Routing
    secrets: Mapping[str, str]
    rules: Mapping[tuple[str, str], tuple[Rule, tuple[str, ...]]]
    upstream: Mapping[str, Set[str]]
    runbooks: str
    send: Send = send


def send_alerts(
    engine: Engine, office: Office, clock: Callable[[], datetime], *, at_step: Callable[[str], None] = lambda _: None
) -> list[Sent]:
    """Send what is due to all sinks, each by itself, one sender at a time; return what became of each message.

    Raises:
        StateError: another process is sending.
    """
    if not office.routing.sinks:
        return []
    with alone(engine, SENDING), ThreadPoolExecutor(len(office.routing.sinks)) as pool:
        made = pool.map(lambda sink: _serve(engine, office, sink, clock, at_step), office.routing.sinks)
        return [sent for one in made for sent in one]


def _serve(
    engine: Engine, office: Office, sink: str, clock: Callable[[], datetime], at_step: Callable[[str], None]
) -> list[Sent]:
    """Send what is due to a sink, the oldest message first, until one fails: a sink that hangs costs a round once."""
    _put_into_messages(engine, office, sink, clock())
    at_step("composed")
    made = []
    for message_id, events in _messages(waiting(engine, sink, clock())):
        bundle = Bundle(cast(Form, events[0].form), tuple(_notice(office, one) for one in events))
        message = write_message(message_id, bundle, runbooks=office.runbooks)
        outcome = office.send(office.routing.sinks[sink], office.secrets.get(sink, ""), message)
        at_step("sent")
        made.append(_record(engine, sink, message, events, outcome, clock()))
        at_step("recorded")
        if not outcome.sent and not outcome.refused:
            break
    return made


def _put_into_messages(engine: Engine, office: Office, sink: str, now: datetime) -> None:
    loose = [one for one in waiting(engine, sink, now) if one.message_id is None]
    if not loose:
        return
    of_sink = office.routing.sinks[sink]
    bundles = compose(
        [_notice(office, one) for one in loose],
        upstream=office.upstream,
        open_now=_causes(engine, office),
        budget=of_sink.per_hour,
        sent=sent_since(engine, sink, now - _HOUR) + under_way(engine, sink),
        now=now,
    )
    for bundle in bundles:
        put_into_message(engine, sink, str(uuid4()), bundle.form, [one.event_id for one in bundle.notices])


def _messages(found: Sequence[Waiting]) -> Iterable[tuple[str, list[Waiting]]]:
    composed = [one for one in found if one.message_id is not None]
    order = {one.message_id: number for number, one in reversed(list(enumerate(composed)))}
    composed.sort(key=lambda one: order[one.message_id])
    return [(str(name), list(events)) for name, events in groupby(composed, key=lambda one: one.message_id)]


def _record(
    engine: Engine, sink: str, message: Message, events: Sequence[Waiting], outcome: Outcome, now: datetime
) -> Sent:
    wait = None if outcome.sent else next_try(outcome, events[0].attempts + 1)
    what = "sent" if outcome.sent else "failed" if wait is not None else "given up"
    record_sending(
        engine, sink, message.id, what=what, why=outcome.why, at=now, next_at=now + wait if wait is not None else None
    )
    return Sent(sink, message.id, message.subject, len(events), what, outcome.why)


def _causes(engine: Engine, office: Office) -> list[Cause]:
    """Return the rules that have an alert open now."""
    found = {(one.use_case, one.rule) for one in open_alerts(engine) if one.kind == "firing"}
    known = [(name, *office.rules[name]) for name in sorted(found) if name in office.rules]
    return [Cause(*name, rule.title, assets) for name, rule, assets in known]


def _notice(office: Office, one: Waiting) -> Notice:
    """Return an event as messages have it; a rule whose file is gone is called by its name."""
    event = one.event
    rule, assets = office.rules.get((event.use_case, event.rule), (None, ()))
    return Notice(
        event_id=event.event_id or "",
        what=event.what,
        kind=event.kind,
        use_case=event.use_case,
        rule=event.rule,
        title=rule.title if rule else event.rule,
        severity=cast(Severity, event.severity),
        key=event.key,
        message=event.message,
        runbook=rule.runbook if rule else "",
        at=event.at,
        due=one.due,
        assets=assets,
    )
