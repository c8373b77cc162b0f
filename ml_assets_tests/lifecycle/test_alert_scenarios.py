"""Alerts in the words of the desk: a shipped rule, a real database, and a server that is told."""

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pytest_bdd import given, parsers, scenarios, then, when

from ml_assets.alerts.routes import Routing, read_routing
from ml_assets.alerts.rule import Rule
from ml_assets.database import alerts as ledger
from ml_assets.database.connect import connect
from ml_assets.database.reports import Given
from ml_assets.lake import Lake
from ml_assets.lifecycle.alert_rules import rule_of
from ml_assets.lifecycle.alert_sending import Office, send_alerts
from ml_assets.lifecycle.alerts import Ground, evaluate_alerts
from ml_assets.lifecycle.feeds import FEED_COLUMNS
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.senders.servers import Taken, http_server

scenarios("alerts.feature")

SATURDAY = datetime(2026, 3, 7, 8, tzinfo=UTC)
FRIDAY = date(2026, 3, 6)
USUAL, SHRUNKEN = 4000, 1300


@dataclasses.dataclass
class Desk:
    """A desk: the rule on its feed, what the feed brought on Friday, and what the desk was told."""

    ground: Ground
    routing: Routing
    rule: Rule
    told: Taken
    now: datetime = SATURDAY
    trades: int = USUAL
    heard: int = 0

    def round(self, later: timedelta = timedelta()) -> None:
        """Evaluate the rule and send what is due, some time later."""
        self.now += later
        dates = [date(2026, 2, 24) + timedelta(days=n) for n in range(11)]
        rows: list[dict[str, Any]] = [
            {"source": "trades", "business_date": day, "events": self.trades if day == FRIDAY else USUAL}
            for day in dates
            if day.weekday() < 5
        ]
        ground = dataclasses.replace(self.ground, given={"feeds": Given(FEED_COLUMNS, rows)})
        evaluate_alerts(ground, [self.rule], now=self.now, routing=self.routing)
        office = Office(self.routing, {}, {(self.rule.use_case, self.rule.name): (self.rule, ())}, {}, "runbooks.md")
        send_alerts(ground.engine, office, lambda: self.now)

    def news(self) -> list[str]:
        """The messages since it was last asked for."""
        new = [json.loads(body) for body in self.told.bodies[self.heard :]]
        self.heard += len(new)
        return [f"{message['subject']}: {message['events'][0]['message']}" for message in new]

    def says(self, what: str, reason: str, **more: Any) -> None:
        """Write into the ledger what a person says."""
        line: dict[str, Any] = {
            "use_case": self.rule.use_case, "rule": self.rule.name, "rule_hash": "", "kind": "firing", "key": "",
            "severity": "critical", "message": "", "at": self.now, "actor": "ann", "reason": reason,
        }  # fmt: skip
        ledger.say(self.ground.engine, ledger.EventRow(what=what, **(line | more)))


@given("a desk that is told by a webhook", target_fixture="desk")
def a_desk(application_url: str, lake: Lake) -> Iterator[Desk]:
    engine = connect(application_url)
    no_registry: Any = None
    with http_server() as told:
        routes = (
            f'[sinks.desk]\nkind = "webhook"\nurl = "{told.url}"\nallow_private = true\n[[routes]]\nsinks = ["desk"]\n'
        )
        rule = rule_of([USE_CASE], "settlement_fails/feed_stale_or_shrunken")
        ground = Ground(lake, no_registry, engine, [USE_CASE], {})
        yield Desk(ground, read_routing(routes, where="routes"), rule, told)
    engine.dispose()


@given(parsers.parse('an engineer has silenced the rule for {hours:d} hours because "{why}"'))
def silenced(desk: Desk, hours: int, why: str) -> None:
    desk.says("silenced", why, until=desk.now + timedelta(hours=hours, minutes=30))


@when("the trades of Friday are a third of what is usual")
def shrunken(desk: Desk) -> None:
    desk.trades = SHRUNKEN
    desk.round()
    desk.round(desk.rule.hold)


@when(parsers.parse('an analyst acknowledges it because "{why}"'))
def acknowledged(desk: Desk, why: str) -> None:
    desk.news()
    (opened,) = ledger.open_alerts(desk.ground.engine)
    desk.says("acknowledged", why, key=opened.key, about=opened.event_id)


@when("an hour later it is still so")
def an_hour_later(desk: Desk) -> None:
    desk.round(timedelta(minutes=55))


@when("a day later it is still so")
def a_day_later(desk: Desk) -> None:
    for _ in range(25):
        desk.round(timedelta(minutes=58))


@when("the silence is over and it is still so")
def silence_is_over(desk: Desk) -> None:
    desk.round(timedelta(minutes=55))
    desk.round(timedelta(minutes=55))


@when("the rest has landed")
def landed(desk: Desk) -> None:
    desk.trades = USUAL
    desk.round(timedelta(minutes=30))


@when("for half an hour the rule cannot be evaluated")
def broken(desk: Desk) -> None:
    desk.news()
    good, desk.rule = desk.rule, dataclasses.replace(desk.rule, sql="SELECT nothing FROM feeds")
    for _ in range(4):
        desk.round(timedelta(minutes=10))
    desk.rule = good


@then(parsers.parse('the desk is told "{message}" within the round'))
def told(desk: Desk, message: str) -> None:
    assert desk.news() == [f"[critical] settlement_fails: Feed stale or shrunken, source=trades opened: {message}"]


@then("the desk is told nothing")
@then("the desk is told nothing after the first message")
def told_nothing(desk: Desk) -> None:
    assert desk.news() == []


@then("the desk is told that it is over")
def told_that_it_is_over(desk: Desk) -> None:
    (one,) = desk.news()
    assert "source=trades is over" in one


@then("the desk is told that it is still open")
def told_that_it_is_open(desk: Desk) -> None:
    (one,) = desk.news()
    assert "source=trades is still open" in one


@then("the desk is told that the rule cannot be evaluated")
def told_of_the_rule(desk: Desk) -> None:
    (one,) = desk.news()
    assert "cannot be evaluated: the rule cannot be evaluated: " in one
    assert 'column "nothing" does not exist' in one


@then("the alert of the trades is still open")
def still_open(desk: Desk) -> None:
    assert "source=trades" in [one.key for one in ledger.open_alerts(desk.ground.engine)]


@then("the ledger says who is at it and why")
def who_and_why(desk: Desk) -> None:
    lines = ledger.ledger(desk.ground.engine, desk.rule.use_case, desk.rule.name)
    said = [(line.actor, line.reason, line.key) for line in lines if line.what == "acknowledged"]
    assert said == [("ann", "the source sends again at noon", "source=trades")]
