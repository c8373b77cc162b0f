from datetime import date

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake.exceptions import CommitFailedError

from ml_assets.lake import Lake

MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path))


def rows(*pairs):
    return pa.table(
        {
            "day": pa.array([d for d, _ in pairs], pa.date32()),
            "n": pa.array([n for _, n in pairs], pa.int64()),
        }
    )


def content(lake, name="t"):
    return sorted((r["day"], r["n"]) for r in lake.read(name).to_pylist())


def test_replacing_a_partition_leaves_the_others(lake):
    lake.replace("t", rows((MONDAY, 1), (TUESDAY, 2)), "day", [MONDAY, TUESDAY])
    lake.replace("t", rows((TUESDAY, 3)), "day", [TUESDAY])
    assert content(lake) == [(MONDAY, 1), (TUESDAY, 3)]


def test_replacing_twice_changes_no_row(lake):
    for _ in range(2):
        lake.replace("t", rows((MONDAY, 1)), "day", [MONDAY])
    assert content(lake) == [(MONDAY, 1)]


def test_replacing_by_nothing_empties_the_partition(lake):
    lake.replace("t", rows((MONDAY, 1), (TUESDAY, 2)), "day", [MONDAY, TUESDAY])
    lake.replace("t", rows().cast(pa.schema([("day", pa.date32()), ("n", pa.int64())])), "day", [MONDAY])
    assert content(lake) == [(TUESDAY, 2)]


def test_an_empty_first_write_makes_a_readable_table(lake):
    lake.replace("t", rows(), "day", [MONDAY])
    assert lake.read("t").num_rows == 0


def test_rows_outside_the_replaced_partitions_are_refused(lake):
    with pytest.raises(ValueError, match="2026-01-06"):
        lake.replace("t", rows((TUESDAY, 2)), "day", [MONDAY])


def test_reading_an_old_version(lake):
    first = lake.replace("t", rows((MONDAY, 1)), "day", [MONDAY])
    lake.replace("t", rows((MONDAY, 2)), "day", [MONDAY])
    assert lake.read("t", version=first).column("n").to_pylist() == [1]


def test_filters_and_columns(lake):
    lake.replace("t", rows((MONDAY, 1), (TUESDAY, 2)), "day", [MONDAY, TUESDAY])
    assert lake.read("t", columns=["n"], where=ds.field("day") == TUESDAY).to_pylist() == [{"n": 2}]


def test_a_missing_table_says_what_to_do(lake):
    with pytest.raises(FileNotFoundError, match="materialize"):
        lake.read("nowhere")


def test_positions_are_recorded_with_the_rows(lake):
    assert lake.positions("t", ["a"]) == {}
    lake.append_once("t", rows((MONDAY, 1)), "day", {"a": 10}, expected={"a": 0})
    lake.append_once("t", rows((MONDAY, 2)), "day", {"a": 20, "b": 5}, expected={"a": 10, "b": 0})
    assert lake.positions("t", ["a", "b", "c"]) == {"a": 20, "b": 5}


def test_a_writer_with_an_outdated_position_is_refused(lake):
    """Guards against a lander that was paused, woke, and appends what another one has landed meanwhile."""
    lake.append_once("t", rows((MONDAY, 1)), "day", {"a": 1}, expected={"a": 0})
    with pytest.raises(CommitFailedError, match="stands at 1"):
        lake.append_once("t", rows((MONDAY, 1)), "day", {"a": 1}, expected={"a": 0})


def test_a_writer_that_checked_before_another_committed_is_fenced(lake, monkeypatch):
    """Guards the moment between check and commit: there the format's own conflict check must stop the later one."""
    lake.append_once("t", rows((MONDAY, 1)), "day", {"a": 1}, expected={"a": 0})
    stale = lake.table("t")
    lake.append_once("t", rows((MONDAY, 2)), "day", {"a": 2}, expected={"a": 1})
    monkeypatch.setattr(lake, "table", lambda name, version=None: stale)
    with pytest.raises(CommitFailedError):
        lake.append_once("t", rows((MONDAY, 2)), "day", {"a": 2}, expected={"a": 1})


def test_files_tell_partition_and_rows(lake):
    lake.append_once("t", rows((MONDAY, 1), (TUESDAY, 1)), "day", {"a": 1}, expected={})
    lake.append_once("t", rows((MONDAY, 2)), "day", {"a": 2}, expected={})
    assert sorted((file.partition, file.rows) for file in lake.files("t", "day")) == [
        (MONDAY, 1),
        (MONDAY, 1),
        (TUESDAY, 1),
    ]
    assert lake.files("nowhere", "day") == []
