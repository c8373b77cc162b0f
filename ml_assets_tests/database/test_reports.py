"""The SQL of a report sees what was known by its time, reads and cannot write, and errs with file and line."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from ml_assets.database import reports
from ml_assets.database.migrate import migrate
from ml_assets.database.predictions import upsert_predictions
from ml_assets.database.reports import Asked, Given, report_rows
from ml_assets.database.sql_files import shared_sql
from ml_assets.errors import InputError
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets.spec import OutcomeDates
from ml_assets_tests.database.factories import DECISION_TIME, OUTCOME_DATE, prediction, predictions, scored

ASKED = Asked("fails", OUTCOME_DATE, DECISION_TIME + timedelta(hours=1), "EUR", 100, 18)


@pytest.fixture(scope="module")
def url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database with predictions of A and B in the morning, of A in the afternoon, and of another use case."""
    name = f"test_{uuid4().hex[:12]}"
    postgres_server.create_databases(name)
    made = postgres_server.url(name)
    migrate(made)
    whole = OutcomeDates(OUTCOME_DATE, OUTCOME_DATE)
    upsert_predictions(made, predictions(prediction("A", 0.5), prediction("B", 0.25)), scored=[scored(decides=whole)])
    later = DECISION_TIME + timedelta(hours=8)
    upsert_predictions(made, predictions(prediction("A", 0.75, decision_time=later)), scored=[scored(later, whole)])
    upsert_predictions(made, predictions(prediction("C", use_case="other")))
    yield made
    postgres_server.drop_database(name)


def asked(url: str, sql: str, given: dict[str, Given] | None = None, as_of: datetime = ASKED.as_of) -> list[tuple]:
    asked = Asked(ASKED.use_case, ASKED.day, as_of, ASKED.currency, ASKED.capacity, ASKED.business_days_left)
    return [tuple(row.values()) for row in report_rows(url, sql, asked, given or {}, file="a.sql")]


def test_a_report_sees_its_use_case_as_of_its_time(url: str) -> None:
    """Guards a page of a past date that changes with what was decided later."""
    listed = "SELECT entity_id, probability FROM work_list ORDER BY priority"
    assert asked(url, listed) == [("A", 0.5), ("B", 0.25)]
    assert asked(url, listed, as_of=DECISION_TIME + timedelta(hours=9)) == [("A", 0.75)]
    assert asked(url, listed, as_of=DECISION_TIME - timedelta(hours=1)) == []
    week_after = DECISION_TIME + timedelta(days=7, hours=1)
    assert asked(url, listed.replace("work_list", "work_list_week_before"), as_of=week_after) == [
        ("A", 0.5),
        ("B", 0.25),
    ]
    assert asked(url, "SELECT count(*) FROM predictions") == [(2,)]


def test_parameters_are_the_row_of_a_relation(url: str) -> None:
    sql = "SELECT use_case, date, month, currency, capacity, business_days_left, 'a:b %' || '%s' FROM report"
    assert asked(url, sql) == [("fails", OUTCOME_DATE, date(2026, 1, 1), "EUR", 100, 18, "a:b %%s")]


def test_given_rows_are_a_relation_whatever_they_hold(url: str) -> None:
    """Guards names that end a literal, or that PostgreSQL would take for markup."""
    rows: list[dict[str, Any]] = [
        {"name": "x'); DROP TABLE promotions; --", "at": datetime(2026, 1, 5, tzinfo=UTC), "n": -1, "is": None},
        {"name": '\\ %s :a {b} \u202e "', "at": None, "n": 2, "is": True},
    ]
    given = {"feeds": Given({"name": str, "at": datetime, "n": int, "is": bool}, rows)}
    assert asked(url, 'SELECT name, at, n, "is" FROM feeds', given) == [tuple(row.values()) for row in rows]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT 1,\n  nothing\nFROM report", 'a.sql:2: column "nothing" does not exist'),
        ("SELECT * FROM use_case_tiers", 'a.sql:1: relation "use_case_tiers" does not exist'),
        (
            "SELECT set_config('transaction_read_only', 'off', true)",
            "a.sql: transaction read-write mode must be set before any query",
        ),
        (
            "SELECT 1) AS one; DELETE FROM public.predictions; SELECT * FROM (SELECT 1",
            "a.sql: cannot insert multiple commands into a prepared statement",
        ),
        ("SELECT 1 / 0", "a.sql: division by zero"),
        ("SELECT 'a\x00b'", "a.sql:1: unterminated quoted string"),
        ("SELECT generate_series(1, 5001)", "a.sql: it gives more than 5,000 rows"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(url: str, sql: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        asked(url, sql)
    assert str(refused.value).startswith(said)
    assert asked(url, "SELECT count(*) FROM predictions") == [(2,)], "nothing was written"


def test_a_report_ends_after_its_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_SECONDS", 0.05)
    with pytest.raises(InputError, match=r"a\.sql: canceling statement due to statement timeout"):
        asked(url, "SELECT pg_sleep(20)")


def test_every_use_case_has_these_reports() -> None:
    assert list(shared_sql("reports")) == [
        "acted_on", "alert_history", "data_quality", "feed_lateness", "model_performance", "promotion_history",
    ]  # fmt: skip
