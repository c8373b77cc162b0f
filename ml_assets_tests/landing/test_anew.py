"""A topic whose history was landed live is landed anew, as known when it was published."""

import dataclasses
from datetime import UTC, date, datetime

import pytest
from deltalake.exceptions import CommitFailedError

from ml_assets.lake import Lake, PositionMovedError, landing_table
from ml_assets.landing.accounting import account
from ml_assets.landing.anew import dates_landed, known_too_late, plan_anew, take_out
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.usecases.cns_fails.usecase import USE_CASE
from ml_assets_tests.kafka.topics import delete_topic
from ml_assets_tests.landing.conftest import MONDAY
from ml_assets_tests.landing.messages import Message, body

PUBLISHED = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@pytest.fixture
def usecase(event):
    """A use case that reads the test's topic."""
    return dataclasses.replace(USE_CASE, name="moves", tier="low", events=(event,))


def send(broker, event, *numbers):
    ensure_topics(broker, [event.topic], partitions=2)
    produce(
        broker,
        [Message(event.topic, f"k{n}".encode(), body(n), int(PUBLISHED.timestamp() * 1000) + n) for n in numbers],
    )


def land(lake, event, broker, clock):
    (report,) = Lander(lake, [event], broker, clock=clock).land_available()
    return report


def known(lake, event):
    return lake.read(landing_table(event.topic), columns=["known_at"])["known_at"].to_pylist()


def test_history_that_was_landed_live_is_landed_anew_as_published(lake, event, usecase, broker):
    """Guards the way back from `land` without `--replay`: a second landing consumed nothing."""
    send(broker, event, *range(10))
    land(lake, event, broker, "live")
    before = lake.version(landing_table(event.topic))
    assert land(lake, event, broker, "replay").consumed == 0
    (plan,) = plans = plan_anew(lake, broker.admin(), usecase)
    assert (plan.landed, plan.earlier) == (10, 0)
    take_out(lake, plans)
    assert land(lake, event, broker, "replay").landed == 10
    assert len(known(lake, event)) == 10
    assert {time.date() for time in known(lake, event)} == {MONDAY}
    assert all(part.is_right for part in account(lake, event))
    assert lake.read(landing_table(event.topic), version=before).num_rows == 10
    assert land(lake, event, broker, "replay").consumed == 0


def test_what_the_broker_has_no_more_is_dropped_only_if_told(lake, event, usecase, broker):
    send(broker, event, 1, 2)
    land(lake, event, broker, "live")
    delete_topic(broker, event.topic)
    send(broker, event, 1, 2, 3)
    with pytest.raises(ValueError, match="2 messages landed before the topic was made anew"):
        plan_anew(lake, broker.admin(), usecase)
    assert len(known(lake, event)) == 2
    (plan,) = plans = plan_anew(lake, broker.admin(), usecase, drop_earlier=True)
    assert (plan.landed, plan.earlier) == (0, 2)
    take_out(lake, plans)
    assert land(lake, event, broker, "replay").landed == 3
    assert {time.date() for time in known(lake, event)} == {MONDAY}
    assert all(part.is_right for part in account(lake, event))


def test_the_high_tier_is_refused(lake, usecase, broker):
    with pytest.raises(ValueError, match="tier high"):
        plan_anew(lake, broker.admin(), dataclasses.replace(usecase, tier="high"))


def test_a_lander_that_writes_meanwhile_is_told(lake, event, usecase, broker, monkeypatch):
    """Guards rows that a lander appends between the look and the commit: they must not stay beside the new ones."""
    send(broker, event, 1)
    land(lake, event, broker, "live")
    plans = plan_anew(lake, broker.admin(), usecase)
    table = Lake.table

    def overtaken(self, name, version=None):
        found = table(self, name, version)
        monkeypatch.undo()
        send(broker, event, 2)
        land(self, event, broker, "live")
        return found

    monkeypatch.setattr(Lake, "table", overtaken)
    with pytest.raises(PositionMovedError, match="a lander has written at the same time") as error:
        take_out(lake, plans)
    assert isinstance(error.value.__cause__, CommitFailedError)
    assert len(known(lake, event)) == 2


def test_events_that_are_known_too_late_are_told_with_what_mends_it(lake, event, usecase, broker):
    assert known_too_late(lake, usecase) == ""
    assert dates_landed(lake, usecase.events) is None
    send(broker, event, 1, 2)
    land(lake, event, broker, "live")
    assert "`ml-assets land-anew moves --replay`" in known_too_late(lake, usecase)
    assert "to 2026-01-05 are known since" in known_too_late(lake, usecase, MONDAY)
    assert known_too_late(lake, usecase, datetime.now(UTC).date()) == ""
    assert known_too_late(lake, usecase, date(2026, 1, 2)) == "", "there are no events up to that date"
    assert dates_landed(lake, usecase.events) == (MONDAY, MONDAY)
    take_out(lake, plan_anew(lake, broker.admin(), usecase))
    assert dates_landed(lake, usecase.events) is None
    land(lake, event, broker, "replay")
    assert known_too_late(lake, usecase) == ""
    assert known_too_late(lake, usecase, MONDAY) == ""
