"""Whether two decision times see the same history."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from threading import Lock

import duckdb
import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import InputError
from ml_assets.spec import DecisionTime, UseCase


class Changes:
    """When rows entered the history, or left the window that is looked back on: by time and by date, in order."""

    def __init__(self, db: duckdb.DuckDBPyConnection, usecase: UseCase, schema: str) -> None:
        self._db = db
        self._usecase = usecase
        self._schema = schema
        self._lock = Lock()
        names = [event.name for event in usecase.events] + [one.name for one in usecase.references]
        quoted = [f"'{name}'" for name in names]
        # From DuckDB's own statistics: once some rows are deleted, counting them takes as long as reading them.
        self._count = (
            f"SELECT sum(estimated_size) FROM duckdb_tables() WHERE schema_name = '{schema}' "
            f"AND table_name IN ({', '.join(quoted)})"
        )
        self._rows = self._counted(db)

    def refuse_others(self, db: duckdb.DuckDBPyConnection) -> None:
        """Do nothing if the history still has the rows that it was opened with: kept results were made from these.

        Raises:
            ValueError: the history has more rows now.
        """
        if (now := self._counted(db)) != self._rows:
            raise InputError(
                f"use case {self._usecase.name}: the history was opened with {self._rows} rows and has {now} now; "
                "it takes no more rows, open another one (AsOfDatabase) with all of them"
            )

    def _counted(self, db: duckdb.DuckDBPyConnection) -> int:
        ((rows,),) = db.execute(self._count).fetchall()
        return int(rows)

    @cached_property
    def _known(self) -> NDArray[np.int64]:
        names = [event.name for event in self._usecase.events] + [one.name for one in self._usecase.references]
        return self._in_order([f"SELECT epoch_us(known_at) AS moment FROM {self._schema}.{name}" for name in names])

    @cached_property
    def _dates(self) -> NDArray[np.int64]:
        """Days since 1970 on which a reference comes into force, or a business date is first out of reach."""
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

        Data that are published twice a month are the same for ten decision dates, and so are the results from them.
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
