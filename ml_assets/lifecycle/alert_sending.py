"""Messages of alerts on their way: what is composed, sent, tried again and given up. Every step is written down first.

Which events a message carries is decided, and committed, before it is sent. So after a crash at any point each event
is sent at least once, and what is sent again has the id of the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import cast
from uuid import uuid4

from sqlalchemy import Engine

from ml_assets.alerts.compose import REPORT, Bundle, Cause, Form, Notice, compose
from ml_assets.alerts.message import Message, write_message, write_report_message
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
from ml_assets.object_store import read_file
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

    `upstream` has all assets that an asset is made from; `runbooks` is the address of the page of runbooks. `reports`
    has the titles of reports, and `page_of` makes an address for people of a file below the root of the reports.
    """

    routing: Routing
    secrets: Mapping[str, str]
    rules: Mapping[tuple[str, str], tuple[Rule, tuple[str, ...]]]
    upstream: Mapping[str, Set[str]]
    runbooks: str
    reports: Mapping[tuple[str, str], str] = field(default_factory=dict)
    page_of: Callable[[str], str] = lambda _: ""
    send: Send = send


def send_alerts(
    engine: Engine,
    office: Office,
    clock: Callable[[], datetime],
    *,
    reports_alone: bool = False,
    at_step: Callable[[str], None] = lambda _: None,
) -> list[Sent]:
    """Send what is due to all sinks, each by itself, one sender at a time; return what became of each message.

    With `reports_alone` alerts wait for the next round.

    Raises:
        StateError: another process is sending.
    """
    if not office.routing.sinks:
        return []
    with alone(engine, SENDING), ThreadPoolExecutor(len(office.routing.sinks)) as pool:
        turn = _Turn(engine, office, clock, reports_alone, at_step)
        made = pool.map(turn.serve, office.routing.sinks)
        return [sent for one in made for sent in one]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One sending: to whom, by which clock, and what of it."""

    engine: Engine
    office: Office
    clock: Callable[[], datetime]
    reports_alone: bool
    at_step: Callable[[str], None]

    def serve(self, sink: str) -> list[Sent]:
        """Send what is due to a sink, the oldest first, until one fails: a sink that hangs costs a round once."""
        self._put_into_messages(sink)
        self.at_step("composed")
        made = []
        for message_id, events in _messages(self._waiting(sink)):
            message, outcome = self._send(sink, message_id, events)
            self.at_step("sent")
            made.append(_record(self.engine, sink, message, events, outcome, self.clock()))
            self.at_step("recorded")
            if not outcome.sent and not outcome.refused:
                break
        return made

    def _waiting(self, sink: str) -> list[Waiting]:
        found = waiting(self.engine, sink, self.clock())
        return [one for one in found if one.event.kind == REPORT] if self.reports_alone else found

    def _send(self, sink: str, message_id: str, events: Sequence[Waiting]) -> tuple[Message, Outcome]:
        office, notices = self.office, tuple(_notice(self.office, one) for one in events)
        if events[0].form == REPORT:
            try:
                message = _report_message(office, message_id, notices[0])
            except OSError as error:
                message = write_report_message(message_id, notices[0], page="", files={})
                return message, Outcome(False, why=f"{type(error).__name__}: {notices[0].files} could not be read")
        else:
            bundle = Bundle(cast(Form, events[0].form), notices)
            message = write_message(message_id, bundle, runbooks=office.runbooks)
        return message, office.send(office.routing.sinks[sink], office.secrets.get(sink, ""), message)

    def _put_into_messages(self, sink: str) -> None:
        now = self.clock()
        loose = [one for one in self._waiting(sink) if one.message_id is None]
        if not loose:
            return
        of_sink = self.office.routing.sinks[sink]
        bundles = compose(
            [_notice(self.office, one) for one in loose],
            upstream=self.office.upstream,
            open_now=_causes(self.engine, self.office),
            budget=of_sink.per_hour,
            sent=sent_since(self.engine, sink, now - _HOUR) + under_way(self.engine, sink),
            now=now,
        )
        for bundle in bundles:
            ids = [one.event_id for one in bundle.notices]
            put_into_message(self.engine, sink, str(uuid4()), bundle.form, ids)


def _report_message(office: Office, message_id: str, notice: Notice) -> Message:
    """Return the message of a report, with its page and its rows as they lie there now."""
    name = notice.rule
    files = {f"{name}-{notice.key}.{kind}": read_file(f"{notice.files}/{name}.{kind}") for kind in ("html", "csv")}
    page = office.page_of(f"{notice.use_case}/{name}/{notice.key}/{name}.html") or f"{notice.files}/{name}.html"
    return write_report_message(message_id, notice, page=page, files=files)


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
        title=rule.title if rule else office.reports.get((event.use_case, event.rule), event.rule),
        severity=cast(Severity, event.severity),
        key=event.key,
        message=event.message,
        runbook=rule.runbook if rule else "",
        at=event.at,
        due=one.due,
        assets=assets,
        files=event.files or "",
    )
