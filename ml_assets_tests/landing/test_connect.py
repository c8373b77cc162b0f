"""The objects of Kafka Connect's S3 sink, from a folder and from an S3 server."""

import gzip

import fsspec
import pyarrow.compute as pc
import pytest

from ml_assets.lake import landing_table
from ml_assets.landing.accounting import account
from ml_assets.landing.connect import land_objects
from ml_assets_tests.landing.messages import body


@pytest.fixture(params=["folder", "s3"])
def root(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "connect")
    server = request.getfixturevalue("s3")
    patch = request.getfixturevalue("monkeypatch")
    patch.setitem(fsspec.config.conf, "s3", server.filesystem_options)
    return f"{request.getfixturevalue('bucket')}/connect"


@pytest.fixture
def write(root, event):
    """A function that writes an object as the sink does: first offset and messages."""

    def write(first, *texts, partition=0, suffix="json"):
        content = b"".join(text + b"\n" for text in texts)
        path = f"{root}/topics/{event.topic}/partition={partition}/{event.topic}+{partition}+{first:010d}.{suffix}"
        with fsspec.open(path, "wb", auto_mkdir=True) as file:
            file.write(gzip.compress(content) if suffix.endswith("gz") else content)

    return write


def ids(lake, event):
    rows = lake.read(landing_table(event.topic), where=pc.field("kind") == "event")
    return sorted(int(i) for i in rows["event_id"].to_pylist())


def test_objects_land_once_and_the_next_run_goes_on_from_there(lake, event, root, write):
    write(0, body(0), b"{", body(2))
    write(3, body(3), suffix="json.gz")
    write(0, body(10), partition=1)
    (report,) = land_objects(lake, [event], root)
    assert (report.consumed, report.landed, report.dead_lettered) == (5, 4, 1)
    write(4, body(4))
    (report,) = land_objects(lake, [event], root)
    assert report.consumed == 1
    assert ids(lake, event) == [0, 2, 3, 4, 10]
    assert all(part.is_right for part in account(lake, event))


def test_an_object_that_is_written_again_is_the_same_object(lake, event, root, write):
    """Guards: the sink writes an object again after a crash; its name says that it is the same."""
    for _ in range(2):
        write(0, body(0), body(1))
        land_objects(lake, [event], root)
    assert ids(lake, event) == [0, 1]


def test_offsets_that_no_object_holds_are_a_gap(lake, event, root, write):
    write(0, body(0))
    write(5, body(5))
    (report,) = land_objects(lake, [event], root)
    assert report.gap_offsets == 4
    (part,) = account(lake, event)
    assert (part.gaps, part.is_right) == (4, True)


def test_a_folder_without_objects_lands_nothing(lake, event, tmp_path):
    (tmp_path / "connect").mkdir()
    assert land_objects(lake, [event], str(tmp_path / "connect")) == []
