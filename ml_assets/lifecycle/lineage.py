"""From a prediction back to model, run, code, features, data versions and Kafka offsets; and the number made again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from sqlalchemy import Engine

from ml_assets.contracts import arrow_schema
from ml_assets.database.predictions import find_prediction
from ml_assets.database.promotions import LedgerEntry, history
from ml_assets.features import AsOfDatabase
from ml_assets.lake import Lake, curated_table, features_table, reference_table
from ml_assets.learning.scorer import Scorer
from ml_assets.registry import CandidateRun, ModelRegistry
from ml_assets.spec import DecisionTime, UseCase

# Probabilities are the same if they differ by less: batches of another size may round otherwise.
SAME = 1e-9


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """An event of the entity that was known at the decision, with where it lies in Kafka."""

    event: str
    topic: str
    event_id: str
    event_time: datetime
    known_at: datetime
    kafka_epoch: str | None
    kafka_partition: int | None
    kafka_offset: int | None


@dataclass(frozen=True)
class PredictionLineage:
    """Where a prediction comes from.

    `prediction` is its row in PostgreSQL. `features` are the values that were scored; `features_again` those that the
    feature SQL gives today from the curated tables as they stood when the features were written (`curated_versions`).
    `probability_again` is what the saved model gives for `features`, `probability_anew` for `features_again`.
    """

    prediction: Mapping[str, Any]
    run: CandidateRun
    promotion: LedgerEntry | None
    features: Mapping[str, Any]
    features_again: Mapping[str, Any] | None
    features_version: int
    curated_versions: Mapping[str, int]
    probability_again: float
    probability_anew: float | None
    sources: tuple[SourceEvent, ...]

    @property
    def differing(self) -> list[str]:
        """The features that are not made again with the same value."""
        if self.features_again is None:
            return list(self.features)
        return [name for name, value in self.features.items() if not _same(value, self.features_again.get(name))]

    @property
    def reproduced(self) -> bool:
        """Whether both ways lead to the number that was written."""
        said = self.prediction["probability"]
        return all(p is not None and abs(p - said) < SAME for p in (self.probability_again, self.probability_anew))


def explain_prediction(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    entity_id: str,
    decision_time: datetime | None = None,
    *,
    threads: int = 0,
) -> PredictionLineage:
    """Return the lineage of an entity's prediction, the newest or that of a decision time.

    Raises:
        LookupError: there is no such prediction, or its run or features no longer exist.
    """
    prediction = find_prediction(engine, usecase.name, entity_id, decision_time)
    if prediction is None:
        when = f" at {decision_time}" if decision_time else ""
        raise LookupError(f"use case {usecase.name} has no prediction of {entity_id!r}{when}")
    decision = DecisionTime(prediction["slot"], prediction["decision_time"].astimezone(UTC))
    version = int(prediction["data_versions"][features_table(usecase)])
    rows = _decided(lake, usecase, entity_id, decision, version)
    scorer = Scorer.from_files(registry.download_model(prediction["mlflow_run_id"]), threads=threads)
    curated = _versions_then(lake, usecase, version)
    again = _features_again(lake, usecase, entity_id, decision, curated, threads)
    names = scorer.manifest.features.all
    promoted = [
        line
        for line in history(engine, usecase.name, limit=10_000)
        if line.action == "promoted" and line.to_version == prediction["model_version"]
    ]
    return PredictionLineage(
        prediction=prediction,
        run=registry.run(prediction["mlflow_run_id"]),
        promotion=promoted[0] if promoted else None,
        features=_values(rows, names),
        features_again=_values(again, names) if again.num_rows else None,
        features_version=version,
        curated_versions=curated,
        probability_again=float(scorer.score(rows)[0]),
        probability_anew=float(scorer.score(again)[0]) if again.num_rows else None,
        sources=tuple(_sources(lake, usecase, entity_id, decision, curated)),
    )


def _decided(lake: Lake, usecase: UseCase, entity_id: str, decision: DecisionTime, version: int) -> pa.Table:
    """Return the row of the features table, at the version that was scored."""
    where = (ds.field("decision_date") == decision.decision_date) & (ds.field("entity_id") == entity_id)
    rows = lake.read(features_table(usecase), where=where, version=version)
    rows = rows.filter(pc.equal(rows["slot"], decision.slot))
    if rows.num_rows != 1:
        raise LookupError(
            f"use case {usecase.name}: version {version} of {features_table(usecase)} has {rows.num_rows} rows of "
            f"{entity_id!r} at {decision.as_of}; the version may have been vacuumed"
        )
    return rows


def _versions_then(lake: Lake, usecase: UseCase, version: int) -> dict[str, int]:
    """Return the versions at which curated and reference tables stood when this version of the features was written."""
    table = lake.table(features_table(usecase), version)
    assert table is not None  # noqa: S101 - its row has just been read
    written = next(commit["timestamp"] for commit in table.history() if commit["version"] == version)
    names = [curated_table(usecase, event) for event in usecase.events]
    names += [reference_table(usecase, reference) for reference in usecase.references]
    found = {}
    for name in names:
        if (other := lake.table(name)) is None:
            continue
        before = [commit["version"] for commit in other.history() if commit["timestamp"] <= written]
        if before:
            found[name] = int(max(before))
    return found


def _features_again(
    lake: Lake, usecase: UseCase, entity_id: str, decision: DecisionTime, versions: Mapping[str, int], threads: int
) -> pa.Table:
    """Return the entity's features, made by the SQL of today from those versions; no row if it is not decided."""
    events, references = {}, {}
    for event in usecase.events:
        if (name := curated_table(usecase, event)) in versions:
            recent = ds.field("business_date") >= decision.decision_date - usecase.look_back(event)
            until = ds.field("business_date") <= decision.decision_date
            events[event.name] = lake.read(name, where=recent & until, version=versions[name])
    for reference in usecase.references:
        if (name := reference_table(usecase, reference)) in versions:
            references[reference.name] = lake.read(name, version=versions[name])
    with AsOfDatabase(usecase, events, references, threads=threads) as db:
        rows = db.features(decision)
    return rows.filter(pc.equal(rows["entity_id"], entity_id))


def _sources(
    lake: Lake, usecase: UseCase, entity_id: str, decision: DecisionTime, versions: Mapping[str, int]
) -> list[SourceEvent]:
    """Return the events that name the entity, then those that they name by key, known by the decision, in order."""
    named: dict[str, set[str]] = {}
    found: dict[tuple[str, str], SourceEvent] = {}
    reachable = [event for event in usecase.events if curated_table(usecase, event) in versions]
    for direct in (True, False):
        for event in reachable:
            texts = [f.name for f in arrow_schema(event.contract) if pa.types.is_string(f.type)]
            if direct:
                wanted = [ds.field(column) == entity_id for column in texts if column != "event_id"]
            else:
                wanted = [ds.field(c).isin(sorted(named[c])) for c in event.key if c in named and c != "event_id"]
            if not wanted:
                continue
            anyone = wanted[0]
            for one in wanted[1:]:
                anyone = anyone | one
            name = curated_table(usecase, event)
            known = (ds.field("known_at") <= pa.scalar(decision.as_of, pa.timestamp("us", tz="UTC"))) & (
                ds.field("business_date") >= decision.decision_date - event.history
            )
            for row in lake.read(name, where=known & anyone, version=versions[name]).to_pylist():
                found.setdefault((event.name, row["event_id"]), _source(event.name, event.topic, row))
                if direct:
                    for column in texts:
                        if row[column]:
                            named.setdefault(column, set()).add(row[column])
    return sorted(found.values(), key=lambda source: (source.known_at, source.event, source.event_id))


def _source(event: str, topic: str, row: Mapping[str, Any]) -> SourceEvent:
    return SourceEvent(
        event,
        topic,
        row["event_id"],
        row["event_time"],
        row["known_at"],
        row.get("kafka_epoch"),
        row.get("kafka_partition"),
        row.get("kafka_offset"),
    )


def _values(rows: pa.Table, names: tuple[str, ...]) -> dict[str, Any]:
    row = rows.slice(0, 1).to_pylist()[0]
    return {name: row.get(name) for name in names}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-9, atol=1e-9, equal_nan=True))
    return bool(one == other)
