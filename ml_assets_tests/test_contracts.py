from datetime import UTC, date, datetime
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.contracts import TIMESTAMP, Event, arrow_schema, roll_to_weekday, to_columns


class Moved(Event, frozen=True, kw_only=True):
    side: Literal["DELI", "RECE"]
    quantity: int
    price: float | None = None


MOVED = Moved(event_id="1", event_time=datetime(2026, 1, 10, 9, tzinfo=UTC), side="DELI", quantity=5)


def test_schema_follows_the_contract():
    assert arrow_schema(Moved) == pa.schema(
        [
            pa.field("event_id", pa.string(), nullable=False),
            pa.field("event_time", TIMESTAMP, nullable=False),
            pa.field("side", pa.string(), nullable=False),
            pa.field("quantity", pa.int64(), nullable=False),
            pa.field("price", pa.float64()),
        ]
    )


def test_columns_hold_the_rows():
    table = pa.table(to_columns(Moved, [MOVED]), schema=arrow_schema(Moved))
    assert table.to_pylist() == [
        {"event_id": "1", "event_time": MOVED.event_time, "side": "DELI", "quantity": 5, "price": None}
    ]


def test_no_rows_still_give_typed_columns():
    assert pa.table(to_columns(Moved, [])).schema.types == arrow_schema(Moved).types


def test_an_event_on_saturday_belongs_to_monday():
    assert MOVED.business_date == date(2026, 1, 12)


@given(st.dates())
def test_rolling_gives_a_weekday_within_two_days(day):
    if day < date(9999, 12, 29):
        rolled = roll_to_weekday(day)
        assert rolled.weekday() < 5
        assert 0 <= (rolled - day).days <= 2


def test_a_field_without_a_column_type_is_refused():
    class Odd(Event, frozen=True, kw_only=True):
        tags: list[str]

    with pytest.raises(TypeError, match="no Arrow type"):
        arrow_schema(Odd)
