"""Plans of PostgreSQL, as EXPLAIN gives them in JSON."""

from collections.abc import Iterator
from typing import Any


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each node of a plan, or of a part of one: itself first, then what is below it."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)
