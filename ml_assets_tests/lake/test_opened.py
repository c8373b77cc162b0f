"""A table that is kept open is never older than the lake: whoever commits, and whatever becomes of its log."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ml_assets.lake import Lake
from ml_assets.lake import lake as module
from ml_assets.lake.maintenance import maintain

DAYS = [date(2026, 1, 5) + timedelta(days=n) for n in range(4)]


def rows(day, *numbers):
    return pa.table({"day": pa.array([day] * len(numbers), pa.date32()), "n": pa.array(numbers, pa.int64())})


def content(lake):
    dataset = lake.dataset("t")
    return None if dataset is None else sorted((tuple(r.values()) for r in dataset.to_table().to_pylist()), key=str)


def all_that_is_told(lake):
    """Whatever a lake tells of a table from what it keeps."""
    return (
        lake.version("t"),
        content(lake),
        lake.positions("t", ["a", "b"]),
        lake.file_names("t", "day"),
        lake.files("t", "day"),
        [(f.values, f.rows, f.ranges, f.read(["n"]).to_pylist()) for f in lake.files_with_ranges("t", ["n"])],
    )


ACTIONS = {
    "replace": lambda lake, n: lake.replace("t", rows(DAYS[n % 4], n, n + 1), "day", [DAYS[n % 4]]),
    "append": lambda lake, n: _append(lake, n),
    "maintain": lambda lake, n: maintain(lake, ["t"], keep_hours=0),
    "checkpoint": lambda lake, n: _of(lake).create_checkpoint(),
    "empty": lambda lake, n: lake.empty("t"),
    "grow": lambda lake, n: lake.replace(
        "t", rows(DAYS[n % 4], n).append_column(f"m{n % 2}", pa.array([n])), "day", [DAYS[n % 4]]
    ),
    "remove": lambda lake, n: shutil.rmtree(lake.uri("t"), ignore_errors=True),
}


def _of(lake):
    if not DeltaTable.is_deltatable(lake.uri("t")):
        lake.replace("t", rows(DAYS[0], 0), "day", [DAYS[0]])
    return DeltaTable(lake.uri("t"))


def _append(lake, n):
    appender = lake.appender("t", ["day"])
    start = appender.positions(["a"])
    appender.append(rows(DAYS[n % 4], n), start, {"a": start["a"] + 1})


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([("one", "grow"), ("other", "append"), ("one", "replace")])
@given(st.lists(st.tuples(st.sampled_from(["one", "other"]), st.sampled_from(sorted(ACTIONS))), max_size=9))
def test_two_that_keep_tables_see_what_a_newcomer_sees(tmp_path_factory, steps):
    """Guards stale reads: of commits, of compaction and vacuum, of new columns, of a table that was made again."""
    root = str(tmp_path_factory.mktemp("lake"))
    lakes = {"one": Lake(root), "other": Lake(root)}
    for number, (who, what) in enumerate(steps):
        ACTIONS[what](lakes[who], number)
        told = all_that_is_told(Lake(root))
        assert [all_that_is_told(lake) for lake in lakes.values()] == [told, told]


def test_a_log_that_was_cut_since_is_read_anew(tmp_path):
    """Guards a process that has slept for longer than the log is kept: the commits after its own are gone."""
    sleeper, worker = Lake(str(tmp_path)), Lake(str(tmp_path))
    worker.replace("t", rows(DAYS[0], 1), "day", [DAYS[0]])
    assert content(sleeper) == [(DAYS[0], 1)]
    for n in range(2, 7):
        worker.replace("t", rows(DAYS[0], n), "day", [DAYS[0]])
    DeltaTable(worker.uri("t")).create_checkpoint()
    worker.replace("t", rows(DAYS[1], 7), "day", [DAYS[1]])
    for version in range(1, 5):  # the sleeper's own commit is still there, and those after it are not
        (tmp_path / "t" / "_delta_log" / f"{version:020d}.json").unlink()
    assert content(sleeper) == content(Lake(str(tmp_path))) == [(DAYS[0], 6), (DAYS[1], 7)]


def test_what_was_read_stays_as_it_was(tmp_path):
    """Guards a reader whose dataset moves under it while another thread reads or writes."""
    lake = Lake(str(tmp_path))
    lake.replace("t", rows(DAYS[0], 1), "day", [DAYS[0]])
    before = lake.dataset("t")
    lake.replace("t", rows(DAYS[0], 2), "day", [DAYS[0]])
    assert before.to_table()["n"].to_pylist() == [1]
    assert lake.read("t", version=1)["n"].to_pylist() == [1]


def test_threads_that_share_a_lake_lose_nothing(tmp_path):
    """Guards a handle that is moved by two at once: a write on top of what its writer has not seen."""
    lake = Lake(str(tmp_path))
    lake.replace("t", rows(DAYS[0], 0), "day", [DAYS[0]])

    def work(n):
        lake.replace("t", rows(DAYS[n], n), "day", [DAYS[n]])
        return (DAYS[n], n) in content(lake)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [1, 2, 3]))
    assert content(lake) == [(DAYS[n], n) for n in range(4)]


def test_a_write_that_failed_leaves_no_handle_behind(tmp_path, monkeypatch):
    lake = Lake(str(tmp_path))
    lake.replace("t", rows(DAYS[0], 1), "day", [DAYS[0]])

    def fail(*_, **__):
        raise DeltaError("the store is gone")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_deltalake", fail)
        with pytest.raises(DeltaError, match="gone"):
            lake.replace("t", rows(DAYS[0], 2), "day", [DAYS[0]])
    assert not lake._opened
    assert content(lake) == [(DAYS[0], 1)]


def test_a_look_without_news_opens_nothing(tmp_path, monkeypatch):
    """Guards the seconds that a rehearsed day spent on opening the same tables hundreds of times."""
    lake = Lake(str(tmp_path))
    lake.replace("t", rows(DAYS[0], 1), "day", [DAYS[0]])
    first = lake.dataset("t")
    monkeypatch.setattr(module, "DeltaTable", None)
    assert lake.dataset("t") is first
    assert lake.version("t") == 1
