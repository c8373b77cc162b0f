"""The live table: a row for each decision that is open now, in the slot that applies, as the feature SQL gives it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.features import AsOfDatabase
from ml_assets.spec import UseCase


@dataclass(frozen=True)
class LiveTable:
    """The open decisions as of `as_of`, in `features_schema`, each entity once; nothing in it changes.

    `newest_event` is when the newest row of `history`, which it was made of, is known; that may be after `as_of`.
    """

    rows: pa.Table
    as_of: datetime
    newest_event: datetime | None
    history: AsOfDatabase

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The row of each entity."""
        return {entity: row for row, entity in enumerate(self.rows["entity_id"].to_pylist())}


def make_table(usecase: UseCase, history: AsOfDatabase, now: datetime, newest_event: datetime | None) -> LiveTable:
    """Return the decisions that are open at a time.

    Raises:
        ValueError: as `AsOfDatabase.features`.
    """
    return LiveTable(_first_slot(history.features(slot) for slot in usecase.slots_at(now)), now, newest_event, history)


def what_if_rows(usecase: UseCase, table: LiveTable, rows: Mapping[str, pa.Table], entities: Iterable[str]) -> pa.Table:
    """Return the open decisions of entities as they would be if these rows of events, by name, had been known too.

    Raises:
        ValueError: as `AsOfDatabase.features`.
    """
    return table.history.what_if(usecase.slots_at(table.as_of), rows, entities)


def _first_slot(parts: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of all slots, of an entity that several list those of the first."""
    found: list[pa.Table] = []
    for part in parts:
        for before in found:
            part = part.filter(pc.invert(pc.is_in(part["entity_id"], before["entity_id"].combine_chunks())))
        found.append(part)
    return pa.concat_tables(found).combine_chunks()
