"""The head of a rule's file, and what is refused of it."""

from datetime import timedelta

import pytest

from ml_assets.alerts.durations import duration, in_words
from ml_assets.errors import InputError
from ml_assets_tests.alerts.made import HEAD, SQL, rule


def test_a_head_is_read() -> None:
    read = rule("for: 1 hour", "keep_firing_for: 2 days", "data: EXISTS (SELECT FROM estimates)")
    assert (read.full_name, read.severity, read.owner, read.keys) == (
        "fails/fail_rate",
        "warning",
        "operations",
        ("market",),
    )
    assert (read.every, read.follows, read.deadline) == (timedelta(minutes=15), "", timedelta(minutes=45))
    assert (read.hold, read.keep, read.repeat) == (timedelta(hours=1), timedelta(days=2), timedelta(days=1))
    assert read.reads("outcomes")
    assert read.reads("estimates"), "of the condition"
    assert not read.reads("work_list")


def test_a_row_gives_key_and_message_in_one_clean_line() -> None:
    """Guards names from feeds that would end a header line, or fill a screen."""
    found = rule().found(
        {"market": "XPAR\r\nBcc: all@bank.example", "fail_rate": 0.1234, "instructions": 12345, "actor": "ann"}
    )
    assert found.key == "market=XPAR Bcc: all@bank.example"
    assert found.message == "XPAR Bcc: all@bank.example: 12.3 % of 12,345 instructions failed"
    long = rule().found({"market": "x" * 500, "fail_rate": None, "instructions": 1})
    assert len(long.key) < 100
    assert len(long.message) == 400


def test_a_column_that_is_not_there_is_said() -> None:
    with pytest.raises(InputError, match=r"alerts/fail_rate\.sql: the head names the column market, which"):
        rule().found({"fail_rate": 1.0})


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (HEAD.replace("-- @title: Fail rate of a market\n", ""), "the head lacks @title"),
        (HEAD.replace("@title", "@titel"), "there is no tag @titel"),
        (HEAD + "-- @key: a\n", "the tag @key is there twice"),
        (HEAD.replace("warning", "urgent"), "@severity is 'urgent'; it is critical, warning, info"),
        (HEAD + "-- @follows: outcomes\n", "has @every or @follows, and not both"),
        (HEAD.replace("@every: 15 minutes", "@follows: outcomes"), "needs a @deadline"),
        (HEAD.replace("15 minutes", "soon"), "@every: 'soon' is no length of time"),
        (HEAD.replace("fail-rate-of-a-market", "https://else.where/"), "it is a section of docs/runbooks.md"),
        (HEAD.replace("share", "percent"), "@message has the unit 'percent'"),
        (HEAD.replace("{market}", "{actor}"), "who a person is does not leave the database"),
        (HEAD.replace("@key: market", "@key: market, email"), "@key names email"),
        (HEAD.replace("{market}", "{market"), "@message has a { that names no column"),
        (HEAD + "-- @data: pg_sleep(9) IS NULL\n", "it calls pg_sleep"),
    ],
)  # fmt: skip
def test_a_wrong_head_says_what_is_wrong(head: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        rule(head=head)
    assert said in str(refused.value)
    assert str(refused.value).startswith("alerts/fail_rate.sql: ")


def test_the_sql_is_judged_as_that_of_reports() -> None:
    with pytest.raises(InputError, match="a rule is one SELECT"):
        rule(sql=SQL + "; DELETE FROM outcomes")


@pytest.mark.parametrize("said", ["1 minute", "90 minutes", "2 hours", "4 days"])
def test_a_length_of_time_is_said_as_it_is_written(said: str) -> None:
    assert in_words(duration(said, where="a.sql")) == said
