"""What goes into which message, and how it reads."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ml_assets.alerts.compose import Bundle, Cause, Notice, compose
from ml_assets.alerts.message import write_message

NOW = datetime(2026, 3, 27, 9, tzinfo=UTC)
UPSTREAM = {
    "fails/predictions": {"fails/curated/trades", "landing/trades"},
    "fails/outcomes": {"fails/predictions", "fails/curated/trades", "landing/trades"},
}


def notice(number: int, rule: str = "fail_rate", asset: str = "", **changes) -> Notice:
    given = {
        "event_id": f"e{number:05}", "what": "opened", "kind": "firing", "use_case": "fails", "rule": rule,
        "title": rule.replace("_", " ").capitalize(), "severity": "warning", "key": f"market=M{number}",
        "message": f"M{number} fails", "runbook": rule.replace("_", "-"), "at": NOW, "due": NOW,
        "assets": (asset,) if asset else (),
    }  # fmt: skip
    return Notice(**(given | changes))


def composed(notices, *, budget=20, sent=0, now=NOW, open_now=()) -> list[Bundle]:
    return compose(notices, upstream=UPSTREAM, open_now=open_now, budget=budget, sent=sent, now=now)


LATE = notice(1, "stale_feed", "fails/curated/trades", title="Stale feed", severity="critical", key="source=trades")


def test_what_follows_from_one_late_feed_is_one_message() -> None:
    followers = [notice(2, "score_shift", "fails/predictions"), notice(3, "fail_rate", "fails/outcomes")]
    (one,) = composed([*followers, LATE])
    assert [n.rule for n in one.notices] == ["stale_feed", "score_shift", "fail_rate"]
    subject = write_message("m1", one, runbooks="runbooks.md").subject
    assert subject == "[critical] fails: Stale feed, source=trades opened, and 2 more"
    (later,) = composed(followers, open_now=[Cause("fails", "stale_feed", "Stale feed", ("fails/curated/trades",))])
    assert (later.cause, len(later.notices)) == ("Stale feed", 2)
    apart = composed([notice(4, "promotion_waits", "fails/champion"), LATE])
    assert [n.rule for one in apart for n in one.notices] == ["stale_feed", "promotion_waits"], "the gravest first"


def test_a_feed_that_came_is_no_cause_any_more() -> None:
    over = notice(1, "stale_feed", "fails/curated/trades", what="closed")
    assert len(composed([over, notice(2, "score_shift", "fails/predictions")])) == 2


@given(st.integers(0, 60), st.integers(1, 30), st.integers(0, 30), st.sampled_from(["warning", "critical"]))
def test_nothing_is_lost_and_no_sink_gets_more_than_its_budget(number, budget, sent, severity) -> None:
    notices = [notice(n, f"rule_{n}", severity=severity) for n in range(number)]
    made = composed(notices, budget=budget, sent=sent)
    assert len(made) <= max(0, budget - sent)
    told = [one.event_id for bundle in made for one in bundle.notices]
    assert sorted(told) == ([one.event_id for one in notices] if made else [])
    reserved = 1 if severity == "warning" and budget > 1 else 0
    assert bool(made) == (number > 0 and budget - sent - reserved > 0)


def test_what_goes_beyond_the_budget_is_a_digest() -> None:
    made = composed([notice(n, f"rule_{n}") for n in range(9)], budget=5)
    assert [bundle.form for bundle in made] == ["alert", "alert", "alert", "digest"]
    assert len(made[-1].notices) == 6


def test_after_an_outage_there_is_one_summary() -> None:
    notices = [notice(n, f"rule_{n}", due=NOW - timedelta(hours=3)) for n in range(9)]
    (one,) = composed(notices)
    assert one.form == "summary"
    assert "summary after an outage" in write_message("m1", one, runbooks="runbooks.md").subject


def test_ten_thousand_rows_are_one_message_that_can_be_read() -> None:
    (one,) = composed([notice(n) for n in range(10_000)])
    message = write_message("m1", one, runbooks="https://wiki.bank.example/runbooks")
    assert message.subject.endswith("and 9,999 more")
    assert message.body["count"] == 10_000
    assert "and 9,950 more: `ml-assets alerts list` has all" in message.text
    assert "Fail rate: https://wiki.bank.example/runbooks#fail-rate" in message.text
    assert len(message.text) < 8_000


def test_a_name_from_a_feed_mentions_nobody_in_a_channel() -> None:
    (one,) = composed([notice(1, message="<!channel> & <http://else.where|click>")])
    assert "&lt;!channel&gt; &amp; &lt;http" in write_message("m1", one, runbooks="r").slack["text"]
