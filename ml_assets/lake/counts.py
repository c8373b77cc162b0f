"""Counting rows of an Arrow table."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def counts_by(rows: pa.Table, column: str) -> dict[Any, int]:
    """Return the number of rows by value of a column, sorted by value."""
    values, counts = pc.value_counts(rows.column(column).combine_chunks()).flatten()
    return dict(sorted(zip(values.to_pylist(), counts.to_pylist(), strict=True)))
