"""Whatever lies in Connect's folder, landing goes on: nothing good is lost, what is bad is seen with its name."""

import gzip
import os
import time

import pyarrow.compute as pc
import pytest

import ml_assets.landing.connect as connect
from ml_assets.lake import landing_table
from ml_assets.landing.accounting import account
from ml_assets.landing.connect import land_objects
from ml_assets_tests.landing.conftest import moved
from ml_assets_tests.landing.messages import body

pytestmark = pytest.mark.hostile


@pytest.fixture
def event():
    return moved("moved")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "connect"
    folder.mkdir()
    return folder


def lines(*numbers):
    return b"".join(body(number) + b"\n" for number in numbers)


def write(root, first, content, *, partition=0, suffix="json"):
    path = root / f"moved+{partition}+{first:010d}.{suffix}"
    path.write_bytes(content)
    return path


def land(lake, event, root):
    (report,) = land_objects(lake, [event], str(root))
    assert report.consumed == report.landed + report.dead_lettered
    assert [part for part in account(lake, event) if not part.is_right] == []
    return report


def ids(lake, event):
    rows = lake.read(landing_table(event.topic), where=pc.field("kind") == "event")
    return sorted(int(number) for number in rows["event_id"].to_pylist())


def letters(lake, event):
    rows = lake.read(landing_table(event.topic), where=pc.field("kind") == "dead_letter")
    return rows["letter_reason"].to_pylist()


def rewritten(path, content):
    path.write_bytes(content)
    os.utime(path, (time.time() + 1, time.time() + 1))


@pytest.mark.parametrize(
    "damage", [lambda b: b"no gzip at all", lambda b: b[: len(b) // 2], lambda b: b[:-8] + b"x" * 8]
)
def test_an_object_that_cannot_be_unpacked_is_told_once_and_lands_when_it_is_mended(lake, event, root, damage):
    """Guards: one corrupt object stopped landing by Connect, all topics, at every try."""
    whole = gzip.compress(lines(*range(2, 400)))
    write(root, 0, lines(0, 1))
    bad = write(root, 2, damage(whole), suffix="json.gz")
    write(root, 400, lines(400, 401))
    write(root, 0, lines(1_000), partition=1)
    for _ in range(2):
        land(lake, event, root)
        assert {0, 1, 400, 401, 1_000} <= set(ids(lake, event))
        (reason,) = letters(lake, event)
        assert "moved+0+0000000002.json.gz: from offset" in reason
    rewritten(bad, whole)
    land(lake, event, root)
    assert land(lake, event, root).consumed == 0
    assert ids(lake, event) == [*range(402), 1_000]


@pytest.mark.parametrize("first", [10**15, 10**30])
def test_an_offset_that_no_topic_has_takes_no_other_along(lake, event, root, first):
    """Guards: the position jumped to 10^15 and all smaller offsets were skipped for ever, without a word."""
    write(root, 0, lines(0))
    write(root, first, lines(99))
    land(lake, event, root)
    write(root, 1, lines(1))
    land(lake, event, root)
    assert ids(lake, event) == [0, 1]
    (reason,) = letters(lake, event)
    assert f"moved+0+{first}.json: its name says" in reason


def test_a_partition_that_no_topic_has_is_told(lake, event, root):
    write(root, 0, lines(0), partition=10**12)
    write(root, 0, lines(1))
    land(lake, event, root)
    assert ids(lake, event) == [1]
    assert len(letters(lake, event)) == 1


def test_an_offset_too_high_by_much_does_not_lose_those_below(lake, event, root):
    write(root, 5_000_000, lines(99))
    land(lake, event, root)
    write(root, 0, lines(0, 1))
    write(root, 2, lines(2))
    land(lake, event, root)
    assert ids(lake, event) == [0, 1, 2, 99]


def test_the_unseen_tail_of_an_object_that_overlaps_or_grew_lands(lake, event, root):
    """Guards: an object that began below the position was taken for landed as a whole; its rows were lost silently."""
    write(root, 0, lines(*range(10)))
    grown = write(root, 5, lines(*range(5, 15)))
    land(lake, event, root)
    assert ids(lake, event) == list(range(15))
    rewritten(grown, lines(*range(5, 20)))
    land(lake, event, root)
    assert ids(lake, event) == list(range(20))
    assert land(lake, event, root).consumed == 0


def test_an_object_that_comes_after_those_behind_it_lands_what_was_missing(lake, event, root):
    """Guards: the offsets were noted as a gap, and the object that held them was skipped when it came."""
    write(root, 0, lines(*range(3)))
    write(root, 6, lines(*range(6, 9)))
    assert land(lake, event, root).gap_offsets == 3
    write(root, 2, lines(*range(2, 7)))
    land(lake, event, root)
    assert ids(lake, event) == list(range(9))
    assert land(lake, event, root).consumed == 0


def test_an_object_is_landed_in_pieces_that_fit_into_memory(lake, event, root, monkeypatch):
    """Guards: 1 MB that unpacks to 12 GiB was read into memory as a whole."""
    monkeypatch.setattr(connect, "_MOST_LINES", 7)
    monkeypatch.setattr(connect, "_LARGEST_OBJECT", 50_000)
    write(root, 0, gzip.compress(lines(*range(40))), suffix="json.gz")
    write(root, 40, gzip.compress(lines(*range(40, 2_000))), suffix="json.gz")
    land(lake, event, root)
    landed = ids(lake, event)
    assert landed == list(range(len(landed)))
    assert 300 < len(landed) < 800
    (reason,) = letters(lake, event)
    assert "larger than" in reason


def test_a_line_without_an_end_is_no_message(lake, event, root):
    write(root, 0, lines(0) + gzip.compress(b"")[:0], suffix="json")
    write(root, 1, gzip.compress(b"\0" * (40 << 20)), suffix="json.gz")
    write(root, 0, lines(5), partition=1)
    land(lake, event, root)
    assert ids(lake, event) == [0, 5]
    (reason,) = letters(lake, event)
    assert "a line of more than 16 MiB" in reason
