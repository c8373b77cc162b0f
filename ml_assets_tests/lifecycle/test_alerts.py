"""Rules on a real database: each fails for itself alone, two evaluators write once, and a pause is told."""

import dataclasses
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ml_assets.alerts.routes import Routing, read_routing
from ml_assets.alerts.rule import Rule, read_rule
from ml_assets.database import alerts as ledger
from ml_assets.database.connect import connect
from ml_assets.database.predictions import upsert_predictions
from ml_assets.database.turn import in_turn
from ml_assets.errors import InputError, StateError
from ml_assets.lake import Lake
from ml_assets.lifecycle import alerts
from ml_assets.lifecycle.alerts import Ground, backtest, evaluate_alerts, is_due, states
from ml_assets.usecases.cns_fails.usecase import USE_CASE
from ml_assets_tests.database.factories import DECISION_TIME, prediction, predictions

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HEAD = """-- @title: Costly decisions
-- @severity: warning
-- @every: 15 minutes
-- @description: Of each slot, decisions that are dear.
-- @runbook: costly-decisions
-- @message: {entity}: {cost|currency}
-- @key: entity
"""
COSTLY = "SELECT entity_id AS entity, expected_cost AS cost FROM predictions WHERE expected_cost >= 500"
ROUTES = """
[sinks.desk]
kind = "webhook"
url = "https://desk.bank.example/alerts"
[[routes]]
sinks = ["desk"]
"""


def rule(name: str, sql: str = COSTLY, *tags: str) -> Rule:
    head = HEAD + "".join(f"-- @{tag}\n" for tag in tags)
    return read_rule(USE_CASE.name, name, f"alerts/{name}.sql", head + sql, owner="operations")


@dataclasses.dataclass
class Desk:
    ground: Ground
    routing: Routing

    @property
    def engine(self) -> Engine:
        return self.ground.engine

    def score(self, *rows: tuple[str, float]) -> None:
        made = [prediction(entity, p, use_case=USE_CASE.name) for entity, p in rows]
        upsert_predictions(self.engine, predictions(*made))

    def evaluate(self, *rules: Rule, at: datetime = NOW) -> dict[str, str]:
        return {one.rule.name: one.state for one in evaluate_alerts(self.ground, rules, now=at, routing=self.routing)}

    def lines(self) -> list[tuple[str, str, str]]:
        return [(line.what, line.rule, line.key) for line in reversed(ledger.ledger(self.engine))]


@pytest.fixture
def desk(application_url: str, lake: Lake) -> Iterator[Desk]:
    engine = connect(application_url)
    no_registry: Any = None
    yield Desk(Ground(lake, no_registry, engine, [USE_CASE], {}), read_routing(ROUTES, where="routes.toml"))
    engine.dispose()


def test_what_fires_is_in_the_ledger_and_on_its_way_in_one_transaction(desk: Desk) -> None:
    desk.score(("A", 0.6), ("B", 0.1))
    assert desk.evaluate(rule("costly")) == {"costly": "firing"}
    assert desk.lines() == [("opened", "costly", "entity=A")]
    (waits,) = ledger.waiting(desk.engine, "desk", NOW)
    assert (waits.event.message, waits.message_id) == ("A: 600", None)
    assert desk.evaluate(rule("costly"), at=NOW + 15 * MINUTE) == {"costly": "firing"}
    desk.score(("A", 0.2))
    assert desk.evaluate(rule("costly"), at=NOW + 30 * MINUTE) == {"costly": "ok"}
    assert desk.lines() == [("opened", "costly", "entity=A"), ("closed", "costly", "entity=A")]
    assert not ledger.open_alerts(desk.engine)


BROKEN = {
    "syntax": ("SELECT entity_id AS entity, FROM predictions", "alerts/syntax.sql:8: syntax error"),
    "no_table": ("SELECT 1 AS entity, 2 AS cost FROM use_case_tiers", "does not exist"),
    "endless": (
        "WITH RECURSIVE n AS (SELECT 1 AS n UNION ALL SELECT n + 0 FROM n) SELECT max(n) AS entity, 1 AS cost FROM n",
        "statement timeout",
    ),
    "cross_join": (
        "SELECT a AS entity, b AS cost FROM generate_series(1, 100000) AS a CROSS JOIN generate_series(1, 100000) AS b",
        "it gives more than 20,000 rows",
    ),
    "no_column": ("SELECT entity_id FROM predictions", "the head names the column entity"),
    "write": (
        "WITH gone AS (DELETE FROM predictions RETURNING 1) SELECT 1 AS entity, 2 AS cost FROM gone",
        "does not exist",
    ),
}


def test_a_rule_that_fails_is_an_error_for_itself_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a loop without end, a cross join that fills the memory, and a write among rules that are right."""
    monkeypatch.setattr(alerts, "_SECONDS", 0.5)
    desk.score(("A", 0.6))
    found = desk.evaluate(*(rule(name, sql) for name, (sql, _) in BROKEN.items()), rule("costly"))
    assert found == {**dict.fromkeys(BROKEN, "error"), "costly": "firing"}
    last = ledger.last_evaluations(desk.engine)
    for name, (_, said) in BROKEN.items():
        assert said in last[USE_CASE.name, name].why, name
    assert desk.lines() == [("opened", "costly", "entity=A")], "once is no trouble yet"
    desk.evaluate(rule("syntax", BROKEN["syntax"][0]), at=NOW + 11 * MINUTE)
    (trouble,) = [one for one in ledger.open_alerts(desk.engine) if one.rule == "syntax"]
    assert (trouble.kind, trouble.key) == ("error", "")
    assert "the rule cannot be evaluated: alerts/syntax.sql:8: syntax error" in trouble.message


def test_the_rows_of_an_alert_stay_open_while_its_query_fails(desk: Desk) -> None:
    desk.score(("A", 0.6))
    desk.evaluate(rule("costly"))
    assert desk.evaluate(rule("costly", "SELECT nothing FROM predictions"), at=NOW + MINUTE) == {"costly": "error"}
    assert [one.key for one in ledger.open_alerts(desk.engine)] == ["entity=A"]


def test_no_data_is_neither_ok_nor_an_error(desk: Desk) -> None:
    quiet = rule("costly", COSTLY, "data: EXISTS (SELECT FROM predictions)")
    assert desk.evaluate(quiet) == {"costly": "no data"}
    desk.score(("B", 0.1))
    assert desk.evaluate(quiet, at=NOW + MINUTE) == {"costly": "ok"}


def test_ten_thousand_rows_fire_in_one_evaluation(desk: Desk) -> None:
    many = rule("many", "SELECT n AS entity, n AS cost FROM generate_series(1, 10000) AS n")
    assert desk.evaluate(many) == {"many": "firing"}
    assert len(ledger.waiting(desk.engine, "desk", NOW)) == 10_000
    assert desk.evaluate(many, at=NOW + MINUTE) == {"many": "firing"}
    assert len(ledger.open_alerts(desk.engine)) == 10_000


def test_two_evaluators_at_once_write_once(desk: Desk) -> None:
    """Guards both ways: the turn, and the number of the evaluation for those who have lost it."""
    desk.score(("A", 0.6))
    with (
        in_turn(desk.engine, ledger.EVALUATING, lambda: None),
        pytest.raises(StateError, match="another process is at it"),
    ):
        desk.evaluate(rule("costly"))
    both = threading.Barrier(2)
    won: list[bool] = []

    def evaluate() -> None:
        last = ledger.last_evaluations(desk.engine).get((USE_CASE.name, "costly"))
        made, events = alerts._evaluate(desk.ground, rule("costly"), last, NOW, alerts._people(desk.engine, NOW))
        both.wait()
        won.append(ledger.keep_evaluation(desk.engine, made, alerts._rows(rule("costly"), events), []))

    for _ in range(2):  # the first evaluation, and a later one
        won.clear()
        threads = [threading.Thread(target=evaluate) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False, True]
    assert desk.lines() == [("opened", "costly", "entity=A")]


def test_after_an_outage_people_are_told_once_and_nothing_is_played_again(desk: Desk) -> None:
    desk.score(("A", 0.6))
    desk.evaluate(rule("costly"))
    desk.evaluate(rule("costly"), at=NOW + timedelta(hours=6))
    desk.evaluate(rule("costly"), at=NOW + timedelta(hours=6, minutes=5))
    assert desk.lines() == [
        ("opened", "costly", "entity=A"),
        ("opened", "evaluator", ""),
        ("closed", "evaluator", ""),
    ]
    told = [one.event for one in ledger.waiting(desk.engine, "desk", NOW + timedelta(hours=7))]
    assert "no rule was evaluated from 2026-01-05 09:00 to 2026-01-05 15:00 UTC, 6 hours" in told[-1].message


def test_what_is_silenced_is_kept_and_not_told(desk: Desk) -> None:
    desk.score(("A", 0.6), ("B", 0.7))
    said = {"use_case": USE_CASE.name, "rule": "costly", "rule_hash": "", "kind": "firing", "severity": "warning",
            "message": "", "at": NOW, "actor": "ann", "reason": "known"}  # fmt: skip
    ledger.say(desk.engine, ledger.EventRow(what="silenced", key="entity=A", until=NOW + timedelta(hours=1), **said))
    desk.evaluate(rule("costly"))
    assert len(ledger.open_alerts(desk.engine)) == 2
    assert [one.event.key for one in ledger.waiting(desk.engine, "desk", NOW)] == ["entity=B"]
    with pytest.raises(StateError, match="there is no opened alert nothing"):
        ledger.say(desk.engine, ledger.EventRow(what="acknowledged", key="entity=A", about="nothing", **said))


@pytest.mark.parametrize("statement", ["UPDATE alert_events SET message = ''", "DELETE FROM alert_events",
                                       "TRUNCATE alert_events CASCADE"])  # fmt: skip
def test_the_ledger_of_alerts_is_only_added_to(desk: Desk, statement: str) -> None:
    desk.score(("A", 0.6))
    desk.evaluate(rule("costly"))
    with pytest.raises(Exception, match="append-only"), desk.engine.begin() as connection:
        connection.execute(text(statement))


def test_a_rule_is_due_when_its_time_has_come_or_its_asset_is_new(desk: Desk) -> None:
    timed = rule("costly")
    head = HEAD.replace("@every: 15 minutes", "@follows: predictions\n-- @deadline: 1 day")
    follows = read_rule(USE_CASE.name, "follows", "a.sql", head + COSTLY, owner="x")
    assert is_due(timed, None, NOW, {})
    desk.evaluate(timed, follows)
    last = ledger.last_evaluations(desk.engine)
    one, other = last[USE_CASE.name, "costly"], last[USE_CASE.name, "follows"]
    assert [is_due(timed, one, NOW + n * MINUTE, {}) for n in (14, 15)] == [False, True]
    made = {f"{USE_CASE.name}/predictions": NOW + MINUTE}
    assert [is_due(follows, other, NOW + timedelta(hours=9), known) for known in ({}, made)] == [False, True]
    assert is_due(rule("costly", COSTLY + " -- changed"), one, NOW, {})


def test_a_backtest_counts_what_would_have_fired_as_of_then(desk: Desk) -> None:
    desk.score(("A", 0.6))
    before, after = DECISION_TIME - timedelta(hours=1), DECISION_TIME + timedelta(hours=1)
    slow = rule("costly", COSTLY, "for: 1 hour")
    played = backtest(desk.ground, slow, [after, before, after + timedelta(days=1)])
    assert [(at, [event.what for event in events]) for at, _, events in played] == [
        (before, []), (after, ["opened"]), (after + timedelta(days=1), ["repeated"]),
    ]  # fmt: skip
    assert not desk.lines(), "nothing is written"
    with pytest.raises(InputError, match="it reads landing, which is known of now alone"):
        backtest(desk.ground, rule("behind", "SELECT topic AS entity, 1 AS cost FROM landing"), [NOW])


def test_a_rule_that_was_never_run_is_seen(desk: Desk) -> None:
    assert {one.state for one in states(desk.engine, [USE_CASE], NOW)} <= {"not run"}
