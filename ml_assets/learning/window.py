"""A window: labelled decisions on which models are compared, and its identity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """Decisions with their outcome and cost; every array has the length n and the order of the rows."""

    entity_ids: NDArray[Any]
    decision_times: NDArray[np.datetime64]
    dates: NDArray[np.datetime64]
    slots: NDArray[Any]
    labels: NDArray[np.int8]
    costs: NDArray[np.float64]

    @classmethod
    def of(cls, rows: pa.Table) -> Self:
        """Return the window of a table with entity_id, decision_time, decision_date, slot, label and
        cost_if_fail.

        Raises:
            KeyError: a column is missing.
        """
        return cls(
            entity_ids=rows["entity_id"].to_numpy(),
            decision_times=rows["decision_time"].to_numpy(),
            dates=rows["decision_date"].to_numpy(),
            slots=rows["slot"].to_numpy(),
            labels=rows["label"].to_numpy().astype(np.int8),
            costs=rows["cost_if_fail"].to_numpy().astype(np.float64),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[Any]) -> Window:
        """Return the window of the chosen rows (a mask or positions)."""
        return Window(
            self.entity_ids[chosen],
            self.decision_times[chosen],
            self.dates[chosen],
            self.slots[chosen],
            self.labels[chosen],
            self.costs[chosen],
        )

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits of entities, decision times and labels, whatever the order of the rows."""
        rows = pd.DataFrame({"entity": self.entity_ids, "time": self.decision_times, "label": self.labels})
        each = np.sort(pd.util.hash_pandas_object(rows, index=False).to_numpy())
        return hashlib.sha256(each.tobytes()).hexdigest()[:16]

    @property
    def first_decision_time(self) -> datetime | None:
        """The earliest decision, None without rows."""
        return _utc(self.decision_times.min()) if len(self) else None

    @property
    def groups(self) -> NDArray[np.int64]:
        """The number of the (date, slot) that each row belongs to; one work-list each."""
        _, date = np.unique(self.dates, return_inverse=True)
        slots, slot = np.unique(self.slots.astype(str), return_inverse=True)
        return np.asarray(date * max(1, len(slots)) + slot, dtype=np.int64)


def _utc(moment: np.datetime64) -> datetime:
    return pd.Timestamp(moment).to_pydatetime().replace(tzinfo=UTC)
