"""Rows that are made some at a time while they are written, of what is read from the same store."""

import json
import os
import subprocess
import sys
from datetime import date

import pyarrow as pa
import pytest

from ml_assets.lake import Lake

DAY = date(2026, 1, 5)
SCHEMA = pa.schema([pa.field("day", pa.date32(), nullable=False), pa.field("n", pa.int64())])
COPY = """
import json, os, sys
from datetime import date
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
from ml_assets.lake import Batches, Lake
lake = Lake(sys.argv[1], json.loads(sys.argv[2]))
rows = Batches(lake.read("from").schema, lambda: (lake.read("from") for _ in range(5)))
lake.replace("to", rows, "day", [date(2026, 1, 5)])
"""


def rows_of(*numbers: int) -> pa.Table:
    return pa.table({"day": [DAY] * len(numbers), "n": numbers}, schema=SCHEMA)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process cannot be kept on one core here")
def test_what_they_are_made_of_is_read_from_a_store_on_one_core(s3_lake: Lake) -> None:
    """Guards a training that hung for ever: rows were read on the one thread that should have read them."""
    s3_lake.replace("from", rows_of(1, 2, 3), "day", [DAY])
    command = [sys.executable, "-c", COPY, s3_lake.root, json.dumps(s3_lake.options)]
    subprocess.run(command, check=True, timeout=60)
    assert s3_lake.read("to")["n"].to_pylist() == [1, 2, 3] * 5
