"""The states of rules: what must hold whatever rules find, fail and pause; and the cases by hand."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ml_assets.alerts.machine import (
    Alert,
    Event,
    Failed,
    NoData,
    People,
    Result,
    Rows,
    Step,
    hold_of,
    keep_of,
    state_at,
    step,
)
from ml_assets.alerts.rule import Found
from ml_assets_tests.alerts.made import rule

START = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)  # half an hour before clocks change in Europe
MINUTE = timedelta(minutes=1)
RULES = [rule(f"for: {hold} minutes", f"keep_firing_for: {keep} minutes") for hold in (0, 20) for keep in (0, 45)]
RESULTS = st.one_of(
    st.lists(st.sampled_from("ABC").map(lambda key: Found(f"market={key}", "m")), max_size=4).map(Rows),
    st.just(Failed("x")),
    st.just(NoData()),
)
# Minutes from one evaluation to the next: the clock may stand, go back, or jump.
PAUSES = st.one_of(st.integers(1, 30), st.sampled_from([0, -30, 60, 600]))


def run(which, results: list[tuple[Result, int]]) -> list[tuple[Result, Step, Step | None]]:
    alerts: tuple[Alert, ...] = ()
    at, last, before, made = START, None, None, []
    for result, pause in results:
        now = step(which, alerts, result, at, last=last, before=before.state if before else None)
        made.append((result, now, before))
        alerts, last, before = now.alerts, now.at, now
        at += pause * MINUTE
    return made


@given(st.sampled_from(RULES), st.lists(st.tuples(RESULTS, PAUSES), max_size=30))
def test_nothing_flaps_and_each_alert_that_opens_closes_once(which, results) -> None:
    events: dict[tuple[str, str], list[Event]] = {}
    absent_since: dict[tuple[str, str], datetime] = {}
    for result, now, _ in run(which, results):
        there = {("firing", one.key) for one in result.found} if isinstance(result, Rows) else set()
        for event in now.events:
            told = events.setdefault((event.kind, event.key), [])
            assert event.what == "opened" if not told or told[-1].what == "closed" else event.what != "opened"
            assert event.opened == (event.id if event.what == "opened" else told[-1].opened)
            if event.what == "closed":
                assert now.at - absent_since.get((event.kind, event.key), now.at) >= keep_of(which, event.kind)
            told.append(event)
        for alert in now.alerts:
            same = (alert.kind, alert.key)
            if alert.opened is None:
                assert now.at - alert.since < hold_of(which, alert.kind) or same not in there
            if alert.gone is None:
                absent_since.pop(same, None)
            else:
                absent_since.setdefault(same, alert.gone)
        open_now = {(a.kind, a.key) for a in now.alerts if a.opened}
        assert open_now == {same for same, told in events.items() if told[-1].what != "closed"}
    ids = [event.id for told in events.values() for event in told]
    assert len(ids) == len(set(ids)), "a receiver tells a repeat by its id"


@given(st.sampled_from(RULES), st.lists(st.tuples(RESULTS, PAUSES), max_size=30))
def test_an_error_is_never_ok(which, results) -> None:
    """Guards a failed query that closes what it cannot see, or a rule that looks well since it found no rows."""
    for result, now, before in run(which, results):
        if isinstance(result, Rows):
            assert (now.state == "ok") == (not [a for a in now.alerts if a.kind == "firing"])
            assert now.state in ("ok", "pending", "firing")
            continue
        assert now.state == ("error" if isinstance(result, Failed) else "no data")
        assert not [e for e in now.events if e.kind == "firing"]
        firing = [a for a in before.alerts if a.kind == "firing"] if before else []
        assert [a for a in now.alerts if a.kind == "firing"] == firing


@given(st.sampled_from(RULES), st.lists(st.tuples(RESULTS, PAUSES), max_size=10))
def test_an_evaluation_that_is_made_twice_is_the_same(which, results) -> None:
    """Guards two evaluators at once, and one that starts anew after it was killed: ids are those of the first."""
    assert [now.events for _, now, _ in run(which, results)] == [now.events for _, now, _ in run(which, results)]


FOUND = Rows([Found("market=A", "far more fails")])


def test_an_alert_opens_after_its_time_is_repeated_and_closes_after_its_time() -> None:
    which = rule("for: 20 minutes", "keep_firing_for: 1 hour", "repeat: 2 hours")
    alerts: tuple[Alert, ...] = ()
    said, last = [], None
    for minutes in range(0, 300, 10):
        now = step(which, alerts, FOUND if 30 <= minutes < 200 else Rows([]), START + minutes * MINUTE, last=last)
        alerts, last = now.alerts, now.at
        said += [(minutes, event.what) for event in now.events]
        if minutes == 40:
            assert now.state == "pending"
    assert said == [(50, "opened"), (170, "repeated"), (260, "closed")]


def test_what_is_acknowledged_is_not_told_again() -> None:
    which = rule("repeat: 1 hour")
    first = step(which, (), FOUND, START)
    opened = first.alerts[0].opened
    assert step(which, first.alerts, FOUND, START + 61 * MINUTE).events
    assert not step(which, first.alerts, FOUND, START + 61 * MINUTE, people=People(acknowledged={opened})).events


def test_what_opens_in_silence_is_told_when_the_silence_is_over() -> None:
    silence = People(silenced=lambda key: key == "market=A")
    first = step(rule(), (), FOUND, START, people=silence)
    assert [(e.what, e.tell) for e in first.events] == [("opened", False)]
    assert [e.tell for e in step(rule(), first.alerts, Rows([]), START + MINUTE).events] == [False], "never heard of"
    during = step(rule(), first.alerts, FOUND, START + timedelta(days=3), people=silence)
    assert not during.events
    after = step(rule(), during.alerts, FOUND, START + timedelta(days=3, minutes=1))
    assert [(e.what, e.tell, e.opened) for e in after.events] == [("repeated", True, first.events[0].id)]


def test_nobody_has_looked_in_a_pause() -> None:
    """Guards an outage of hours that counts as hours for which a row was there."""
    which = rule("for: 20 minutes")
    pending = step(which, (), FOUND, START)
    after = step(which, pending.alerts, FOUND, START + timedelta(hours=6), last=START)
    assert (after.state, after.events) == ("pending", ())


def test_data_that_goes_is_missed_and_data_that_never_came_is_not() -> None:
    """Guards a new use case whose every rule says on its first day that there is nothing."""
    first = step(rule(), (), NoData(), START)
    assert (first.state, first.events) == ("no data", ())
    again = step(rule(), first.alerts, NoData(), START + MINUTE, last=START, before="no data")
    assert not again.events
    gone = step(rule(), (), NoData(), START + MINUTE, last=START, before="ok")
    assert [(event.what, event.kind) for event in gone.events] == [("opened", "no data")]


def test_a_rule_that_was_not_run_in_time_says_so() -> None:
    deadline = timedelta(hours=1)
    assert state_at("ok", START, deadline, START + deadline) == "ok"
    assert state_at("ok", START, deadline, START + deadline + MINUTE) == "not run"
    assert state_at(None, None, deadline, START) == "not run"
