"""After a fix, dead letters land: each once, with their own coordinates, known from now on."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pyarrow.compute as pc
import pytest

from ml_assets.contracts import Event
from ml_assets.lake import landing_table
from ml_assets.landing import dead_letters
from ml_assets.landing.accounting import account
from ml_assets.landing.curate import read_landed
from ml_assets.landing.dead_letters import replay, waiting_dead_letters
from ml_assets.landing.landed import look
from ml_assets_tests.landing.conftest import MONDAY
from ml_assets_tests.landing.messages import Taken, body, land_taken


class Mended(Event, frozen=True, kw_only=True):
    """The contract after the fix: the side has become free text."""

    isin: str
    side: str
    quantity: int


@pytest.fixture
def mended(event):
    return dataclasses.replace(event, contract=Mended)


@pytest.fixture
def landed(lake, event):
    """Two events, two letters that the fix mends, and one that nothing mends; landed on a Tuesday."""
    texts = [body(1), body(2, side="LEFT"), b"{", body(4), body(5, side="UP")]
    tuesday = datetime(2026, 1, 6, 8, tzinfo=UTC)
    land_taken(lake, event, [Taken(n, text) for n, text in enumerate(texts)], now=tuesday)


def event_ids(lake, event):
    rows = lake.read(landing_table(event.topic), where=pc.field("kind") == "event")
    return sorted(rows["event_id"].to_pylist())


def test_letters_wait_with_bytes_reason_and_coordinates(lake, event, landed):
    letters = waiting_dead_letters(lake, event).to_pylist()
    assert [letter["kafka_offset"] for letter in letters] == [1, 2, 4]
    assert letters[0]["value"] == body(2, side="LEFT")
    assert "Invalid enum value" in letters[0]["reason"]


def test_a_fix_lands_each_letter_once(lake, event, mended, landed):
    report = replay(lake, mended)
    assert report.landed == 2
    assert list(report.refused.values()) == [1]
    assert event_ids(lake, event) == ["1", "2", "4", "5"]
    assert replay(lake, mended).landed == 0
    assert event_ids(lake, event) == ["1", "2", "4", "5"]
    assert waiting_dead_letters(lake, event)["kafka_offset"].to_pylist() == [2]
    assert all(part.is_right for part in account(lake, event))


def test_without_a_fix_nothing_lands(lake, event, landed):
    assert replay(lake, event).landed == 0
    assert waiting_dead_letters(lake, event).num_rows == 3


def test_a_replayed_event_is_known_from_the_replay_on(lake, mended, landed):
    """Guards the point in time: nobody could act on an event while it lay among the dead letters."""
    now = datetime(2026, 1, 9, 12, tzinfo=UTC)
    replay(lake, mended, now=now)
    rows, _ = read_landed(lake, mended, [MONDAY])
    known = dict(zip(rows["event_id"].to_pylist(), rows["known_at"].to_pylist(), strict=True))
    assert known["2"] == known["5"] == now
    assert known["1"] < now


def test_the_dates_of_event_and_letter_are_made_again(lake, event, mended, landed):
    """Guards: the date that the dead letters stopped must be asked for again, though its events have another date."""
    before, _ = look(lake, [event])
    report = replay(lake, mended)
    _, change = look(lake, [event], before)
    tuesday = MONDAY + timedelta(days=1)
    assert change.dates == report.dates == (MONDAY, tuesday)
    assert read_landed(lake, event, [tuesday])[1].num_rows == 1


def test_of_two_replays_at_once_one_lands_a_letter(lake, event, mended, landed, monkeypatch):
    decode_again, other = dead_letters._decode_again, []

    def overtaken(*args):
        if not other:
            other.append(None)
            other[0] = replay(lake, mended)
        return decode_again(*args)

    monkeypatch.setattr(dead_letters, "_decode_again", overtaken)
    assert replay(lake, mended).landed == 0
    assert other[0].landed == 2
    assert event_ids(lake, event) == ["1", "2", "4", "5"]
