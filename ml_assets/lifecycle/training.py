"""Features and labels to a training set, and a training set to fitted, tracked candidates."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import TIMESTAMP
from ml_assets.errors import InputError, NotFoundError
from ml_assets.features.sound import calendars_of
from ml_assets.lake import Batches, Lake, features_table, labels_table, outcomes_table, training_set_table
from ml_assets.lake.counts import counts_by
from ml_assets.lake.opened import FEW_AT_ONCE
from ml_assets.learning.fit import FittedCandidate, fit_candidate
from ml_assets.learning.frames import CODED
from ml_assets.learning.golden import GOLDEN_SAMPLE, golden_sample
from ml_assets.learning.metrics import by_group, confusion_at_capacity
from ml_assets.learning.plots import confusion_plot, importance_plot, reliability_plot
from ml_assets.learning.slices import with_slices
from ml_assets.learning.training_set import PARTS, TrainingSetError, build_training_set, labelled, part_of
from ml_assets.learning.window import Window
from ml_assets.lifecycle.model_risk import IMPORTANCES
from ml_assets.monitoring.effect import acted_on
from ml_assets.registry import Lineage, ModelRegistry, TrackedTrial
from ml_assets.spec import Candidate, SplitSpec, UseCase


@dataclass(frozen=True, slots=True)
class TrainingWindow:
    """A cut that differs from the use case's usual one; see `build_training_set`. None means the usual cut.

    With `since`, the training set has the decision dates since a change alone; see `UseCase.learning_since`.
    """

    train_cutoff: datetime | None = None
    test_first: date | None = None
    test_last: date | None = None
    since: date | None = None


class TrainingSetSource(msgspec.Struct, frozen=True):
    """The source of a training set: the Delta versions read, and its cut. With these it can be made again."""

    data_versions: dict[str, int]
    train_cutoff: datetime | None = None
    test_first: date | None = None
    test_last: date | None = None
    since: date | None = None


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


def refuse_too_large(lake: Lake, usecase: UseCase, training_date: date, memory: int) -> None:
    """Do nothing if training on the newest dates fits into so many bytes of memory, by the rows that the log tells.

    Raises:
        InputError: it does not; the message says what it needs, and which settings give it or make it need less.
    """
    split = usecase.split
    days = split.train_days + split.calibration_days + split.test_days
    by_date: dict[date, int] = {}
    for file in lake.files(features_table(usecase), "decision_date"):
        if file.partition <= training_date:
            by_date[file.partition] = by_date.get(file.partition, 0) + file.rows
    rows = sum(by_date[day] for day in sorted(by_date)[-days:])
    needed = memory_needed(rows, split)
    if needed > memory:
        raise InputError(
            f"use case {usecase.name}: training on {rows:,} decisions of {days} dates needs about "
            f"{needed / 2**30:,.1f} GiB, and this process may use {memory / 2**30:,.1f} GiB",
            to_do="give it more: ML_ASSETS_MEMORY_MIB if that is set, else the memory of its Job (`retrain` in "
            "ml_assets/defs/jobs/pods.py). Or let it need less: SplitSpec(train_days=..., fit_rows=...) in usecase.py",
        )


def memory_needed(rows: int, split: SplitSpec) -> int:
    """Return how many bytes a process holds at most that trains on so many rows, of train, calibration and test.

    Measured as resident memory, step by step, of settlement_fails at 4,000 and 16,000 instructions a day (568,533 and
    2,274,132 rows): making the set held 980 and 1,596 MiB, 380 bytes a row; a fit of the logistic regression, whose
    matrices are the largest, 590 bytes for each row of the sample. Those 1,596 MiB are reckoned as 2,131.
    """
    return _BYTES_AT_FIRST + rows * _BYTES_A_ROW + min(rows, split.fit_rows or rows) * _BYTES_A_FITTED_ROW


def assemble_training_set(
    lake: Lake,
    usecase: UseCase,
    training_date: date,
    window: TrainingWindow = TrainingWindow(),
    *,
    memory: int | None = None,
) -> TrainingSetReport:
    """Write the training set of a date: what was decided before it and had a known outcome by its end.

    With `memory`, the bytes that this process may use, a training that would need more is refused at once.

    Raises:
        InputError: it needs more.
        ml_assets.learning.training_set.TrainingSetError: there are too few labelled decisions.
        FileNotFoundError: there are no features or no labels yet.
    """
    versions = {name: _version(lake, name) for name in (features_table(usecase), labels_table(usecase))}
    if memory is not None:
        refuse_too_large(lake, usecase, training_date, memory)
    outcomes = outcomes_table(usecase)
    if usecase.action.taken and (there := lake.version(outcomes)) is not None:
        versions[outcomes] = there
    source = TrainingSetSource(versions, window.train_cutoff, window.test_first, window.test_last, window.since)
    usecase = as_learning(usecase, training_date, source)
    cut = _cut(lake, usecase, training_date, source)
    said = msgspec.json.encode(source).decode()

    def with_source(rows: pa.Table) -> pa.Table:
        # The source is stored with the rows, so a reader knows it whatever has been written meanwhile.
        return rows.append_column(_DATE, pa.repeat(pa.scalar(training_date, pa.date32()), len(rows))).append_column(
            _SOURCE, pa.repeat(said, len(rows))
        )

    parts = _Rows(lake, usecase, cut, source)
    made = Batches(with_source(parts.empty).schema, lambda: map(with_source, parts))
    table = training_set_table(usecase)
    version = lake.replace(table, made, "training_date", [training_date])
    # Of a change all dates train that are known before the test: only the least number is asked for.
    asked = usecase.monitoring.since_change if source.since is not None else usecase.split
    return TrainingSetReport(
        parts={part: _describe(part_of(cut, part), getattr(asked, f"{part}_days")) for part in counts_by(cut, "part")},
        data_versions={**versions, table: version},
    )


def as_learning(usecase: UseCase, training_date: date, source: TrainingSetSource) -> UseCase:
    """Return the use case as it learns from the training set of this source.

    Raises:
        InputError: it is to learn from the dates since a change, and does not say how.
    """
    return usecase if source.since is None else usecase.learning_since(source.since, training_date)


def build_from(lake: Lake, usecase: UseCase, training_date: date, source: TrainingSetSource) -> pa.Table:
    """Return the training set of a date, made from these versions of the lake's tables: the same whenever it is made.

    Raises:
        ml_assets.learning.training_set.TrainingSetError: there are too few labelled decisions, or some whose features
            were made before one of them was added.
        FileNotFoundError: there are no features or no labels.
    """
    cut = _cut(lake, as_learning(usecase, training_date, source), training_date, source)
    return pa.concat_tables(_Rows(lake, usecase, cut, source)).combine_chunks()


def _cut(lake: Lake, usecase: UseCase, training_date: date, source: TrainingSetSource) -> pa.Table:
    """Return which decisions are in the training set: their keys, label and part, sorted, without features."""
    split, versions = usecase.split, source.data_versions
    decision_days = split.train_days + split.calibration_days + split.test_days
    anchor = min(training_date, source.test_first or training_date)
    # In calendar days, and as far again for outcomes that are known late; further back where that is not enough.
    reach = timedelta(days=decision_days * 7 // 5 + 90)
    oldest = min((file.partition for file in lake.files(features_table(usecase), "decision_date")), default=anchor)
    while True:
        first = source.since or anchor - reach
        is_last = source.since is not None or first <= oldest
        try:
            rows = _cut_within(lake, usecase, training_date, source, first)
            if _is_full(rows, split) or is_last:
                break
        except TrainingSetError as few:
            if source.since is not None:
                said = str(few).replace("SplitSpec", "SinceChangeSpec")
                raise TrainingSetError(
                    f"of the decision dates since {source.since} alone: {said}. Or retrain as on other days, without "
                    "the date of a change"
                ) from few
            if is_last:
                raise
        reach *= 2
    decided_on = ds.field("decision_date").isin(rows["decision_date"].unique())
    _refuse_older_features(lake, usecase, decided_on, versions[features_table(usecase)])
    return rows


def _cut_within(lake: Lake, usecase: UseCase, training_date: date, source: TrainingSetSource, first: date) -> pa.Table:
    """Return which decisions from `first` on are in the training set of a date."""
    versions = source.data_versions
    in_reach = (ds.field("decision_date") >= first) & (ds.field("decision_date") <= training_date)
    table = lake.dataset(features_table(usecase), versions[features_table(usecase)])
    if table is not None and not set(_columns_of(usecase)) <= set(table.schema.names):
        _refuse_older_features(lake, usecase, in_reach, versions[features_table(usecase)])
    features = lake.read(
        features_table(usecase), columns=_CUT_BY, where=in_reach, version=versions[features_table(usecase)]
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


class _Rows:
    """The rows of a training set in order, with features and slices, the decisions of some dates at a time."""

    def __init__(self, lake: Lake, usecase: UseCase, cut: pa.Table, source: TrainingSetSource) -> None:
        self._usecase, self._cut = usecase, cut
        version = source.data_versions[features_table(usecase)]
        self._features = lake.dataset(features_table(usecase), version)
        self.empty = self._with_features(cut.slice(0, 0))

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the rows, whole dates each time and at least `_AT_ONCE` rows but for the last time."""
        dates = self._cut["decision_date"].to_numpy()
        ends = [*(np.flatnonzero(dates[1:] != dates[:-1]) + 1).tolist(), len(dates)]
        start = 0
        for end in ends:
            if end - start >= _AT_ONCE or end == len(dates):
                yield self._with_features(self._cut.slice(start, end - start))
                pa.default_memory_pool().release_unused()
                start = end

    def _with_features(self, cut: pa.Table) -> pa.Table:
        assert self._features is not None  # noqa: S101 - the cut was made of it
        decided_on = ds.field("decision_date").isin(cut["decision_date"].unique())
        found = self._features.to_table(columns=_columns_of(self._usecase), filter=decided_on)
        rows = labelled(found, cut, (*_OF_LABEL, "part"))
        tested = part_of(cut, "test")
        described = self._features.to_table(
            columns=["entity_id", "decision_time", "attributes"],
            filter=ds.field("decision_date").isin(tested["decision_date"].unique()),
        )
        return with_slices(self._usecase, rows, described)


def _columns_of(usecase: UseCase) -> list[str]:
    """Return the columns of the features table that a training set has."""
    return [*_KEY_COLUMNS, *(f.name for f in usecase.features if f.name not in _KEY_COLUMNS)]


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
    coded = labels["outcome_date"].combine_chunks().dictionary_encode()
    usual = pa.array([ends[day, usecase.calendar] for day in coded.dictionary.to_pylist()], TIMESTAMP)
    end = usual.take(coded.indices)
    if apart:
        rows = labels.filter(differs := pc.is_in(coded, pa.array(apart, pa.date32())))
        each = zip(*(rows[name].to_pylist() for name in ("outcome_date", "entity_id", "decision_time")), strict=True)
        of_place = [ends[day, calendar_of.get((*key,), usecase.calendar)] for day, *key in each]
        end = pc.replace_with_mask(end, differs, pa.array(of_place, TIMESTAMP))
    place = labels.column_names.index("label_known_at")
    known = labels["label_known_at"]
    counts_from = pc.if_else(pc.greater(known, end), known, end)
    return labels.set_column(place, labels.schema.field(place), counts_from)


def _is_full(rows: pa.Table, split: SplitSpec) -> bool:
    return len(part_of(rows, "train")["decision_date"].unique()) >= split.train_days


def read_training_set(
    lake: Lake,
    usecase: UseCase,
    training_date: date,
    version: int | None = None,
    *,
    parts: Sequence[str] = PARTS,
    for_models: bool = False,
) -> pa.Table:
    """Return the training set of a date, in the order in which it was built; `version` is the table's, None the newest.

    Only these parts of it are read. With `for_models` numeric features are float32, as all models read them, and texts
    other than the entity are codes of a dictionary: it takes a third of the memory.

    Raises:
        LookupError: there is none.
        FileNotFoundError: there is none of any date.
    """
    name = training_set_table(usecase)
    dataset = lake.dataset(name, _version(lake, name) if version is None else version)
    columns: dict[str, list[pa.Array]] = {}
    if dataset is not None:
        schema = pa.schema([f for f in dataset.schema if f.name not in (_DATE.name, _SOURCE.name)])
        where = ds.field(_DATE.name) == training_date
        if set(parts) != set(PARTS):
            where = where & ds.field("part").isin(list(parts))
        if for_models:
            schema = _as_models_read(usecase, schema)
        with np.errstate(over="ignore"):
            for batch in dataset.to_batches(columns=schema.names, filter=where, **FEW_AT_ONCE):
                for column, field in zip(batch.columns if batch.num_rows else (), schema, strict=False):
                    columns.setdefault(field.name, []).append(column.cast(field.type, safe=False))
    if not columns:
        raise NotFoundError(f"use case {usecase.name} has no training set of {training_date}; materialize it first")
    # Column by column, so that of one alone there are codes by two dictionaries.
    whole = [pa.chunked_array(columns.pop(f.name), f.type).unify_dictionaries() for f in schema]
    rows = _sorted(pa.table(whole, schema=schema))
    pa.default_memory_pool().release_unused()  # what reading needed beside the rows
    return rows


def _as_models_read(usecase: UseCase, schema: pa.Schema) -> pa.Schema:
    numeric = {f.name for f in usecase.features if f.kind == "numeric"} - set(_KEY_COLUMNS)

    def narrow(field: pa.Field) -> pa.Field:
        if field.name in numeric:
            return field.with_type(pa.float32())
        text = pa.types.is_string(field.type) and field.name != "entity_id"
        return field.with_type(CODED) if text else field

    return pa.schema([narrow(field) for field in schema])


def _sorted(rows: pa.Table) -> pa.Table:
    """Return rows by decision time and entity. They were written so, but whole runs of them may have changed places.

    Runs are put back without a copy.
    """
    order = [("decision_time", "ascending"), ("entity_id", "ascending")]
    keys = rows.select([name for name, _ in order])
    starts = [0, *_falls(keys)]
    runs = [slice(*ends) for ends in pairwise([*starts, rows.num_rows])]

    def key_at(position: int) -> tuple[Any, ...]:
        return tuple(column[position].as_py() for column in keys.columns)

    if len(runs) > _RUNS:
        return rows.sort_by(order)
    runs.sort(key=lambda run: key_at(run.start))
    if any(key_at(one.stop - 1) > key_at(other.start) for one, other in pairwise(runs)):
        return rows.sort_by(order)
    return pa.concat_tables(rows.slice(run.start, run.stop - run.start) for run in runs)


def _falls(keys: pa.Table) -> Iterator[int]:
    """Yield the positions of the rows, sorted by two keys, that belong before the row before them."""
    last, start = keys.slice(0, 0), 0
    for batch in keys.to_batches():
        both = pa.concat_tables([last, pa.Table.from_batches([batch])]).combine_chunks()
        times, entities = (column.chunk(0) for column in both.columns)
        before, after = (slice(None, -1), slice(1, None))
        falls = pc.or_(
            pc.less(times[after], times[before]),
            pc.and_(pc.equal(times[after], times[before]), pc.less(entities[after], entities[before])),
        )
        yield from (np.flatnonzero(falls.to_numpy(zero_copy_only=False)) + 1 + start - last.num_rows).tolist()
        last, start = both.slice(both.num_rows - 1), start + batch.num_rows


def training_set_source(
    lake: Lake, usecase: UseCase, training_date: date, version: int | None = None
) -> TrainingSetSource:
    """Return the source of the training set of a date, as recorded with its rows; `version` None is the newest.

    Raises:
        LookupError: this version of the table has no training set of the date.
    """
    if version is None:
        version = _version(lake, training_set_table(usecase))
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


def left_out(lake: Lake, usecase: UseCase, rows: pa.Table, source: TrainingSetSource) -> pa.Table | None:
    """Return the decisions that a training set (`rows`) leaves out because the team acted on them; None if it does not.

    They are of the same decision times, and have the same columns but for the label.
    """
    versions = source.data_versions
    if (outcomes := outcomes_table(usecase)) not in versions:
        return None
    first, last = _date_range(rows)
    listed = lake.read(outcomes, where=ds.field("outcome_date") >= first, version=versions[outcomes])
    decided = lake.read(
        features_table(usecase),
        columns=[*_CUT_BY, "outcome_date"],
        where=(ds.field("decision_date") >= first) & (ds.field("decision_date") <= last),
        version=versions[features_table(usecase)],
    )
    parts = rows.select(["decision_time", "part"]).group_by(["decision_time", "part"]).aggregate([])
    cut = (
        decided.join(acted_on(usecase, listed), keys=["entity_id", "outcome_date"], join_type="left semi")
        .join(parts.set_column(1, "part", parts["part"].cast(pa.string())), keys="decision_time", join_type="inner")
        .sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])
        .select([*_CUT_BY, "part"])
    )
    for name in _OF_LABEL:
        cut = cut.append_column(name, pa.nulls(cut.num_rows, rows.schema.field(name).type))
    made = _Rows(lake, usecase, cut, source)
    acted = pa.concat_tables([made.empty, *made], promote_options="default").drop_columns(_OF_LABEL)
    fields = [rows.schema.field(name) for name in acted.column_names]
    return pa.table([acted[f.name].cast(f.type, safe=False) for f in fields], schema=pa.schema(fields))


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
    rows = read_training_set(lake, usecase, training_date, version, for_models=True)
    source = training_set_source(lake, usecase, training_date, version)
    usecase = as_learning(usecase, training_date, source)
    candidate = next(one for one in usecase.candidates if one.name == candidate.name)
    acted = left_out(lake, usecase, rows, source)
    fitted = fit_candidate(usecase, candidate, rows, threads=threads, acted_on=acted)
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
                **({"learned_since": source.since.isoformat()} if source.since else {}),
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


# See `memory_needed`.
_BYTES_AT_FIRST, _BYTES_A_ROW, _BYTES_A_FITTED_ROW = 500 * 2**20, 400, 800
# Runs of sorted rows that are put in order one by one, not row by row.
_RUNS = 10_000
# Rows of a training set that are joined to their features at a time.
_AT_ONCE = 262_144
_OF_LABEL = ["label", "label_known_at"]
# Of the features, what decides which decisions are in a training set.
_CUT_BY = ["entity_id", "decision_time", "decision_date"]
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
