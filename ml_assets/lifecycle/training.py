"""Features and labels to a training set, and a training set to fitted, tracked candidates."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import TIMESTAMP
from ml_assets.errors import NotFoundError
from ml_assets.features.sound import calendars_of
from ml_assets.lake import Lake, features_table, labels_table, outcomes_table, training_set_table
from ml_assets.lake.counts import counts_by
from ml_assets.learning.fit import FittedCandidate, fit_candidate
from ml_assets.learning.golden import GOLDEN_SAMPLE, golden_sample
from ml_assets.learning.metrics import by_group, confusion_at_capacity
from ml_assets.learning.plots import confusion_plot, importance_plot, reliability_plot
from ml_assets.learning.slices import with_slices
from ml_assets.learning.training_set import TrainingSetError, build_training_set, part_of
from ml_assets.learning.window import Window
from ml_assets.lifecycle.model_risk import IMPORTANCES
from ml_assets.monitoring.effect import acted_on
from ml_assets.registry import Lineage, ModelRegistry, TrackedTrial
from ml_assets.spec import Candidate, SplitSpec, UseCase


@dataclass(frozen=True, slots=True)
class TrainingWindow:
    """A cut that differs from the use case's usual one; see `build_training_set`. None means the usual cut."""

    train_cutoff: datetime | None = None
    test_first: date | None = None
    test_last: date | None = None


class TrainingSetSource(msgspec.Struct, frozen=True):
    """The source of a training set: the Delta versions read, and its cut. With these it can be made again."""

    data_versions: dict[str, int]
    train_cutoff: datetime | None = None
    test_first: date | None = None
    test_last: date | None = None


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """Which code, in which Dagster run; `links` maps what a person may open to its address."""

    code_version: str
    dagster_run_id: str
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingSetReport:
    """Rows, positives, decision dates (there and asked for) of each part, and the Delta versions read."""

    parts: dict[str, dict[str, Any]]
    data_versions: dict[str, int]

    @property
    def shorter(self) -> list[str]:
        """Return in words which parts have fewer decision dates than the split asks for."""
        return [
            f"{part} has {found['dates']} decision dates, of {found['asked']} that SplitSpec asks for"
            for part, found in self.parts.items()
            if found["dates"] < found["asked"]
        ]


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
    versions = {name: _version(lake, name) for name in (features_table(usecase), labels_table(usecase))}
    outcomes = outcomes_table(usecase)
    if usecase.action.taken and (there := lake.version(outcomes)) is not None:
        versions[outcomes] = there
    source = TrainingSetSource(versions, window.train_cutoff, window.test_first, window.test_last)
    rows = build_from(lake, usecase, training_date, source)
    # The source is stored with the rows, so a reader knows it whatever has been written meanwhile.
    made = rows.append_column(_DATE, pa.array([training_date] * len(rows), pa.date32())).append_column(
        _SOURCE, pa.array([msgspec.json.encode(source).decode()] * len(rows), pa.string())
    )
    table = training_set_table(usecase)
    version = lake.replace(table, made, "training_date", [training_date])
    return TrainingSetReport(
        parts={
            part: _describe(part_of(rows, part), getattr(usecase.split, f"{part}_days"))
            for part in counts_by(rows, "part")
        },
        data_versions={**versions, table: version},
    )


def build_from(lake: Lake, usecase: UseCase, training_date: date, source: TrainingSetSource) -> pa.Table:
    """Return the training set of a date, made from these versions of the lake's tables: the same whenever it is made.

    Raises:
        ml_assets.learning.training_set.TrainingSetError: there are too few labelled decisions, or some whose features
            were made before one of them was added.
        FileNotFoundError: there are no features or no labels.
    """
    split, versions = usecase.split, source.data_versions
    decision_days = split.train_days + split.calibration_days + split.test_days
    anchor = min(training_date, source.test_first or training_date)
    # In calendar days, and as far again for outcomes that are known late; further back where that is not enough.
    reach = timedelta(days=decision_days * 7 // 5 + 90)
    oldest = min((file.partition for file in lake.files(features_table(usecase), "decision_date")), default=anchor)
    while True:
        try:
            rows = _build_within(lake, usecase, training_date, source, anchor - reach)
            if _is_full(rows, split) or anchor - reach <= oldest:
                break
        except TrainingSetError:
            if anchor - reach <= oldest:
                raise
        reach *= 2
    decided_on = ds.field("decision_date").isin(rows["decision_date"].unique())
    _refuse_older_features(lake, usecase, decided_on, versions[features_table(usecase)])
    tested = part_of(rows, "test")["decision_date"].unique()
    described = lake.read(
        features_table(usecase),
        columns=["entity_id", "decision_time", "attributes"],
        where=ds.field("decision_date").isin(tested),
        version=versions[features_table(usecase)],
    )
    return with_slices(usecase, rows, described)


def _build_within(
    lake: Lake, usecase: UseCase, training_date: date, source: TrainingSetSource, first: date
) -> pa.Table:
    """Return the training set of a date, of decisions from `first` on."""
    versions = source.data_versions
    in_reach = (ds.field("decision_date") >= first) & (ds.field("decision_date") <= training_date)
    columns = [*_KEY_COLUMNS, *(f.name for f in usecase.features if f.name not in _KEY_COLUMNS)]
    table = lake.dataset(features_table(usecase), versions[features_table(usecase)])
    if table is not None and not set(columns) <= set(table.schema.names):
        _refuse_older_features(lake, usecase, in_reach, versions[features_table(usecase)])
    features = lake.read(
        features_table(usecase), columns=columns, where=in_reach, version=versions[features_table(usecase)]
    )
    labels = lake.read(
        labels_table(usecase),
        where=(ds.field("known_date") >= first) & (ds.field("known_date") <= training_date),
        version=versions[labels_table(usecase)],
    )
    labels = closed_labels(lake, usecase, labels, versions[features_table(usecase)])
    if (outcomes := outcomes_table(usecase)) in versions:
        listed = lake.read(outcomes, where=ds.field("outcome_date") >= first, version=versions[outcomes])
        labels = labels.join(acted_on(usecase, listed), keys=["entity_id", "outcome_date"], join_type="left anti")
    return build_training_set(
        features,
        labels.drop_columns(["known_date", "outcome_date"]),
        usecase.split,
        as_of_training(training_date),
        train_cutoff=source.train_cutoff,
        test_first=source.test_first,
        test_last=source.test_last,
        later=usecase.calendar.add,
    )


def closed_labels(lake: Lake, usecase: UseCase, labels: pa.Table, features_version: int) -> pa.Table:
    """Return labels that count from the end of their horizon on, although some outcomes were known before.

    If a horizon is not over, only the decisions that have gone wrong are known: a model that learned from these would
    predict that every new decision goes wrong.
    """
    days = labels["outcome_date"].unique().to_pylist()
    ends = {(day, one): usecase.outcome_known_at(day, one) for day in days for one in usecase.calendars}
    # On most dates the calendars of all places agree.
    apart = [day for day in days if len({ends[day, one] for one in usecase.calendars}) > 1]
    calendar_of: dict[tuple[Any, Any], BusinessCalendar] = {}
    if apart:
        decided = lake.read(
            features_table(usecase),
            columns=["entity_id", "decision_time", "attributes"],
            where=ds.field("outcome_date").isin(apart),
            version=features_version,
        )
        keys = zip(decided["entity_id"].to_pylist(), decided["decision_time"].to_pylist(), strict=True)
        calendar_of = dict(zip(keys, calendars_of(usecase, decided["attributes"]), strict=True))
    rows = zip(*(labels[name].to_pylist() for name in ("outcome_date", "entity_id", "decision_time")), strict=True)
    end = pa.array([ends[day, calendar_of.get((*key,), usecase.calendar)] for day, *key in rows], TIMESTAMP)
    place = labels.column_names.index("label_known_at")
    known = labels["label_known_at"]
    counts_from = pc.if_else(pc.greater(known, end), known, end)
    return labels.set_column(place, labels.schema.field(place), counts_from)


def _is_full(rows: pa.Table, split: SplitSpec) -> bool:
    return len(part_of(rows, "train")["decision_date"].unique()) >= split.train_days


def read_training_set(lake: Lake, usecase: UseCase, training_date: date, version: int | None = None) -> pa.Table:
    """Return the training set of a date, in the order in which it was built; `version` is the table's, None the newest.

    Raises:
        LookupError: there is none.
    """
    rows = lake.read(training_set_table(usecase), where=ds.field("training_date") == training_date, version=version)
    if not rows.num_rows:
        raise NotFoundError(f"use case {usecase.name} has no training set of {training_date}; materialize it first")
    return rows.drop_columns([_DATE.name, _SOURCE.name]).sort_by(
        [("decision_time", "ascending"), ("entity_id", "ascending")]
    )


def training_set_source(lake: Lake, usecase: UseCase, training_date: date, version: int) -> TrainingSetSource:
    """Return the source of the training set of a date, as recorded with its rows.

    Raises:
        LookupError: this version of the table has no training set of the date.
    """
    dataset = lake.dataset(training_set_table(usecase), version)
    rows = (
        None
        if dataset is None
        else dataset.head(1, columns=[_SOURCE.name], filter=ds.field(_DATE.name) == training_date)
    )
    if rows is None or not rows.num_rows:
        raise NotFoundError(
            f"use case {usecase.name}: version {version} of the training sets has none of {training_date}"
        )
    return msgspec.json.decode(rows[_SOURCE.name][0].as_py(), type=TrainingSetSource)


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
    registry.require_experiment(usecase.name)
    version = _version(lake, training_set_table(usecase))
    rows = read_training_set(lake, usecase, training_date, version)
    source = training_set_source(lake, usecase, training_date, version)
    fitted = fit_candidate(usecase, candidate, rows, threads=threads)
    test = Window.of(part_of(rows, "test"))
    title = f"{candidate.name}, {training_date}"
    plots = {
        "plots/reliability.png": reliability_plot(test.labels, fitted.probabilities, title=f"Reliability: {title}"),
        "plots/confusion.png": confusion_plot(
            confusion_at_capacity(test, fitted.probabilities, capacity=usecase.capacity, action=usecase.action),
            title=f"At capacity: {title}",
        ),
        "plots/importances.png": importance_plot(fitted.importances, title=f"What it uses: {title}"),
    }
    dates = {part: _date_range(part_of(rows, *parts)) for part, parts in _PARTS.items()}
    lineage = Lineage(
        git_commit=origin.code_version,
        dagster_run_id=origin.dagster_run_id,
        feature_set_hash=usecase.feature_set_hash,
        data_versions={**source.data_versions, training_set_table(usecase): version},
        train_first=dates["learned"][0],
        train_last=dates["learned"][1],
        test_first=dates["test"][0],
        test_last=dates["test"][1],
        window_hash=fitted.window_hash,
    )
    month, slot = (
        by_group(test, fitted.probabilities, capacity=usecase.capacity, action=usecase.action, by=by)
        for by in ("month", "slot")
    )
    with tempfile.TemporaryDirectory() as folder:
        fitted.scorer.save(Path(folder))
        run_id = registry.log_candidate(
            usecase.name,
            candidate.name,
            training_date=training_date,
            params={
                **fitted.parameters,
                "calibration": fitted.calibration.method,
                "seed": usecase.seed,
                **{f"rows_{part}": rows for part, rows in fitted.rows.items()},
            },
            metrics={**fitted.metrics, "parity_max_abs_difference": fitted.parity_max_abs_difference},
            plots=plots,
            tables={
                "metrics_by_month.csv": month.to_csv(),
                "metrics_by_slot.csv": slot.to_csv(),
                "model_evidence.json": _encode(fitted),
                IMPORTANCES: _importances(fitted),
                GOLDEN_SAMPLE: golden_sample(fitted, part_of(rows, "test")),
                RECIPE: _json(Recipe(fitted.searched, usecase.seed, threads, fitted.calibration.method)),
                **({"search.json": _json(fitted.search)} if fitted.search else {}),
            },
            model_folder=Path(folder),
            lineage=lineage,
            made_by=origin.links,
        )
    if fitted.search is not None:
        metric = fitted.search.metric
        registry.log_trials(
            usecase.name,
            run_id,
            [
                TrackedTrial(t.number, t.state, metric, t.parameters, t.folds, t.value, t.seconds)
                for t in fitted.search.trials
            ],
        )
    return run_id, fitted, plots


RECIPE = "recipe.json"


class Recipe(msgspec.Struct, frozen=True):
    """What reproducing a model needs besides data and code: the parameters that a search found, seed and threads."""

    parameters: Mapping[str, Any]
    seed: int
    threads: int
    calibration: str


_KEY_COLUMNS = ("entity_id", "decision_time", "decision_date", "slot", "outcome_date", "cost_if_fail")
_DATE = pa.field("training_date", pa.date32(), nullable=False)
_SOURCE = pa.field("made_from", pa.string(), nullable=False)
_PARTS = {"learned": ("train", "calibration"), "test": ("test",)}


def _importances(fitted: FittedCandidate) -> str:
    return pd.Series(fitted.importances, name="loss").rename_axis("feature").to_csv()


def _encode(fitted: FittedCandidate) -> str:
    return _json(fitted.evidence)


def _json(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()


def _refuse_older_features(lake: Lake, usecase: UseCase, where: ds.Expression, version: int) -> None:
    """Refuse features that were made before one of the use case's was added: they would be read as unknown.

    Raises:
        ml_assets.learning.training_set.TrainingSetError: there are such features.
    """
    names = {feature.name for feature in usecase.features}
    older = lake.files_without(features_table(usecase), names, where=where, version=version)
    if older:
        lacking = sorted(frozenset.union(*(absent for _, absent in older)))
        raise TrainingSetError(
            f"use case {usecase.name}: {len(older)} files of {features_table(usecase)}, the first {older[0][0]}, were "
            f"made before {', '.join(lacking)} was among the features; materialize the features of those decision "
            "dates again"
        )


def _version(lake: Lake, name: str) -> int:
    version = lake.version(name)
    if version is None:
        raise FileNotFoundError(f"the lake has no table {lake.uri(name)}; materialize the asset that writes it first")
    return version


def _describe(rows: pa.Table, asked: int) -> dict[str, Any]:
    first, last = _date_range(rows)
    positives = int(rows["label"].to_numpy().sum())
    return {
        "rows": rows.num_rows,
        "positives": positives,
        "base_rate": positives / rows.num_rows,
        "dates": len(counts_by(rows, "decision_date")),
        "asked": asked,
        "first_date": first.isoformat(),
        "last_date": last.isoformat(),
    }


def _date_range(rows: pa.Table) -> tuple[date, date]:
    days = counts_by(rows, "decision_date")
    return min(days), max(days)
