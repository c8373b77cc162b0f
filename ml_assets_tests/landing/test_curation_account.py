"""The account of curation balances for each date, and finds what is in no table."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.lake import curated_table
from ml_assets.landing.curation_account import CurationTotals, account_of_curation, totals
from ml_assets.lifecycle.ingestion import curate_dates
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.landing.conftest import MONDAY, moved
from ml_assets_tests.landing.messages import NINE, Taken, body, land_taken

TUESDAY = date(2026, 1, 6)
EVENT = moved("accounted")
USECASE = replace(USE_CASE, events=(EVENT,), places=None)
NOW = datetime(2026, 1, 7, 9, tzinfo=UTC)
VALUES = {
    "good": lambda n: body(n),
    "bad": lambda n: body(n, quantity=-1),
    "copy": lambda _: body(0),
    "odd time": lambda n: body(n, event_time="9999-12-31T00:00:00Z"),
    "broken": lambda _: b"{",
    "tuesday": lambda n: body(n, event_time=NINE + timedelta(days=1)),
}


@given(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=12))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_landed_event_is_in_one_place(tmp_path_factory, kinds):
    from ml_assets.lake import Lake

    lake = Lake(str(tmp_path_factory.mktemp("account")))
    messages = [Taken(n, VALUES[kind](n)) for n, kind in enumerate(["good", *kinds])]
    land_taken(lake, EVENT, messages, now=NOW)
    days = [MONDAY, TUESDAY, NOW.date()]
    report = curate_dates(lake, USECASE, EVENT, days)
    accounts = account_of_curation(lake, USECASE, EVENT)
    for account in accounts:
        day = account.business_date
        assert account.landed == account.curated + account.quarantined + account.copies
        assert account.curated == report.rows_by_date.get(day, 0)
        assert account.quarantined == report.rejected.get(day, 0)
        assert account.copies == report.copies.get(day, 0)
        assert account.is_right(NOW + timedelta(days=9))
    assert sum(account.landed for account in accounts) == len(messages) - kinds.count("broken")


@pytest.mark.parametrize(("hours", "right"), [(1, True), (25, False)])
def test_what_is_in_no_table_is_told_after_a_day(lake, hours, right):
    """Guards: a row that nobody ever curates, of a date that is no partition or whose run was lost."""
    land_taken(lake, EVENT, [Taken(0, body(0)), Taken(1, body(1))], now=NINE)
    curate_dates(lake, USECASE, EVENT, [MONDAY])
    curated = lake.read(curated_table(USECASE, EVENT))
    lake.replace(curated_table(USECASE, EVENT), curated.slice(1), "business_date", [MONDAY])
    (account,) = account_of_curation(lake, USECASE, EVENT)
    assert (account.landed, account.curated, account.unaccounted) == (2, 1, 1)
    assert account.is_right(NINE + timedelta(hours=hours)) is right


def test_events_before_the_first_date_are_told_and_right(lake):
    land_taken(lake, EVENT, [Taken(0, body(0, event_time=NINE - timedelta(days=30)))], now=NINE)
    (account,) = account_of_curation(lake, USECASE, EVENT)
    assert account.early
    assert account.is_right(NOW)
    late = replace(account, early=False, business_date=MONDAY)
    assert totals([account, late, late]) == CurationTotals(3, 0, 0, 0, not_yet=2, early=1)
    assert account_of_curation(lake, USECASE, moved("never_landed")) == []
