"""Features and labels to a training set, and a training set to fitted, tracked candidates."""

import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from ml_assets.lake import Lake, features_table, labels_table, training_set_table
from ml_assets.lake.counts import counts_by
from ml_assets.learning.fit import FittedCandidate, fit_candidate
from ml_assets.learning.metrics import by_group, confusion_at_capacity
from ml_assets.learning.plots import confusion_plot, importance_plot, reliability_plot
from ml_assets.learning.training_set import build_training_set, part_of
from ml_assets.learning.window import Window
from ml_assets.registry import Lineage, ModelRegistry
from ml_assets.spec import Candidate, UseCase


@dataclass(frozen=True, slots=True)
class TrainingWindow:
    """A cut other than the use case's usual one: see `build_training_set`. None leaves the usual."""

    train_cutoff: datetime | None = None
    test_first: date | None = None
    test_last: date | None = None


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """Which code, in which Dagster run."""

    code_version: str
    dagster_run_id: str


@dataclass(frozen=True, slots=True)
class TrainingSetReport:
    """Rows, positives and first and last decision date of each part, and the Delta versions read."""

    parts: dict[str, dict[str, Any]]
    data_versions: dict[str, int]


def as_of_training(training_date: date) -> datetime:
    """Return the time by which labels must be known to a training of this date: the end of the day, UTC."""
    return datetime.combine(training_date + timedelta(days=1), time(), tzinfo=UTC)


def assemble_training_set(
    lake: Lake, usecase: UseCase, training_date: date, window: TrainingWindow = TrainingWindow()
) -> TrainingSetReport:
    """Write the training set of a date: what was decided before it and had a known outcome by its end.

    Raises:
        ml_assets.learning.training_set.TrainingSetError: there are too few labelled decisions.
        FileNotFoundError: there are no features or no labels yet.
    """
    split = usecase.split
    decision_days = split.train_days + split.calibration_days + split.test_days
    # In calendar days, and as far again for outcomes that are known late.
    anchor = min(training_date, window.test_first or training_date)
    first = anchor - timedelta(days=decision_days * 7 // 5 + 90)
    in_reach = (ds.field("decision_date") >= first) & (ds.field("decision_date") <= training_date)
    columns = [*_KEY_COLUMNS, *(f.name for f in usecase.features if f.name not in _KEY_COLUMNS)]
    versions = {name: _version(lake, name) for name in (features_table(usecase), labels_table(usecase))}
    features = lake.read(
        features_table(usecase), columns=columns, where=in_reach, version=versions[features_table(usecase)]
    )
    labels = lake.read(
        labels_table(usecase),
        where=(ds.field("known_date") >= first) & (ds.field("known_date") <= training_date),
        version=versions[labels_table(usecase)],
    ).drop_columns(["known_date", "outcome_date"])
    rows = build_training_set(
        features,
        labels,
        split,
        as_of_training(training_date),
        train_cutoff=window.train_cutoff,
        test_first=window.test_first,
        test_last=window.test_last,
    )
    table = training_set_table(usecase)
    dated = rows.append_column(
        pa.field("training_date", pa.date32(), nullable=False), pa.array([training_date] * len(rows), pa.date32())
    )
    versions[table] = lake.replace(table, dated, "training_date", [training_date])
    return TrainingSetReport(
        parts={part: _describe(part_of(rows, part)) for part in counts_by(rows, "part")}, data_versions=versions
    )


def read_training_set(lake: Lake, usecase: UseCase, training_date: date) -> pa.Table:
    """Return the training set of a date, in the order in which it was built.

    Raises:
        LookupError: there is none.
    """
    rows = lake.read(training_set_table(usecase), where=ds.field("training_date") == training_date)
    if not rows.num_rows:
        raise LookupError(f"use case {usecase.name} has no training set of {training_date}; materialize it first")
    return rows.drop_columns(["training_date"]).sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])


def train_candidate(
    lake: Lake,
    registry: ModelRegistry,
    usecase: UseCase,
    candidate: Candidate,
    training_date: date,
    origin: RunOrigin,
    *,
    threads: int = 0,
) -> tuple[str, FittedCandidate, dict[str, bytes]]:
    """Fit a candidate on the training set of a date and track it; return MLflow run id, model and plots by name."""
    rows = read_training_set(lake, usecase, training_date)
    fitted = fit_candidate(usecase, candidate, rows, threads=threads)
    test = Window.of(part_of(rows, "test"))
    title = f"{candidate.name}, {training_date}"
    plots = {
        "plots/reliability.png": reliability_plot(test.labels, fitted.probabilities, title=f"Reliability: {title}"),
        "plots/confusion.png": confusion_plot(
            confusion_at_capacity(test, fitted.probabilities, capacity=usecase.capacity),
            title=f"At capacity: {title}",
        ),
        "plots/importances.png": importance_plot(fitted.importances, title=f"What it uses: {title}"),
    }
    dates = {part: _date_range(part_of(rows, *parts)) for part, parts in _PARTS.items()}
    lineage = Lineage(
        git_commit=origin.code_version,
        dagster_run_id=origin.dagster_run_id,
        feature_set_hash=usecase.feature_set_hash,
        data_versions={
            name: _version(lake, name)
            for name in (features_table(usecase), labels_table(usecase), training_set_table(usecase))
        },
        train_first=dates["learned"][0],
        train_last=dates["learned"][1],
        test_first=dates["test"][0],
        test_last=dates["test"][1],
        window_hash=fitted.window_hash,
    )
    month = by_group(test, fitted.probabilities, capacity=usecase.capacity, by="month")
    slot = by_group(test, fitted.probabilities, capacity=usecase.capacity, by="slot")
    with tempfile.TemporaryDirectory() as folder:
        fitted.scorer.save(Path(folder))
        run_id = registry.log_candidate(
            usecase.name,
            candidate.name,
            training_date=training_date,
            params={**fitted.parameters, "calibration": fitted.calibration.method, "seed": usecase.seed},
            metrics={**fitted.metrics, "parity_max_abs_difference": fitted.parity_max_abs_difference},
            plots=plots,
            tables={
                "metrics_by_month.csv": month.to_csv(),
                "metrics_by_slot.csv": slot.to_csv(),
                "model_evidence.json": _encode(fitted),
            },
            model_folder=Path(folder),
            lineage=lineage,
        )
    return run_id, fitted, plots


_KEY_COLUMNS = ("entity_id", "decision_time", "decision_date", "slot", "outcome_date", "cost_if_fail")
_PARTS = {"learned": ("train", "calibration"), "test": ("test",)}


def _encode(fitted: FittedCandidate) -> str:
    import msgspec

    return msgspec.json.encode(fitted.evidence).decode()


def _version(lake: Lake, name: str) -> int:
    version = lake.version(name)
    if version is None:
        raise FileNotFoundError(f"the lake has no table {lake.uri(name)}; materialize the asset that writes it first")
    return version


def _describe(rows: pa.Table) -> dict[str, Any]:
    first, last = _date_range(rows)
    positives = int(rows["label"].to_numpy().sum())
    return {
        "rows": rows.num_rows,
        "positives": positives,
        "base_rate": positives / rows.num_rows,
        "first_date": first.isoformat(),
        "last_date": last.isoformat(),
    }


def _date_range(rows: pa.Table) -> tuple[date, date]:
    days = counts_by(rows, "decision_date")
    return min(days), max(days)
