"""Evidently on the tables of a folder, in an environment of its own: verdicts and seconds (median of 3), as JSON."""

import json
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
told = {}
for method in ("psi", "jensenshannon"):
    took = []
    for _ in range(3):
        started = perf_counter()
        made = Report([DataDriftPreset(method=method)]).run(new, old)
        took.append(perf_counter() - started)
    found = [one for one in made.dict()["metrics"] if "column" in one["config"]]
    told[method] = {
        "seconds": statistics.median(took),
        "distance": {one["config"]["column"]: float(one["value"]) for one in found},
        "drifted": [one["config"]["column"] for one in found if one["value"] >= one["config"]["threshold"]],
    }
print(json.dumps(told))  # noqa: T201
