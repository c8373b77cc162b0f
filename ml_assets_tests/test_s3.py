"""The S3 server of the tests behaves as S3 where the lake depends on it."""

import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import fsspec
import pyarrow as pa
import pytest

from ml_assets.lake import PositionMovedError

MONDAY = date(2026, 1, 5)


def rows(*numbers):
    return pa.table({"day": pa.array([MONDAY] * len(numbers), pa.date32()), "n": pa.array(numbers, pa.int64())})


def test_a_lake_on_s3_appends_once_and_fences(s3_lake):
    writer, late = s3_lake.appender("t", ["day"]), s3_lake.appender("t", ["day"])
    for each in (writer, late):
        each.positions(["a"])
    writer.append(rows(1, 2), {"a": 0}, {"a": 2})
    with pytest.raises(PositionMovedError):
        late.append(rows(1), {"a": 0}, {"a": 1})
    writer.append(rows(3), {"a": 2}, {"a": 3})
    with pytest.raises(PositionMovedError):
        late.append(rows(1), {"a": 0}, {"a": 1})
    assert sorted(s3_lake.read("t")["n"].to_pylist()) == [1, 2, 3]
    assert late.positions(["a"]) == {"a": 3}


def test_a_lake_on_s3_that_keeps_a_table_sees_what_another_writes(s3, s3_lake):
    """Guards a kept handle that cannot see on S3 whether it is still of the same table."""
    other = s3.lake(s3_lake.root)
    for number in (1, 2):
        s3_lake.replace("t", rows(number), "day", [MONDAY])
        assert other.read("t")["n"].to_pylist() == s3_lake.read("t")["n"].to_pylist() == [number]
    assert other.dataset("t") is other.dataset("t"), "a look without news opens nothing"


def test_of_many_conditional_writes_one_succeeds(s3, bucket):
    """Guards the server itself: two threads that both pass the check would make a lake double its rows."""

    def write(n):
        url = bucket.replace("s3://", s3.endpoint + "/") + "/contended"
        request = urllib.request.Request(url, data=b"%d" % n, method="PUT", headers={"If-None-Match": "*"})
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(24)))
    assert sorted(set(answers)) == [200, 412]
    assert answers.count(200) == 1


def test_s3fs_lists_what_was_dropped(s3, bucket):
    files = fsspec.filesystem("s3", **s3.filesystem_options)
    files.pipe(f"{bucket}/securities/2026-01-05.csv", b"isin\n")
    assert [entry.rpartition("/")[2] for entry in files.ls(f"{bucket}/securities")] == ["2026-01-05.csv"]
    assert files.cat(f"{bucket}/securities/2026-01-05.csv") == b"isin\n"
