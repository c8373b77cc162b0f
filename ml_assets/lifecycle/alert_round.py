"""A round of alerts: the rules that are due are evaluated, and what is due is sent. A schedule makes rounds.

It is done when it ends: one that finds another at work leaves the rest to it, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ml_assets.alerts.routes import Routing
from ml_assets.alerts.rule import Rule
from ml_assets.database.alerts import EventRow, last_evaluations, open_alerts, outbox_counts, retire_outbox
from ml_assets.errors import StateError
from ml_assets.lifecycle.alert_rules import all_rules, assets_of
from ml_assets.lifecycle.alert_sending import Office, Sent, send_alerts
from ml_assets.lifecycle.alerts import Ground, RuleState, evaluate_alerts, is_due, states
from ml_assets.lifecycle.report_mail import route_reports
from ml_assets.lifecycle.reports import reports_of
from ml_assets.spec import UseCase

# The ledger keeps what was sent; the outbox only so long, for who looks at it.
_KEEP_SENT = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Telling:
    """How people are told: routes, secrets by sink, the asset graph, the address of the runbooks, and of reports."""

    routing: Routing
    secrets: Mapping[str, str]
    upstream: Mapping[str, Set[str]]
    runbooks: str
    page_of: Callable[[str], str] = lambda _: ""

    def office(self, usecases: Sequence[UseCase], rules: Sequence[Rule]) -> Office:
        """Return what is needed to send."""
        known = {(rule.use_case, rule.name): (rule, assets_of(usecases, rule)) for rule in rules}
        titles = {(usecase.name, one.name): one.title for usecase in usecases for one in reports_of(usecase).values()}
        return Office(self.routing, self.secrets, known, self.upstream, self.runbooks, titles, self.page_of)


@dataclass(frozen=True, slots=True)
class Round:
    """What a round did, and how things stand after it; `busy` says what another process was at."""

    evaluated: Sequence[RuleState]
    sent: Sequence[Sent]
    states: Sequence[RuleState]
    open: Sequence[EventRow]
    outbox: Mapping[tuple[str, str], int]
    busy: Sequence[str]

    def count(self, state: str) -> int:
        """Return how many rules are in a state."""
        return sum(one.state == state for one in self.states)

    def of_outbox(self, state: str) -> int:
        """Return how many events are in a state of the outbox."""
        return sum(number for (_, of), number in self.outbox.items() if of == state)


def make_round(
    ground: Ground, telling: Telling, *, materialized: Mapping[str, datetime] | None, now: datetime | None = None
) -> Round:
    """Evaluate the rules that are due, and send what is due; return how things stand after it.

    `materialized` says when each asset was made last, as `<use case>/<asset>`; None: all rules are due.
    """
    now = now or datetime.now(UTC)
    rules = all_rules(ground.usecases)
    last = last_evaluations(ground.engine)
    if materialized is None:
        due = rules
    else:
        due = [rule for rule in rules if is_due(rule, last.get((rule.use_case, rule.name)), now, materialized)]
    office = telling.office(ground.usecases, rules)
    evaluated: Sequence[RuleState] = ()
    sent: Sequence[Sent] = ()
    busy = []
    try:
        evaluated = evaluate_alerts(ground, due, now=now, routing=telling.routing)
    except StateError as error:
        busy.append(str(error))
    route_reports(ground.engine, telling.routing, now)
    try:
        sent = send_alerts(ground.engine, office, lambda: datetime.now(UTC))
    except StateError as error:
        busy.append(str(error))
    retire_outbox(ground.engine, before=now - _KEEP_SENT)
    engine = ground.engine
    standing = states(engine, ground.usecases, max(now, datetime.now(UTC)))
    return Round(evaluated, sent, standing, open_alerts(engine), outbox_counts(engine), busy)
