from datetime import date
from typing import Literal

import pytest

from ml_assets.contracts import Event
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
