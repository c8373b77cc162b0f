"""Past cases: kept once their outcomes are known, and found again by what is like a decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray
from sqlalchemy import Engine

from ml_assets.database.models import PastCase
from ml_assets.database.monitoring import replace_dates
from ml_assets.database.predictions import find_prediction
from ml_assets.database.similar import (
    DIMENSIONS,
    SimilarCase,
    case_space,
    count_cases,
    make_room,
    outcome_dates_known_on,
    similar_cases,
    stored,
)
from ml_assets.errors import InputError, NotFoundError, StateError
from ml_assets.features.days import day_end, day_start
from ml_assets.lake import Lake, features_table, outcomes_table
from ml_assets.learning.case_space import CaseSpace
from ml_assets.lifecycle.champion import champion_run
from ml_assets.lifecycle.lineage import decided_row
from ml_assets.lifecycle.opened_models import OpenedModel, OpenedModels
from ml_assets.lot import lot
from ml_assets.monitoring.outcomes import BATCH, OUTCOMES_SCHEMA, judged_rows
from ml_assets.registry import ModelRegistry
from ml_assets.spec import DecisionTime, UseCase

# Cases of an outcome date beside those that were listed: by lot, so that the share of fails among them stays that of
# all. More of a day are no better neighbours, and each takes a millisecond to put into the index.
CASES_A_DATE: Final = 4_000
# Typical decisions with which each case is compared for what its causes added: see `Explainer.contributions`.
_BACKGROUND: Final = 4
_KEYS: Final = ["entity_id", "decision_time"]
# What a case takes of its outcome as it is, and what is looked at beside; the use case is that of all.
_TAKEN: Final = (
    "outcome_date", "entity_id", "decision_time", "slot", "mlflow_run_id", "model_version", "probability",
    "expected_cost", "on_list", "control", "label", "label_known_at",
)  # fmt: skip
_READ: Final = (*_TAKEN, "decision_date", "is_complete")
_SCHEMA: Final = pa.schema([*(OUTCOMES_SCHEMA.field(name) for name in _TAKEN), ("vector", pa.string())])


@dataclass(frozen=True, slots=True)
class CasesReport:
    """What a run kept: outcome dates, cases and fails among them, and why decisions were left out.

    `space` is the MLflow run of the model whose training set standardises features, None if there is none, for `why`.
    `spaces` counts all cases of the use case by space; `indexed` is False while the database has no pgvector.
    """

    dates: Sequence[date]
    cases: int
    fails: int
    left_out: Mapping[str, int]
    space: str | None
    why: str
    spaces: Mapping[str, int]
    indexed: bool

    @property
    def elsewhere(self) -> int:
        """How many cases are in another space than the one in use, and so are not found."""
        return sum(number for space, number in self.spaces.items() if space != self.space)


@dataclass(frozen=True, slots=True)
class Similar:
    """A decision with the past cases nearest to it, the nearest first, as known by its time."""

    prediction: Mapping[str, Any]
    cases: Sequence[SimilarCase]

    @property
    def fails(self) -> int:
        """How many of the cases came out as the use case predicts (label 1)."""
        return sum(case.label for case in self.cases)

    def said(self, usecase: UseCase) -> str:
        """Return what the cases come to beside the probability, in a sentence."""
        if not self.cases:
            return "no past case of this slot had a known outcome by then"
        word = usecase.label.probability_of
        return (
            f"{self.fails} of the {len(self.cases)} most similar past cases came out as {word}; the model says "
            f"p({word}) = {self.prediction['probability']:.1%}"
        )


def keep_cases(
    lake: Lake, registry: ModelRegistry, engine: Engine, usecase: UseCase, dates: Sequence[date], *, threads: int = 0,
    most: int = CASES_A_DATE,
) -> CasesReport:  # fmt: skip
    """Keep as past cases the decisions about all outcome dates of which something became known on these dates.

    Whole outcome dates are replaced, so that a label which is corrected or withdrawn leaves nothing behind. A case is a
    prediction of the batch about a complete outcome date, with its label. Its vector has the features as of its
    decision and what the model that scored it made of them: nothing of the outcome.
    """
    models = OpenedModels(registry, threads)
    indexed = make_room(engine, usecase.name)
    run, why = _space_run(registry, engine, usecase, models)
    touched = _touched(lake, engine, usecase, dates)
    left_out: Counter[str] = Counter()
    cases = []
    if run is not None:
        known = _some_of(usecase, judged_rows(_outcomes(lake, usecase, touched)), most)
        space = _space_of(models.open(usecase, run))
        cases = list(_cases(lake, usecase, known, space, models, left_out))
    rows = pa.concat_tables(cases) if cases else _SCHEMA.empty_table()
    rows = rows.append_column("space", pa.repeat(pa.scalar(run or ""), rows.num_rows))
    rows = rows.append_column("use_case", pa.repeat(pa.scalar(usecase.name), rows.num_rows))
    replace_dates(engine, PastCase, usecase.name, touched, rows)
    fails = int(pc.sum(rows["label"]).as_py() or 0)
    spaces = count_cases(engine, usecase.name)
    return CasesReport(touched, rows.num_rows, fails, dict(left_out), run, why, spaces, indexed)


def find_similar(
    lake: Lake, registry: ModelRegistry, engine: Engine, usecase: UseCase, entity_id: str,
    decision_time: datetime | None = None, *, limit: int = 10, threads: int = 0, models: OpenedModels | None = None,
) -> Similar:  # fmt: skip
    """Return the past cases that are most like an entity's decision, the newest or that of a decision time.

    They are of the same slot, and their outcomes were known by the time of the decision. A process that stays gives
    `models`, so that none is opened twice.

    Raises:
        LookupError: there is no such prediction, or its model or features no longer exist.
        StateError: there are no past cases to compare it with, or no pgvector.
    """
    prediction = find_prediction(engine, usecase.name, entity_id, decision_time)
    if prediction is None:
        when = f" at {decision_time}" if decision_time else ""
        raise NotFoundError(f"use case {usecase.name} has no prediction of {entity_id!r}{when}")
    run = case_space(engine, usecase.name)
    if run is None:
        raise StateError(
            f"use case {usecase.name} has no past cases yet: they come with the outcomes of what was scored",
            to_do=f"the asset `{usecase.name}/past_cases` keeps them; the job `{usecase.name}_monitor` makes it",
        )
    models = models or OpenedModels(registry, threads)
    opened = models.open(usecase, prediction["mlflow_run_id"])
    space = models.open(usecase, run)
    if opened.scorer.manifest.feature_set_hash != space.scorer.manifest.feature_set_hash:
        raise StateError(
            f"{entity_id!r} was decided with other features than the past cases of {usecase.name}",
            to_do=f"the asset `{usecase.name}/past_cases` keeps cases with the new features as outcomes come",
        )
    at = prediction["decision_time"].astimezone(UTC)
    version = int(prediction["data_versions"][features_table(usecase)])
    decision = DecisionTime(prediction["slot"], at, prediction["decision_date"])
    rows = decided_row(lake, usecase, entity_id, decision, version)
    (vector,) = _space_of(space).vectors(rows, _contributions(opened, rows))
    cases = similar_cases(
        engine, usecase.name, run, vector.tolist(), slot=prediction["slot"], entity_id=entity_id,
        outcome_date=prediction["outcome_date"], as_of=at, limit=limit,
    )  # fmt: skip
    return Similar(prediction, cases)


def _space_run(
    registry: ModelRegistry, engine: Engine, usecase: UseCase, models: OpenedModels
) -> tuple[str | None, str]:
    """Return the model by whose training set features are standardised, and why there is none.

    It stays the same from model to model, or cases could not be compared; another definition of the features needs
    another.
    """
    why = "nothing has been scored yet"
    for run in (case_space(engine, usecase.name), champion_run(registry, engine, usecase)):
        if run is None:
            continue
        try:
            model = models.open(usecase, run)
            if model.scorer.manifest.feature_set_hash != usecase.feature_set_hash:
                why = "the features have another definition than when the model was trained; retrain"
                continue
            _space_of(model)
        except (LookupError, FileNotFoundError) as lost:
            why = f"the model that scored cannot be looked up: {lost}"
        except InputError as old:
            why = str(old)
        else:
            return run, ""
    return None, why


def _space_of(model: OpenedModel) -> CaseSpace:
    return CaseSpace(model.scorer.manifest, model.explainer.causes if model.explainer else (), DIMENSIONS)


def _contributions(model: OpenedModel, rows: pa.Table) -> NDArray[np.float64]:
    if model.explainer is None:
        return np.empty((rows.num_rows, 0))
    return model.explainer.contributions(rows, background=_BACKGROUND)


def _touched(lake: Lake, engine: Engine, usecase: UseCase, dates: Sequence[date]) -> list[date]:
    """Return the outcome dates of which something became known on these dates, now or before.

    What became known before, and may have been withdrawn since, is told by the cases themselves.
    """
    found: set[date] = set()
    if lake.dataset(outcomes_table(usecase)) is not None:
        known = ds.field("known_date").isin(pa.array(sorted(dates), pa.date32()))
        rows = lake.read(outcomes_table(usecase), columns=["outcome_date"], where=known)
        found = set(pc.unique(rows["outcome_date"]).to_pylist())
    moment = timedelta(microseconds=1)
    for day in dates:
        found |= set(outcome_dates_known_on(engine, usecase.name, day_start(day), day_end(day) + moment))
    return sorted(found)


def _outcomes(lake: Lake, usecase: UseCase, outcome_dates: Sequence[date]) -> pa.Table:
    """Return the outcomes of what the batch has predicted about these dates."""
    if lake.dataset(outcomes_table(usecase)) is None:
        return OUTCOMES_SCHEMA.empty_table().select(list(_READ))
    about = ds.field("outcome_date").isin(pa.array(list(outcome_dates), pa.date32()))
    return lake.read(outcomes_table(usecase), columns=list(_READ), where=about & (ds.field("stage") == BATCH))


def _some_of(usecase: UseCase, rows: pa.Table, most: int) -> pa.Table:
    """Return what was listed, and of the rest of each outcome date about `most` decisions, by lot of their entity."""
    counted = pc.value_counts(rows["outcome_date"]).to_pylist()
    counts = {one["values"]: one["counts"] for one in counted}
    if all(count <= most for count in counts.values()):
        return rows
    shares = np.array([most / counts[day] for day in rows["outcome_date"].to_pylist()])
    drawn = np.array([lot("past_cases", usecase.name, entity) for entity in rows["entity_id"].to_pylist()])
    return rows.filter(pa.array((drawn < shares) | rows["on_list"].to_numpy()))


def _cases(
    lake: Lake, usecase: UseCase, known: pa.Table, space: CaseSpace, models: OpenedModels, left_out: Counter[str]
) -> Iterator[pa.Table]:
    """Yield the cases by the model that scored them, in `_SCHEMA`; count what is left out, by why."""
    decided = pc.unique(known["decision_date"]).to_pylist()
    if not decided:
        return
    where = ds.field("decision_date").isin(pa.array(sorted(decided), pa.date32()))
    features = lake.read(features_table(usecase), where=where)
    for run in sorted(pc.unique(known["mlflow_run_id"]).to_pylist()):
        of_model = known.filter(pc.equal(known["mlflow_run_id"], run))
        try:
            model = models.open(usecase, run)
        except (LookupError, FileNotFoundError):
            left_out["the model that scored them is gone"] += of_model.num_rows
            continue
        if model.scorer.manifest.feature_set_hash != usecase.feature_set_hash:
            left_out["decided with another definition of the features"] += of_model.num_rows
            continue
        added = [name for name in features.column_names if name not in of_model.column_names or name in _KEYS]
        rows = of_model.join(features.select(added), keys=_KEYS, join_type="inner")
        rows = rows.sort_by([(name, "ascending") for name in reversed(_KEYS)]).combine_chunks()
        if lost := of_model.num_rows - rows.num_rows:
            left_out["their features are gone"] += lost
        vectors = space.vectors(rows, _contributions(model, rows))
        texts = pa.array([stored(vector) for vector in vectors.tolist()], pa.string())
        yield rows.append_column("vector", texts).select(_SCHEMA.names).cast(_SCHEMA)
