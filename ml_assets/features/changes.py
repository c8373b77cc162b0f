"""Whether two decision times see the same history."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from threading import Lock

import duckdb
import numpy as np
from numpy.typing import NDArray

from ml_assets.spec import DecisionTime, UseCase


class Changes:
    """When anything came into the history, or went out of what is looked back on: by time and by date, in order."""

    def __init__(self, db: duckdb.DuckDBPyConnection, usecase: UseCase, schema: str) -> None:
        self._db = db
        self._usecase = usecase
        self._schema = schema
        self._lock = Lock()

    @cached_property
    def _known(self) -> NDArray[np.int64]:
        names = [event.name for event in self._usecase.events] + [one.name for one in self._usecase.references]
        return self._in_order([f"SELECT epoch_us(known_at) AS moment FROM {self._schema}.{name}" for name in names])

    @cached_property
    def _dates(self) -> NDArray[np.int64]:
        """Days since 1970 on which a reference comes into force, or which are the first without a business date."""
        parts = [
            f"SELECT business_date + {event.history.days + 1} AS moment FROM {self._schema}.{event.name}"
            for event in self._usecase.events
        ]
        parts += [f"SELECT valid_from AS moment FROM {self._schema}.{one.name}" for one in self._usecase.references]
        return self._in_order([f"SELECT moment - DATE '1970-01-01' AS moment FROM ({part})" for part in parts])

    def _in_order(self, parts: Sequence[str]) -> NDArray[np.int64]:
        found = [
            self._db.sql(f"SELECT DISTINCT moment::BIGINT AS moment FROM ({part})").fetchnumpy()["moment"]
            for part in parts
        ]
        return np.sort(np.concatenate([np.asarray(values, dtype=np.int64) for values in found]))

    def between(self, one: DecisionTime, other: DecisionTime) -> bool:
        """Return whether a decision at one of the times could see what one at the other could not.

        Data that are published twice a month are the same for ten decision dates, and so is what follows from them.
        """
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        times = sorted((decision.as_of - epoch) // timedelta(microseconds=1) for decision in (one, other))
        dates = sorted((decision.decision_date - epoch.date()).days for decision in (one, other))
        with self._lock:
            changes = ((self._known, times), (self._dates, dates))
        return any(
            np.searchsorted(moments, first, side="right") < np.searchsorted(moments, last, side="right")
            for moments, (first, last) in changes
        )
