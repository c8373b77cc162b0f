"""Messages on their way: each event arrives at least once, whatever dies, and a repeat is told by its id."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from ml_assets.alerts.retry import ATTEMPTS, Outcome
from ml_assets.alerts.routes import read_routing
from ml_assets.alerts.rule import Rule
from ml_assets.database import alerts as ledger
from ml_assets.database.connect import connect
from ml_assets.database.turn import in_turn
from ml_assets.errors import StateError
from ml_assets.lifecycle.alert_sending import Office, Sent, send_alerts
from ml_assets_tests.alerts.made import rule
from ml_assets_tests.lifecycle.killed_sender import exit_code_of
from ml_assets_tests.senders.servers import Taken, http_server

START = datetime(2026, 3, 27, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def routes(*urls: str, per_hour: int = 20) -> str:
    sinks = [
        f'[sinks.s{n}]\nkind = "webhook"\nurl = "{url}"\nallow_private = true\nseconds = 0.5\nper_hour = {per_hour}\n'
        for n, url in enumerate(urls)
    ]
    return "".join(sinks) + f"[[routes]]\nsinks = {json.dumps([f's{n}' for n in range(len(urls))])}\n"


@pytest.fixture
def engine(application_url: str) -> Iterator[Engine]:
    made = connect(application_url)
    yield made
    made.dispose()


def put(engine: Engine, sinks: list[str], *events: tuple[str, str], at: datetime = START) -> None:
    """Write openings into the ledger and the outbox as the evaluator does: each of a rule and with a key."""
    for number, (name, key) in enumerate(events):
        last = ledger.last_evaluations(engine).get(("fails", name))
        made = ledger.Evaluated(
            use_case="fails", rule=name, rule_hash="", number=last.number + 1 if last else 1, state="firing", why="",
            found=1, seconds=0.1, evaluated_at=at, deadline_at=at, alerts=[],
        )  # fmt: skip
        event = ledger.EventRow(
            what="opened", use_case="fails", rule=name, rule_hash="", kind="firing", key=key, severity="warning",
            message=f"{key} fires", at=at, event_id=f"{name}/{key}/{at.timestamp()}/{number}",
        )  # fmt: skip
        assert ledger.keep_evaluation(engine, made, [event], [ledger.Delivery(event.event_id, s, at) for s in sinks])


def office(text: str, *rules: Rule, send=None) -> Office:
    known = {(one.use_case, one.name): (one, ()) for one in rules}
    given = {"send": send} if send else {}
    return Office(read_routing(text, where="routes"), {}, known, {}, "runbooks.md", **given)


def told(taken: Taken) -> list[tuple[str, list[str]]]:
    """The id of each message that a server took, and the ids of its events."""
    return [(body["id"], [one["id"] for one in body["events"]]) for body in map(json.loads, taken.bodies)]


def said(engine: Engine) -> list[str]:
    return [line.what for line in reversed(ledger.ledger(engine, limit=1000))]


def sending(engine: Engine, what: Office, at: datetime) -> list[Sent]:
    return send_alerts(engine, what, lambda: at)


def test_what_is_sent_is_sent_once_and_written_down(engine: Engine) -> None:
    put(engine, ["s0"], ("fail_rate", "market=XPAR"), ("fail_rate", "market=XETR"))
    with http_server() as taken:
        desk = office(routes(taken.url), rule(name="fail_rate"))
        (sent,) = sending(engine, desk, START + MINUTE)
        assert sending(engine, desk, START + 2 * MINUTE) == []
    assert (sent.what, sent.events) == ("sent", 2)
    assert sent.subject == "[warning] fails: Fail rate of a market, market=XPAR opened, and 1 more"
    assert len(taken.bodies) == 1
    assert said(engine) == ["opened", "opened", "sent", "sent"]
    assert ledger.outbox_counts(engine) == {("s0", "sent"): 2}


def test_a_sink_that_fails_is_tried_again_with_the_same_id_and_the_others_are_not_held_up(engine: Engine) -> None:
    put(engine, ["s0", "s1"], ("fail_rate", "market=XPAR"))
    with http_server("hang") as slow, http_server() as well:
        desk = office(routes(slow.url, well.url))
        made = {sent.sink: sent.what for sent in sending(engine, desk, START)}
        assert made == {"s0": "failed", "s1": "sent"}
        assert sending(engine, desk, START + timedelta(seconds=10)) == [], "not before its time"
        slow.mode = "take"
        (again,) = sending(engine, desk, START + MINUTE)
        assert again.what == "sent"
    assert len({message for message, _ in told(slow)}) == 1
    assert Counter(said(engine)) == {"opened": 1, "failed": 1, "sent": 2}


def test_what_nobody_takes_is_given_up_visibly(engine: Engine) -> None:
    put(engine, ["s0", "s1"], ("fail_rate", "market=XPAR"))
    with http_server("404") as gone:
        desk = office(routes(gone.url, gone.url), send=lambda sink, _, message: Outcome(False, why="it is down"))
        at = START
        for _ in range(ATTEMPTS):
            sending(engine, desk, at)
            at += timedelta(hours=1, minutes=1)
        assert sending(engine, desk, at) == []
        assert ledger.outbox_counts(engine) == {("s0", "given up"): 1, ("s1", "given up"): 1}
        put(engine, ["s0"], ("fail_rate", "market=XETR"), at=at)
        (refused,) = sending(engine, office(routes(gone.url, gone.url)), at)
    assert (refused.what, refused.why) == ("given up", "it answered 404")
    assert at - START < timedelta(hours=36)


def test_beyond_the_budget_of_an_hour_there_is_a_digest_and_after_an_outage_a_summary(engine: Engine) -> None:
    put(engine, ["s0"], *((f"rule_{n}", f"n={n}") for n in range(9)))
    with http_server() as taken:
        desk = office(routes(taken.url, per_hour=4))
        assert [sent.events for sent in sending(engine, desk, START + MINUTE)] == [1, 1, 7]
        put(engine, ["s0"], ("rule_1", "n=10"), ("rule_2", "n=11"), at=START + 5 * MINUTE)
        assert sending(engine, desk, START + 6 * MINUTE) == [], "the last message of the hour is for what is critical"
        (summary,) = sending(engine, desk, START + timedelta(hours=2))
    assert summary.subject == "[warning] 2 events of alerts: summary after an outage"
    assert sorted(e for _, events in told(taken) for e in events) == sorted(
        one.event_id for one in ledger.open_alerts(engine)
    )


def test_one_sends_at_a_time(engine: Engine) -> None:
    with http_server() as taken:
        desk = office(routes(taken.url))
        with in_turn(engine, ledger.SENDING, lambda: None), pytest.raises(StateError, match="another process"):
            sending(engine, desk, START)


def test_after_a_kill_at_any_step_each_event_is_sent_and_a_repeat_has_the_id_of_the_first(
    engine: Engine, application_url: str, request: pytest.FixtureRequest
) -> None:
    """Guards events that are lost between server and ledger. `--kills 200` is the campaign; the receiver counts."""
    kills = request.config.getoption("--kills")
    now = datetime.now(UTC) - MINUTE
    died = 0
    with http_server() as taken:
        text = routes(taken.url, per_hour=100_000)
        for seed in range(kills):
            put(
                engine,
                ["s0"],
                *((f"rule_{n}", f"{seed}.{n}") for n in range(3)),
                at=now + seed * timedelta(milliseconds=1),
            )
            died += exit_code_of({"url": application_url, "routes": text, "seed": seed, "steps": 7}) != 0
        sending(engine, office(text), datetime.now(UTC))
        assert ledger.outbox_counts(engine) == {("s0", "sent"): 3 * kills}
    messages = told(taken)
    arrived = {event for _, events in messages for event in events}
    assert arrived == {one.event_id for one in ledger.open_alerts(engine)}
    of_event: dict[str, set[str]] = {}
    for message, events in messages:
        for event in events:
            of_event.setdefault(event, set()).add(message)
    assert {len(ids) for ids in of_event.values()} == {1}, "an event that came twice came in a message of one id"
    assert died > kills / 2
