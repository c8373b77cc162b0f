from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake.exceptions import CommitFailedError

from ml_assets.lake import Batches, Lake, PartitionBusyError, PositionMovedError, in_turn

MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)


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


def test_rows_can_be_made_some_at_a_time(lake):
    """Guards memory: of a table larger than it, some rows at a time are made; and again at the next call."""
    made = []

    def make():
        for n, day in enumerate((MONDAY, TUESDAY)):
            made.append(n)
            yield rows((day, n), (day, n + 10))

    batches = Batches(rows().schema, make)
    lake.replace("t", batches, "day", [MONDAY, TUESDAY])
    version = lake.replace("t", batches, "day", [MONDAY, TUESDAY])
    assert content(lake) == [(MONDAY, 0), (MONDAY, 10), (TUESDAY, 1), (TUESDAY, 11)]
    assert made == [0, 1, 0, 1]
    with pytest.raises(Exception, match="2026-01-06 do not belong"):
        lake.replace("t", batches, "day", [MONDAY])
    assert lake.version("t") == version


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


def test_two_that_make_a_table_at_once_keep_both_partitions(lake, monkeypatch):
    """Guards a backfill of a new asset: the later of two first writes must neither fail nor replace the other's."""
    late = Lake(lake.root, lake.options)
    monkeypatch.setattr(late, "table", lambda name: monkeypatch.undo())  # it looked before there was a table
    lake.replace("t", rows((MONDAY, 1)), "day", [MONDAY])
    late.replace("t", rows((TUESDAY, 2)), "day", [TUESDAY])
    assert content(lake) == [(MONDAY, 1), (TUESDAY, 2)]


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


def test_partitions_by_several_columns_are_told_apart(lake):
    """Guards the dataset that is made of the log's own list of files: their partition columns are not in them."""
    kinds = pa.table({"kind": ["a b", "a b", "c=d"], "day": [MONDAY, TUESDAY, TUESDAY], "n": [1, 2, 3]})
    lake.appender("t", ["kind", "day"]).append(kinds, {"a": 0}, {"a": 1})
    assert lake.read("t", where=ds.field("day") == TUESDAY).sort_by("n").select(kinds.column_names).equals(kinds[1:])
    assert lake.read("t", columns=["n"], where=ds.field("kind") == "a b").sort_by("n")["n"].to_pylist() == [1, 2]


def test_files_from_before_a_column_was_added_have_it_empty(lake):
    lake.replace("t", rows((MONDAY, 1)), "day", [MONDAY])
    more = rows((TUESDAY, 2)).append_column("m", pa.array([7], pa.int64()))
    lake.replace("t", more, "day", [TUESDAY])
    assert lake.read("t").sort_by("n")["m"].to_pylist() == [None, 7]


def test_a_missing_table_says_what_to_do(lake):
    with pytest.raises(FileNotFoundError, match="materialize"):
        lake.read("nowhere")


def test_positions_are_recorded_with_the_rows(lake):
    appender = lake.appender("t", ["day"])
    assert appender.positions(["a"]) == {"a": 0}
    appender.append(rows((MONDAY, 1)), {"a": 0}, {"a": 10})
    appender.append(rows((MONDAY, 2)), {"a": 10, "b": 0}, {"a": 20, "b": 5})
    assert lake.appender("t", ["day"]).positions(["a", "b", "c"]) == {"a": 20, "b": 5, "c": 0}


def test_a_writer_with_an_outdated_position_is_refused(lake):
    """Guards against a lander that was paused, woke, and appends what another one has landed meanwhile."""
    lake.appender("t", ["day"]).append(rows((MONDAY, 1)), {"a": 0}, {"a": 2})
    with pytest.raises(PositionMovedError, match="stands at 2"):
        lake.appender("t", ["day"]).append(rows((MONDAY, 1)), {"a": 0}, {"a": 1})


def test_a_writer_that_looked_before_another_committed_is_fenced(lake):
    """Guards the moment between look and commit: there the format's own conflict check must stop the later one."""
    stale = lake.appender("t", ["day"])
    stale.append(rows((MONDAY, 1)), {"a": 0}, {"a": 1})
    lake.appender("t", ["day"]).append(rows((MONDAY, 2)), {"a": 1}, {"a": 3})
    with pytest.raises(PositionMovedError, match="stands at 3"):
        stale.append(rows((MONDAY, 2)), {"a": 1}, {"a": 2})
    assert lake.read("t").num_rows == 2


def test_a_commit_whose_answer_was_lost_is_not_made_twice(lake):
    """Guards the retry after a time-out: the first attempt may have reached the store."""
    appender = lake.appender("t", ["day"])
    assert [appender.append(rows((MONDAY, 1)), {"a": 0}, {"a": 1}) for _ in range(2)] == [True, True]
    assert lake.read("t").num_rows == 1


def test_of_writers_of_the_very_same_commit_one_calls_it_its_own(lake):
    """Guards metrics that counted the messages of two landers, of which only one had landed them."""
    stale = lake.appender("t", ["day"])
    stale.append(rows((MONDAY, 1)), {"a": 0}, {"a": 1})
    assert lake.appender("t", ["day"]).append(rows((MONDAY, 2)), {"a": 1}, {"a": 2})
    assert not stale.append(rows((MONDAY, 2)), {"a": 1}, {"a": 2}), "it looked before the other's commit"
    assert not lake.appender("t", ["day"]).append(rows((MONDAY, 2)), {"a": 1}, {"a": 2}), "it looks after it"
    assert lake.read("t").num_rows == 2


def test_writers_of_different_applications_do_not_disturb_one_another(lake):
    one, other = lake.appender("t", ["day"]), lake.appender("t", ["day"])
    one.append(rows((MONDAY, 1)), {"a": 0}, {"a": 1})
    other.append(rows((MONDAY, 2)), {"b": 0}, {"b": 1})
    one.append(rows((MONDAY, 3)), {"a": 1}, {"a": 2})
    assert sorted(lake.read("t")["n"].to_pylist()) == [1, 2, 3]


def test_files_tell_partition_and_rows(lake):
    appender = lake.appender("t", ["day"])
    appender.append(rows((MONDAY, 1), (TUESDAY, 1)), {"a": 0}, {"a": 1})
    appender.append(rows((MONDAY, 2)), {"a": 1}, {"a": 2})
    assert sorted((file.partition, file.rows) for file in lake.files("t", "day")) == [
        (MONDAY, 1),
        (MONDAY, 1),
        (TUESDAY, 1),
    ]
    assert lake.files("nowhere", "day") == []


def test_a_file_is_read_by_the_range_that_the_log_has_of_it(lake):
    """Guards a column that was added later, of which a file has no values, and a partition with a sign in its path."""
    at, kinds = datetime(2026, 1, 5, 9, tzinfo=UTC), ("a b", "c%d", None)
    plain = pa.table({"kind": pa.array(kinds), "at": pa.array([at] * 3, pa.timestamp("us", "UTC")), "n": [1, 2, 3]})
    lake.appender("t", ["kind"]).append(plain, {"a": 0}, {"a": 1})
    lake.appender("t", ["kind"]).append(plain.append_column("more", pa.array([4, 5, 6])), {"a": 1}, {"a": 2})
    files = lake.files_with_ranges("t", ["at", "more"])
    assert [file.ranges["at"] for file in files] == [(at, at)] * 6
    found = {(file.values["kind"], file.ranges.get("more")): file.read(["more", "n"]).to_pylist() for file in files}
    assert found == {
        **{(kind, None): [{"more": None, "n": n}] for n, kind in enumerate(kinds, 1)},
        **{(kind, (n + 3, n + 3)): [{"more": n + 3, "n": n}] for n, kind in enumerate(kinds, 1)},
    }
    assert lake.files_with_ranges("nowhere", []) == []


def test_writers_of_one_partition_take_turns(lake):
    """Guards: of two retrainings of one date the second ended with a message of the table format."""
    days = [date(2026, 1, 5)]
    lake.create("t", pa.schema([("day", pa.date32()), ("writer", pa.int64())]), ["day"])

    def write(number: int) -> None:
        rows = pa.table({"day": pa.array(days * 3, pa.date32()), "writer": pa.array([number] * 3, pa.int64())})
        lake.replace("t", rows, "day", days)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    found = lake.read("t")["writer"].to_pylist()
    assert len(found) == 3, "each replaces the whole partition"
    assert len(set(found)) == 1


def test_what_was_made_of_older_data_replaces_nothing_newer(lake):
    """Guards a backfill beside a sensor's run: the slower one had read before an event landed late, and wrote last."""
    assert lake.stand("t") == 0
    before = lake.stand("t")
    lake.replace("t", rows((MONDAY, 2)), "day", [MONDAY])
    with pytest.raises(CommitFailedError):
        lake.replace("t", rows((MONDAY, 1), (TUESDAY, 1)), "day", [MONDAY, TUESDAY], since=before)
    with pytest.raises(CommitFailedError):
        lake.replace("t", rows(), "day", [MONDAY], since=before)
    assert content(lake) == [(MONDAY, 2)]
    lake.replace("t", rows((TUESDAY, 1)), "day", [TUESDAY], since=before)
    assert content(lake) == [(MONDAY, 2), (TUESDAY, 1)], "another partition is another matter"
    lake.replace("t", rows((MONDAY, 3)), "day", [MONDAY], since=lake.stand("t"))
    assert content(lake) == [(MONDAY, 3), (TUESDAY, 1)]


def test_whoever_was_overtaken_reads_again(lake):
    lake.replace("t", rows((MONDAY, 1)), "day", [MONDAY])
    faster = iter([5, None])

    def add_one() -> int:
        before = lake.stand("t")
        (seen,) = lake.read("t")["n"].to_pylist()
        if (number := next(faster)) is not None:
            lake.replace("t", rows((MONDAY, number)), "day", [MONDAY])
        return lake.replace("t", rows((MONDAY, seen + 1)), "day", [MONDAY], since=before)

    in_turn(add_one, "t")
    assert content(lake) == [(MONDAY, 6)]


def test_a_partition_that_is_always_being_written_is_refused_in_plain_words(lake, monkeypatch):
    def always(*_: object, **__: object) -> None:
        raise CommitFailedError("Commit failed: a concurrent transaction deleted data this operation read.")

    monkeypatch.setattr("ml_assets.lake.lake.write_deltalake", always)
    monkeypatch.setattr("ml_assets.lake.lake.time.sleep", lambda _: None)
    rows = pa.table({"day": pa.array([date(2026, 1, 5)], pa.date32())})
    with pytest.raises(PartitionBusyError, match="t, day 2026-01-05: other runs write the same at the same time"):
        lake.replace("t", rows, "day", [date(2026, 1, 5)])
