"""What the sensor asks for: the plan alone, without a lake."""

from datetime import UTC, date, datetime, time, timedelta

import pytest

from ml_assets.defs.sensors.landed import Passed, plan
from ml_assets.landing.landed import Change, DateState, Landed
from ml_assets.spec import UseCase
from ml_assets_tests import late_payments

MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY = (date(2026, 1, 12) + timedelta(days=n) for n in range(5))
NOON = time(12, tzinfo=UTC)


@pytest.fixture(scope="module")
def usecase(tmp_path_factory) -> UseCase:
    return late_payments.usecase_of(late_payments.make_package(tmp_path_factory.mktemp("plan")))


def landed(*days: date) -> Landed:
    return Landed({"late_payments_invoices": {day: DateState(10, datetime.combine(day, NOON)) for day in days}})


NOTHING = Passed()


def asked(usecase, landed, change, looked_at, now, passed=NOTHING):
    """The runs as (assets made, first date, last date)."""
    found = []
    for request in plan(usecase, landed, change, looked_at, now, passed):
        tags = request.tags
        first = request.partition_key or tags["dagster/asset_partition_range_start"]
        last = request.partition_key or tags["dagster/asset_partition_range_end"]
        made = "all" if len(request.asset_selection) > 2 else "features and labels"
        found.append((made, date.fromisoformat(first), date.fromisoformat(last)))
    return found


def at(day: date, hour: int) -> datetime:
    return datetime.combine(day, time(hour), tzinfo=UTC)


def test_neighbouring_dates_are_one_run_and_a_gap_makes_two(usecase):
    change = Change((MONDAY, TUESDAY, THURSDAY), at(THURSDAY, 20))
    runs = asked(usecase, landed(MONDAY, TUESDAY, THURSDAY), change, at(THURSDAY, 19), at(THURSDAY, 21))
    assert runs == [("all", MONDAY, TUESDAY), ("all", THURSDAY, THURSDAY)]


def test_a_weekend_is_no_gap(usecase):
    following = FRIDAY + timedelta(days=3)
    change = Change((FRIDAY, following), None)
    runs = asked(usecase, landed(FRIDAY, following), change, at(following, 10), at(following, 11))
    assert runs == [("all", FRIDAY, following)]


def test_a_late_event_that_is_known_now_changes_its_own_date_only(usecase):
    """Live: what is known only now cannot have changed a decision of yesterday."""
    change = Change((MONDAY,), at(THURSDAY, 20))
    runs = asked(usecase, landed(MONDAY, THURSDAY), change, at(THURSDAY, 19), at(THURSDAY, 21))
    assert runs == [("all", MONDAY, MONDAY)]


def test_a_late_event_that_was_known_before_decisions_changes_these_too(usecase):
    """History played again, or a lander that was down: decisions since then should have seen it."""
    change = Change((MONDAY,), at(TUESDAY, 9))
    runs = asked(usecase, landed(MONDAY, TUESDAY, WEDNESDAY), change, at(THURSDAY, 8), at(THURSDAY, 9))
    assert runs == [("all", MONDAY, MONDAY), ("features and labels", TUESDAY, WEDNESDAY)]


def test_a_decision_time_that_has_come_is_asked_for(usecase):
    """Guards: the last event of a day lands before its last slot, and nothing lands that would bring it about."""
    nothing = Change((), None)
    runs = asked(usecase, landed(MONDAY), nothing, at(MONDAY, 17), at(MONDAY, 18))
    assert runs == [("features and labels", MONDAY, MONDAY)]
    assert asked(usecase, landed(MONDAY), nothing, at(MONDAY, 18), at(MONDAY, 19)) == []


def test_a_feed_that_has_stopped_makes_no_more_decisions(usecase):
    assert asked(usecase, landed(MONDAY), Change((), None), at(FRIDAY, 17), at(FRIDAY, 19)) == []


def test_the_same_landed_data_is_asked_for_by_the_same_run_key(usecase):
    change = Change((MONDAY,), None)

    def keys(state: Landed) -> list:
        return [request.run_key for request in plan(usecase, state, change, at(MONDAY, 9), at(MONDAY, 10))]

    more = Landed({"late_payments_invoices": {MONDAY: DateState(11, at(MONDAY, 13))}})
    assert keys(landed(MONDAY)) == keys(landed(MONDAY))
    assert keys(landed(MONDAY)) != keys(more)


def test_an_outcome_that_landed_data_now_reaches_is_asked_for(usecase):
    """Guards: the outcome of a date is known on the next morning; nothing else may land then."""
    passed = Passed(outcomes=[at(TUESDAY, 6)])
    runs = asked(usecase, landed(MONDAY), Change(()), at(TUESDAY, 8), at(TUESDAY, 9), passed)
    assert runs == [("features and labels", TUESDAY, TUESDAY)]


def test_dates_outside_the_partitions_are_not_asked_for(usecase):
    long_ago = date(2020, 1, 6)
    change = Change((long_ago,), None)
    assert asked(usecase, landed(long_ago, MONDAY), change, at(MONDAY, 9), at(MONDAY, 10)) == []


def test_days_that_decisions_waited_for_are_asked_for(usecase):
    """Guards: a decision waits for a late feed, and when that has caught up nothing else asks for it."""
    passed = Passed(days=[MONDAY, TUESDAY])
    runs = asked(usecase, landed(MONDAY), Change(()), at(MONDAY, 19), at(MONDAY, 20), passed)
    assert runs == [("features and labels", MONDAY, MONDAY)], "of Tuesday no decision time has come"
