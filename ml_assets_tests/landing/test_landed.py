from datetime import UTC, datetime, timedelta

import msgspec

from ml_assets.landing.landed import Landed, landed_until, look
from ml_assets_tests.landing.conftest import MONDAY, append_events
from ml_assets_tests.landing.test_curate import EVENT, NINE, an_event, landed

TUESDAY = MONDAY + timedelta(days=1)


def on_tuesday(number):
    return msgspec.structs.replace(an_event(number), event_time=NINE + timedelta(days=1))


def test_nothing_has_landed_yet(lake):
    state, change = look(lake, [EVENT])
    assert change.dates == ()
    assert state.landed == {"moved": {}}


def test_only_what_is_new_is_a_change(lake):
    append_events(lake, EVENT, landed((an_event(1), 0), (on_tuesday(2), 60)))
    first, change = look(lake, [EVENT])
    assert change.dates == (MONDAY, TUESDAY)
    assert change.known_from == NINE
    assert look(lake, [EVENT], first)[1].dates == ()
    append_events(lake, EVENT, landed((an_event(3), 600)))
    _, late = look(lake, [EVENT], first)
    assert late.dates == (MONDAY,)
    assert late.known_from == NINE + timedelta(minutes=600)
    assert late.rows == {"moved": 1}


def test_the_state_survives_a_cursor(lake):
    append_events(lake, EVENT, landed((an_event(1), 0)))
    state, _ = look(lake, [EVENT])
    again = msgspec.json.decode(msgspec.json.encode(state), type=Landed)
    assert look(lake, [EVENT], again)[1].dates == ()


def test_what_somebody_has_read_up_to_is_seen_and_what_came_later_is_not(lake):
    append_events(lake, EVENT, landed((an_event(1), 0), (on_tuesday(2), 0)))
    read = landed_until(lake, EVENT, [MONDAY])
    assert read is not None
    state, _ = look(lake, [EVENT])
    assert look(lake, [EVENT], state.seen_by("moved", {MONDAY: read}))[1].dates == (TUESDAY,)
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    assert look(lake, [EVENT], state.seen_by("moved", {MONDAY: long_ago}))[1].dates == (MONDAY, TUESDAY)
