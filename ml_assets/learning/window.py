"""A window: labelled decisions on which models are compared, and its identity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.learning.frames import numbered, texts_of

# Columns of a training set beside keys, features and label: the value at stake, and one column per slice.
VALUE_COLUMN, SLICE_PREFIX = "value_at_stake", "slice__"


@dataclass(frozen=True)
class Window:
    """Decisions with their outcome and cost; every array has the length n and the order of the rows.

    `values` is the value at stake, NaN where it is not known; `slices` maps the name of a slice to its values.
    """

    entity_ids: NDArray[Any]
    decision_times: NDArray[np.datetime64]
    dates: NDArray[np.datetime64]
    slots: NDArray[Any]
    labels: NDArray[np.int8]
    costs: NDArray[np.float64]
    outcome_dates: NDArray[np.datetime64]
    values: NDArray[np.float64]
    slices: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: pa.Table) -> Self:
        """Return the window of a table with entity_id, decision_time, decision_date, outcome_date, slot, label and
        cost_if_fail; value at stake and slices are taken if they are there.

        Raises:
            KeyError: a column is missing.
        """
        known_value = VALUE_COLUMN in rows.column_names
        return cls(
            entity_ids=rows["entity_id"].to_numpy(),
            decision_times=rows["decision_time"].to_numpy(),
            dates=rows["decision_date"].to_numpy(),
            slots=texts_of(rows["slot"]),
            labels=rows["label"].to_numpy().astype(np.int8),
            costs=rows["cost_if_fail"].to_numpy().astype(np.float64),
            outcome_dates=rows["outcome_date"].to_numpy(),
            values=rows[VALUE_COLUMN].to_numpy().astype(np.float64) if known_value else np.full(len(rows), np.nan),
            slices={
                name.removeprefix(SLICE_PREFIX): texts_of(rows[name])
                for name in rows.column_names
                if name.startswith(SLICE_PREFIX)
            },
        )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[Any]) -> Window:
        """Return the window of the chosen rows (a mask or positions)."""
        arrays = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name != "slices"}
        return Window(**arrays, slices={name: values[chosen] for name, values in self.slices.items()})

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits of entities, decision times and labels, whatever the order of the rows."""
        import pandas as pd  # what scores imports this module, and has no pandas

        rows = pd.DataFrame({"entity": self.entity_ids, "time": self.decision_times, "label": self.labels})
        each = np.sort(pd.util.hash_pandas_object(rows, index=False).to_numpy())
        return hashlib.sha256(each.tobytes()).hexdigest()[:16]

    @property
    def first_decision_time(self) -> datetime | None:
        """The earliest decision, None without rows."""
        return _utc(self.decision_times.min()) if len(self) else None

    @cached_property
    def days(self) -> NDArray[np.int64]:
        """The number of the decision date of each row, from 0 in order of time."""
        return np.asarray(np.unique(self.dates, return_inverse=True)[1], dtype=np.int64)

    @property
    def groups(self) -> NDArray[np.int64]:
        """The number of the (date, slot) that each row belongs to; one work-list each."""
        slots, slot = numbered(self.slots)
        return np.asarray(self.days * max(1, len(slots)) + slot, dtype=np.int64)


def _utc(moment: np.datetime64) -> datetime:
    at: datetime = moment.astype("datetime64[us]").item()
    return at.replace(tzinfo=UTC)
