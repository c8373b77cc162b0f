"""Evidently on the tables of a folder, run by an environment of its own: seconds of each method, median of 3."""

import statistics
import sys
from pathlib import Path
from time import perf_counter

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

folder = Path(sys.argv[1])
before, now = (pd.read_parquet(folder / f"{name}.parquet") for name in ("before", "now"))
numbers = [name for name in before if before[name].dtype.kind == "f"]
definition = DataDefinition(numerical_columns=numbers, categorical_columns=[n for n in before if n not in numbers])
old, new = (Dataset.from_pandas(rows, definition) for rows in (before, now))
for method in ("psi", "jensenshannon"):
    took = []
    for _ in range(3):
        started = perf_counter()
        Report([DataDriftPreset(method=method)]).run(new, old)
        took.append(perf_counter() - started)
    print(f"evidently, DataDriftPreset(method={method!r})", statistics.median(took))  # noqa: T201
