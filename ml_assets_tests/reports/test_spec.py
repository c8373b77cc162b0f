"""The head of a report's file, and what is refused of it."""

from datetime import UTC, date, datetime

import pytest

from ml_assets.errors import InputError
from ml_assets.reports.spec import read_report
from ml_assets_tests.reports.made import HEAD, SQL


def test_a_head_is_read() -> None:
    report = read_report("fails", "fails.sql", SQL, owner="operations")
    assert (report.title, report.owner, report.cadence) == ("Fails", "operations", "daily")
    assert [column.heading("EUR") for column in report.columns] == ["Market", "Fails", "Cost (EUR)", "Change"]
    assert report.as_of(date(2026, 1, 14)) == datetime(2026, 1, 14, 8, tzinfo=UTC)
    assert report.reads("work_list")
    assert not report.reads("predictions")
    whole = read_report("fails", "fails.sql", SQL.replace("as_of: 08:00", "as_of: end of day"), owner="operations")
    assert f"{whole.as_of(date(2026, 1, 14)):%d %H:%M}" == "14 23:59"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (SQL.replace("-- @title: Fails\n", ""), "fails.sql: the head lacks @title"),
        (SQL.replace("-- @title", "-- @titel"), "there is no tag @titel"),
        (HEAD + SQL, "the tag @title is there twice"),
        (SQL.replace("daily", "weekly"), "@cadence is 'weekly'; it is daily or monthly"),
        (SQL.replace("08:00", "noon"), "@as_of is 'noon'"),
        (SQL.replace("| currency", "| euros"), "the column cost has the unit 'euros'; units are text"),
        (SQL.replace("cost | Cost | currency", "cost, currency"), "is not `name | title | unit`"),
        (SQL.replace("cost | Cost", "fails | Cost"), "the column fails is declared twice"),
        (SQL.replace("{fails}", "{fail}"), "the summary names {fail}, which is no column"),
        (SQL.replace("bars | by market | market | cost", "bars | by market | market | market"), "which is no number"),
        (SQL.replace("bars | by market | market | cost", "pie | a | market | cost"), "is not `bars or lines"),
        (SQL.replace("FROM work_list", "FROM work_list WHERE outcome_date = CURRENT_DATE"), "it names CURRENT_DATE"),
        (SQL.replace("FROM work_list", "FROM public.work_list"), "it names public"),
        (SQL.replace("FROM work_list", "FROM work_list; DELETE FROM predictions"), "a report is one SELECT"),
    ],
)
def test_a_wrong_head_says_what_is_wrong(sql: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        read_report("fails", "fails.sql", sql, owner="operations")
    assert said in str(refused.value)
    assert str(refused.value).startswith("fails.sql: ")
