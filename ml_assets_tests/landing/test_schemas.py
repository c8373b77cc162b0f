"""Landing tables hold events and dead letters side by side: their columns must not meet."""

import pytest

from ml_assets.contracts import Event
from ml_assets.landing.schemas import landing_schema
from ml_assets.spec import EventSpec
from ml_assets.usecases import discover

EVENTS = [event for usecase in discover() for event in usecase.events]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.topic)
def test_no_column_of_a_landing_table_has_two_meanings(event):
    """Guards: a status has a `reason`, and so has a dead letter; Delta refused every commit of the topic."""
    names = landing_schema(event).names
    assert len(names) == len(set(names))


class Kinded(Event, frozen=True, kw_only=True):
    kind: str


def test_a_contract_cannot_take_a_column_of_the_landing_table():
    event = EventSpec("kinded", "kinded", Kinded, "An event.")
    with pytest.raises(ValueError, match="event kinded: its contract has the fields kind, which a landing table has"):
        landing_schema(event)
