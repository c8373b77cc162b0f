"""Compaction and vacuum: fewer files, the same rows, and old versions that somebody is pinned to."""

from datetime import date

import pyarrow as pa
import pytest

from ml_assets.lake.maintenance import maintain

MONDAY = date(2026, 1, 5)


def row(number):
    return pa.table({"n": [number], "day": pa.array([MONDAY], pa.date32())})


@pytest.fixture
def appender(lake):
    made = lake.appender("t", ["day"])
    for number in range(5):
        made.append(row(number), {"a": number}, {"a": number + 1})
    return made


def numbers(lake, version=None):
    return sorted(lake.read("t", version=version)["n"].to_pylist())


def test_small_files_become_one_and_no_row_changes(lake, appender):
    (report,) = maintain(lake, ["t", "nowhere"], keep_hours=168)
    assert (report.table, report.files_before, report.files_after, report.removed_files) == ("t", 5, 1, 0)
    assert numbers(lake) == [0, 1, 2, 3, 4]


def test_positions_outlive_a_compaction(lake, appender):
    """Guards: a lander goes on behind what it has landed, also when its files have been rewritten."""
    maintain(lake, ["t"], keep_hours=0)
    assert lake.appender("t", ["day"]).positions(["a"]) == {"a": 5}
    appender.append(row(5), {"a": 5}, {"a": 6})
    assert numbers(lake) == [0, 1, 2, 3, 4, 5]


def test_a_reader_of_an_older_version_is_not_disturbed(lake, appender):
    reading = lake.dataset("t")
    maintain(lake, ["t"], keep_hours=168)
    assert sorted(reading.to_table()["n"].to_pylist()) == [0, 1, 2, 3, 4]


def test_versions_that_somebody_is_pinned_to_stay_when_the_others_go(lake, appender):
    """Guards: a model is reproduced from the versions that it was trained on, however long ago."""
    (report,) = maintain(lake, ["t"], keep_hours=0, pinned={"t": {3}})
    assert report.pinned == (3,)
    assert report.removed_files == 2
    assert numbers(lake, version=3) == [0, 1, 2]
    with pytest.raises(FileNotFoundError):
        numbers(lake, version=4)
    assert numbers(lake) == [0, 1, 2, 3, 4]


def test_an_append_meanwhile_is_no_conflict(lake, appender):
    def append(step):
        if step == "during_compaction":
            appender.append(row(5), {"a": 5}, {"a": 6})

    maintain(lake, ["t"], keep_hours=0, at_step=append)
    assert numbers(lake) == [0, 1, 2, 3, 4, 5]
