"""Files of one's own become messages that their contract takes; what it does not take is named by line."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.contracts import Event
from ml_assets.landing.decode import Decoder
from ml_assets.landing.files import field_name, read_events
from ml_assets.spec import EventSpec


class Order(Event, frozen=True, kw_only=True):
    order_no: str
    weight_kg: float
    pieces: int | None = None
    due: date
    kind: Literal["box", "bag"]
    fragile: bool = False


ORDERS = EventSpec("orders", "orders", Order, "Orders.")
CSV = """\ufeffOrder No,When,Weight kg,Pieces,Due,Kind,Fragile,Colour
A1,2026-03-02T10:00:00Z,1.5,2,2026-03-04,box,true,red
A2,2026-03-02 09:00:00+01:00,2,,2026-03-05,bag,false,
A3,2026-03-01,3,7,2026-03-06,box,0,blue
A4,yesterday,3,7,2026-03-06,box,0,blue
A5,2026-03-01,heavy,7,2026-03-06,box,0,blue
A6,2026-03-01,3,7,2026-03-06,crate,0,blue
A7,2026-03-01,3
"""


def read(path: Path, **options):
    return read_events(path, ORDERS, event_time="When", **options)


@pytest.fixture
def csv_file(tmp_path) -> Path:
    path = tmp_path / "orders.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


def test_good_lines_are_messages_and_bad_ones_are_named(csv_file):
    found = read(csv_file)
    events = [Decoder(Order).decode(message.value) for message in found.messages]
    assert [event.order_no for event in events] == ["A3", "A2", "A1"]  # in order of publication
    assert events[1].event_time == datetime(2026, 3, 2, 8, tzinfo=UTC)
    assert (events[2].pieces, events[1].pieces, events[2].fragile) == (2, None, True)
    assert [line for line, _ in found.refused] == [5, 6, 7, 8]
    assert "yesterday" in found.refused[0][1]
    assert "$.weight_kg" in found.refused[1][1]
    assert "crate" in found.refused[2][1]
    assert found.refused[3][1] == "it has 3 fields, the first line has 8"
    assert found.ignored == ("colour",)
    assert found.made_ids


def test_the_same_rows_in_another_format_are_the_same_events(csv_file, tmp_path):
    """Guards numbers and dates that are text in one format and typed in the other."""
    rows = [
        {"order_no": "A1", "when": datetime(2026, 3, 2, 10, tzinfo=UTC), "weight_kg": 1.5, "pieces": 2,
         "due": date(2026, 3, 4), "kind": "box", "fragile": True},
        {"order_no": "A3", "when": datetime(2026, 3, 1, tzinfo=UTC), "weight_kg": 3.0, "pieces": 7,
         "due": date(2026, 3, 6), "kind": "box", "fragile": False},
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "orders.parquet")
    lines = [msgspec.json.encode(row) for row in rows]
    (tmp_path / "orders.jsonl").write_bytes(b"\n".join([*lines, b"{", b"[1]", b""]))
    one, other = read(tmp_path / "orders.parquet"), read(tmp_path / "orders.jsonl")
    assert one.messages == other.messages
    assert set(one.messages) < set(read(csv_file).messages)
    assert [line for line, _ in other.refused] == [3, 4]


def test_a_file_sent_again_gives_the_same_ids_and_equal_rows_stay_apart(tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text("order_no,when,weight_kg,due,kind\n" + "A,2026-03-01,1,2026-03-02,box\n" * 2)
    first, again = read(path), read(path)
    assert first == again
    assert len({message.key for message in first.messages}) == 2


def test_publication_is_another_column(tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text("order_no,when,weight_kg,due,kind,out\nA,2026-03-01,1,2026-03-02,box,2026-03-05T12:00Z\n")
    (message,) = read(path, published="out").messages
    assert message.timestamp_ms == int(datetime(2026, 3, 5, 12, tzinfo=UTC).timestamp() * 1000)
    assert Decoder(Order).decode(message.value).event_time == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("orders.xlsx", b"PK", "a file of events ends in .jsonl"),
        ("orders.csv", b"", "has no rows"),
        ("orders.csv", b"order_no,when\n", "has no rows"),
        ("orders.csv", b"order_no,weight_kg,due,kind\nA,1,2026-03-02,box\n", "no column when; it has due, kind"),
        ("orders.csv", b"when,weight_kg,due,kind\n2026-03-01,1,2026-03-02,box\n", "no column order_no"),
        ("orders.csv", b"when,When\n1,2\n", "two columns 'when'"),
        ("orders.csv", "order_no,when\nä,2026-03-01\n".encode("latin-1"), "not UTF-8"),
        ("orders.parquet", b"no", "is no Parquet file"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_words(tmp_path, name, text, says):
    path = tmp_path / name
    path.write_bytes(text)
    with pytest.raises(ValueError, match=says):
        read(path)


@given(st.text(max_size=20))
def test_every_column_has_a_field_name_and_keeps_it(column):
    name = field_name(column)
    assert name.isidentifier()
    assert field_name(name) == name
