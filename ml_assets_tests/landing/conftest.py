from datetime import UTC, date, datetime
from typing import Literal

import pyarrow as pa
import pytest

from ml_assets.contracts import Event
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.batch import in_landing_schema
from ml_assets.landing.schemas import EVENT, PARTITIONED_BY
from ml_assets.spec import EventSpec


class Moved(Event, frozen=True, kw_only=True):
    isin: str
    side: Literal["DELI", "RECE"]
    quantity: int


MONDAY = date(2026, 1, 5)


def moved(topic: str) -> EventSpec:
    return EventSpec(
        name="moved",
        topic=topic,
        contract=Moved,
        description="Something moved.",
        rules={"quantity is not positive": "quantity <= 0", "ISIN is not 12 characters": "length(isin) <> 12"},
    )


@pytest.fixture
def event(request):
    """An event on a topic of the test's own."""
    return moved(request.node.name.replace("[", "_").replace("]", ""))


def append_events(lake: Lake, event: EventSpec, rows: pa.Table) -> None:
    """Append rows in `event_schema` as a lander would, beside whatever is there."""
    appender = lake.appender(landing_table(event.topic), PARTITIONED_BY)
    start = appender.positions(["test"])
    columns = {"kind": EVENT, **{name: rows[name] for name in rows.column_names}}
    landed = in_landing_schema(event, columns, datetime.now(UTC))
    appender.append(landed, start, {"test": start["test"] + 1})
