"""The live table: one row per open decision, in the slot that applies now, as the feature SQL gives it."""

import time
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.features import AsOfDatabase
from ml_assets.spec import UseCase

# Seconds for which what-if requests are expected again once there was one.
_OF_LATE = 600.0


@dataclass(frozen=True)
class LiveTable:
    """The open decisions as of `as_of`, in `features_schema`, one row per entity; its rows never change.

    `newest_event` is the time from which the newest row of `history` was known; it may be after `as_of`. `asked` maps
    each set of events that what-if requests contained to the time of the last such request (seconds, monotonic clock).
    """

    rows: pa.Table
    as_of: datetime
    newest_event: datetime | None
    history: AsOfDatabase
    asked: MutableMapping[frozenset[str], float] = field(default_factory=dict)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The row of each entity."""
        return {entity: row for row, entity in enumerate(self.rows["entity_id"].to_pylist())}


def make_table(
    usecase: UseCase, history: AsOfDatabase, now: datetime, newest_event: datetime | None,
    asked: MutableMapping[frozenset[str], float] | None = None,
) -> LiveTable:  # fmt: skip
    """Return the decisions that are open at a time, prepared for the kinds of what-if requests that came recently.

    Raises:
        ValueError: as `AsOfDatabase.features`.
    """
    slots, asked = usecase.slots_at(now), {} if asked is None else asked
    rows = _first_slot(history.features(slot) for slot in slots)
    history.expect_what_if(slots, [events for events, at in list(asked.items()) if time.monotonic() - at < _OF_LATE])
    return LiveTable(rows, now, newest_event, history, asked)


def what_if_rows(usecase: UseCase, table: LiveTable, rows: Mapping[str, pa.Table], entities: Iterable[str]) -> pa.Table:
    """Return the open decisions of `entities` as they would be if these rows, by event name, had been known too.

    Raises:
        ValueError: as `AsOfDatabase.features`.
    """
    table.asked[frozenset(rows)] = time.monotonic()
    return table.history.what_if(usecase.slots_at(table.as_of), rows, entities)


def _first_slot(parts: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of all slots; if several slots list an entity, its row of the first of them."""
    found: list[pa.Table] = []
    for part in parts:
        for before in found:
            part = part.filter(pc.invert(pc.is_in(part["entity_id"], before["entity_id"].combine_chunks())))
        found.append(part)
    return pa.concat_tables(found).combine_chunks()
