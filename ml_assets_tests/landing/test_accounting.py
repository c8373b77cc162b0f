"""The account of a topic: it balances when every consumed offset is there once, and says what is wrong otherwise."""

import pytest

from ml_assets.lake import PositionMovedError
from ml_assets.landing.accounting import accept_loss, account
from ml_assets.landing.batch import Gap
from ml_assets.landing.kafka import app_id
from ml_assets_tests.landing.conftest import append_events
from ml_assets_tests.landing.messages import EPOCH, Taken, body, land_taken
from ml_assets_tests.landing.test_curate import an_event, landed


def test_nothing_landed_is_nothing_to_account_for(lake, event):
    assert account(lake, event) == []


def test_events_letters_and_gaps_make_up_what_was_consumed(lake, event):
    land_taken(lake, event, [Taken(0, body(0)), Taken(1, b"{"), Taken(4, body(4))], [Gap(0, 2, 4, "compaction")])
    land_taken(lake, event, [Taken(0, body(10), of=1)])
    first, second = account(lake, event)
    assert (first.position, first.landed, first.dead_lettered, first.gaps) == (5, 2, 1, 2)
    assert (second.partition, second.position, second.landed) == (1, 1, 1)
    assert first.is_right
    assert second.is_right


def test_a_missing_offset_is_found(lake, event):
    land_taken(lake, event, [Taken(0, body(0)), Taken(3, body(3))])
    (part,) = account(lake, event)
    assert (part.missing, part.is_right) == (2, False)


def test_a_doubled_offset_is_found(lake, event):
    land_taken(lake, event, [Taken(0, body(0)), Taken(0, body(0)), Taken(1, body(1))])
    (part,) = account(lake, event)
    assert (part.doubled, part.is_right) == (1, False)


def test_an_event_that_is_a_dead_letter_too_is_found(lake, event):
    land_taken(lake, event, [Taken(0, body(0)), Taken(0, b"{")])
    (part,) = account(lake, event)
    assert (part.doubled, part.is_right) == (1, False)


def test_rows_beyond_the_position_are_found(lake, event):
    append_events(lake, event, landed((an_event(1), 0)))
    (part,) = account(lake, event)
    assert (part.position, part.beyond, part.is_right) == (0, 1, False)


def test_an_accepted_loss_is_kept_with_its_reason_and_landing_goes_on_behind_it(lake, event):
    land_taken(lake, event, [Taken(0, body(0))])
    assert accept_loss(lake, event, EPOCH, 0, 10, "disk of broker 3, agreed with J. Doe") == (1, 10)
    land_taken(lake, event, [Taken(10, body(10))])
    (part,) = account(lake, event)
    assert (part.position, part.landed, part.gaps, part.lost, part.is_right) == (11, 2, 9, 9, True)


def test_a_loss_needs_a_reason_and_something_lost(lake, event):
    land_taken(lake, event, [Taken(0, body(0))])
    with pytest.raises(ValueError, match="for a reason"):
        accept_loss(lake, event, EPOCH, 0, 10, " ")
    with pytest.raises(ValueError, match="nothing is lost"):
        accept_loss(lake, event, EPOCH, 0, 1, "none")


def test_a_lander_that_was_before_an_accepted_loss_is_fenced(lake, event):
    """Guards: a lander that still holds messages of before must not land them behind the accepted gap."""
    appender = lake.appender(f"landing/{event.topic}", ["kind", "business_date"])
    start = appender.positions([app_id(event.topic, EPOCH, 0)])
    accept_loss(lake, event, EPOCH, 0, 10, "agreed")
    with pytest.raises(PositionMovedError):
        appender.append(lake.read(f"landing/{event.topic}"), start, {app_id(event.topic, EPOCH, 0): 3})
