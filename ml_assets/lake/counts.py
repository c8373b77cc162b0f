"""Counting rows of an Arrow table."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def counts_by(rows: pa.Table, column: str) -> dict[Any, int]:
    """Return the number of rows by value of a column, sorted by value."""
    values, counts = pc.value_counts(rows.column(column).combine_chunks()).flatten()
    return dict(sorted(zip(values.to_pylist(), counts.to_pylist(), strict=True)))


def most_frequent(counts: dict[Any, int], number: int = 20) -> dict[Any, int]:
    """Return the highest counts, highest first, and the sum of all others as one: what a reader can take in.

    What is counted can come from outside, so there may be any number of values.
    """
    ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    rest = ranked[number:]
    return dict(ranked[:number]) | ({f"{len(rest):,} others": sum(count for _, count in rest)} if rest else {})
