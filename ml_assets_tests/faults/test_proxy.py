"""The proxy does to requests what it is told, and nothing to the others."""

import threading
import time
from datetime import date

import pyarrow as pa
import pytest

from ml_assets.lake import PositionMovedError
from ml_assets_tests.faults.proxy import COMMIT, DATA, Action, Fault, FaultProxy

pytestmark = pytest.mark.faults


@pytest.fixture
def proxy(s3):
    with FaultProxy(s3).running() as running:
        yield running


@pytest.fixture
def lake(proxy, bucket):
    """A lake behind the proxy, with one row."""
    lake = proxy.server.lake(f"{bucket}/lake")
    append(lake, 1)
    return lake


def append(lake, number):
    rows = pa.table({"day": pa.array([date(2026, 1, 5)], pa.date32()), "n": pa.array([number], pa.int64())})
    lake.appender("t", ["day"]).append(rows, {"a": number - 1}, {"a": number})


def content(s3, bucket):
    """What lies in the store, seen without the proxy."""
    lake = s3.lake(f"{bucket}/lake")
    return sorted(lake.read("t")["n"].to_pylist()), lake.appender("t", ["day"]).positions(["a"])["a"]


def puts(proxy, pattern):
    return [line for line in proxy.requests if line.startswith("PUT") and pattern.search(line.split()[1])]


def test_what_no_fault_touches_passes(s3, bucket, proxy, lake):
    proxy.inject(Fault(Action.CUT, path=COMMIT, method="DELETE"))
    append(lake, 2)
    assert content(s3, bucket) == ([1, 2], 2)


@pytest.mark.parametrize("action", [Action.UNAVAILABLE, Action.CUT])
def test_a_commit_that_did_not_arrive_is_sent_again(s3, bucket, proxy, lake, action):
    injected = proxy.inject(Fault(action, COMMIT, "PUT", times=2))
    append(lake, 2)
    assert injected.hits == 2
    assert content(s3, bucket) == ([1, 2], 2)
    assert len(puts(proxy, COMMIT)) == 2 + 3  # the table, its first row, and three tries


def test_a_commit_whose_answer_was_lost_is_known_for_done(s3, bucket, proxy, lake):
    """Guards against landing twice: the store refuses the second try, since the first one arrived."""
    proxy.inject(Fault(Action.LOSE_ANSWER, COMMIT, "PUT", times=1))
    append(lake, 2)
    assert content(s3, bucket) == ([1, 2], 2)


@pytest.mark.parametrize("action", [Action.HOLD, Action.ARRIVE_LATE])
def test_a_held_commit_arrives_once_it_is_let_go(s3, bucket, proxy, lake, action):
    held = proxy.inject(Fault(action, COMMIT, "PUT", times=1))
    writer = threading.Thread(target=append, args=(lake, 2))
    writer.start()
    assert held.wait()
    assert len(puts(proxy, DATA)) == 2  # the second data file is there, its commit is not
    assert content(s3, bucket) == ([1], 1)
    held.lift()
    writer.join()
    assert content(s3, bucket) == ([1, 2], 2)


def test_of_two_that_make_a_table_at_once_one_is_refused(s3, bucket, proxy):
    """Guards against rows that come with a table's first commit: nothing would check them, and they would double."""
    held = proxy.inject(Fault(Action.HOLD, COMMIT, "PUT", times=1))
    refused = []

    def late():
        try:
            append(proxy.server.lake(f"{bucket}/lake"), 1)
        except PositionMovedError as moved:
            refused.append(moved)

    writer = threading.Thread(target=late)
    writer.start()
    assert held.wait()
    rows = pa.table({"day": pa.array([date(2026, 1, 5)] * 2, pa.date32()), "n": pa.array([1, 2], pa.int64())})
    s3.lake(f"{bucket}/lake").appender("t", ["day"]).append(rows, {"a": 0}, {"a": 2})
    held.lift()
    writer.join()
    assert content(s3, bucket) == ([1, 2], 2)
    assert len(refused) == 1


def test_a_delay_takes_its_time(s3, bucket, proxy, lake):
    proxy.inject(Fault(Action.DELAY, COMMIT, "PUT", times=1, seconds=0.5))
    started = time.monotonic()
    append(lake, 2)
    assert time.monotonic() - started >= 0.5


def test_a_store_that_hangs_goes_on_once_the_fault_is_lifted(s3, bucket, proxy, lake):
    hung = proxy.inject(Fault(Action.HANG, method="PUT"))
    writer = threading.Thread(target=append, args=(lake, 2))
    writer.start()
    assert hung.wait()
    hung.lift()
    writer.join()
    assert content(s3, bucket) == ([1, 2], 2)
