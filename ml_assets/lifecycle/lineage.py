"""From a score, of a batch or of the service, back to model, run, code, features, data versions and Kafka offsets.

And the number made again, from the events by the feature SQL of today.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from operator import and_, or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from sqlalchemy import Engine

from ml_assets.answers import SERVED_SCORES
from ml_assets.contracts import TIMESTAMP, Event, arrow_schema
from ml_assets.database.predictions import find_prediction
from ml_assets.database.promotions import LedgerEntry, canary_of, in_force
from ml_assets.errors import NotFoundError, StateError
from ml_assets.features import daily_days
from ml_assets.lake import Lake, curated_table, features_table, landing_table, source_tables
from ml_assets.landing.schemas import EVENT
from ml_assets.learning.scorer import Scorer
from ml_assets.lifecycle.decided import made_from
from ml_assets.lifecycle.features import in_reach, open_history
from ml_assets.registry import CandidateRun, ModelRegistry
from ml_assets.spec import DecisionTime, EventSpec, UseCase

# Probabilities are the same if they differ by less: batches of another size may round otherwise.
SAME = 1e-9


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """An event of the entity that was known at the decision, with what it said and where it lies in Kafka."""

    event: str
    topic: str
    event_id: str
    event_time: datetime
    known_at: datetime
    kafka_epoch: str | None
    kafka_partition: int | None
    kafka_offset: int | None
    said: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictionLineage:
    """Where a score comes from.

    `prediction` is its row in PostgreSQL, or the answer of the service as it has landed. `promotion` is the ledger's
    line by which its model was champion when it scored. `features` are the values that were scored; `features_again`
    those that the feature SQL gives today from the versions of the curated tables from which these were made
    (`curated_versions`). `probability_again` is what the saved model gives for `features`, `probability_anew` for
    `features_again`.

    The service keeps no features: of an answer `features`, their version and `probability_again` are None, and
    `curated_versions` are those of now.
    """

    prediction: Mapping[str, Any]
    run: CandidateRun
    promotion: LedgerEntry | None
    features: Mapping[str, Any] | None
    features_again: Mapping[str, Any] | None
    features_version: int | None
    curated_versions: Mapping[str, int]
    probability_again: float | None
    probability_anew: float | None
    sources: tuple[SourceEvent, ...]

    @property
    def differing(self) -> list[str]:
        """The features that are not made again with the same value; none where none are kept."""
        if self.features is None:
            return []
        if self.features_again is None:
            return list(self.features)
        return [name for name, value in self.features.items() if not _same(value, self.features_again.get(name))]

    @property
    def reproduced(self) -> bool:
        """Whether each way leads to the number that was said."""
        ways = (self.probability_anew,) if self.features is None else (self.probability_again, self.probability_anew)
        return all(p is not None and abs(p - self.prediction["probability"]) < SAME for p in ways)


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
        raise NotFoundError(f"use case {usecase.name} has no prediction of {entity_id!r}{when}")
    decision = DecisionTime(prediction["slot"], prediction["decision_time"].astimezone(UTC))
    version = int(prediction["data_versions"][features_table(usecase)])
    rows = decided_row(lake, usecase, entity_id, decision, version)
    promotion = in_force(engine, usecase.name, prediction["mlflow_run_id"], prediction["scored_at"])
    scorer = _scorer(registry, prediction["mlflow_run_id"], promotion, threads)
    # Of features from before this was noted: what became known later is not seen in what is there now.
    noted = made_from(lake, usecase, [(decision.decision_date, version)])
    curated = {table: one for table, (one,) in noted.items()} or lake.versions(source_tables(usecase))
    again = features_again(lake, usecase, entity_id, decision, curated, threads)
    names = scorer.manifest.features.all
    return PredictionLineage(
        prediction=prediction,
        run=registry.run(prediction["mlflow_run_id"]),
        promotion=promotion,
        features=_values(rows, names),
        features_again=_values(again, names) if again.num_rows else None,
        features_version=version,
        curated_versions=curated,
        probability_again=float(scorer.score(rows)[0]),
        probability_anew=float(scorer.score(again)[0]) if again.num_rows else None,
        sources=tuple(_sources(lake, usecase, entity_id, decision, curated)),
    )


def explain_answer(
    lake: Lake, registry: ModelRegistry, engine: Engine | str, usecase: UseCase, entity_id: str, answer: str, *,
    threads: int = 0,
) -> PredictionLineage:  # fmt: skip
    """Return the lineage of what the service answered for an entity, by the id of the answer or of the request.

    Its features are made again as of its decision time, from what is in the curated tables now: what became known later
    is not seen.

    Raises:
        LookupError: no such answer has landed, or its run no longer exists.
        StateError: it was a what-if, whose fields nobody keeps.
    """
    said = find_answer(lake, usecase, entity_id, answer)
    if said["what_if"]:
        raise StateError(
            f"answer {said['event_id']} was a what-if: the fields that it was given are not kept, and it cannot be "
            "made again; ask the service the same once more"
        )
    slots = usecase.slots_at(said["decision_time"].astimezone(UTC))
    decision = next((slot for slot in slots if slot.slot == said["slot"]), None)
    if decision is None:
        raise NotFoundError(
            f"use case {usecase.name} has no slot {said['slot']!r} any more, by which {entity_id!r} was decided: its "
            "features cannot be made again; trace it with the code of that time"
        )
    line_of = canary_of if said["stage"] == "canary" else in_force
    promotion = line_of(engine, usecase.name, said["mlflow_run_id"], said["event_time"])
    scorer = _scorer(registry, said["mlflow_run_id"], promotion, threads)
    versions = lake.versions(source_tables(usecase))
    again = features_again(lake, usecase, entity_id, decision, versions, threads)
    return PredictionLineage(
        prediction=said,
        run=registry.run(said["mlflow_run_id"]),
        promotion=promotion,
        features=None,
        features_again=_values(again, scorer.manifest.features.all) if again.num_rows else None,
        features_version=None,
        curated_versions=versions,
        probability_again=None,
        probability_anew=float(scorer.score(again)[0]) if again.num_rows else None,
        sources=tuple(_sources(lake, usecase, entity_id, decision, versions)),
    )


def find_answer(lake: Lake, usecase: UseCase, entity_id: str, answer: str) -> Mapping[str, Any]:
    """Return what was answered for an entity, by the id of the answer or of the request, as it has landed.

    Of a request that several stages answered this is what the caller was told, and of several answers the newest.

    Raises:
        LookupError: none has landed.
    """
    asked = {"kind": EVENT, "use_case": usecase.name, "entity_id": entity_id}
    where = reduce(and_, (ds.field(name) == value for name, value in asked.items()))
    by_id = (ds.field("event_id") == answer) | (ds.field("request_id") == answer)
    table = landing_table(SERVED_SCORES.topic)
    rows = lake.read(table, where=where & by_id).to_pylist() if lake.version(table) is not None else []
    if not rows:
        raise NotFoundError(
            f"no answer {answer!r} on {entity_id!r} of use case {usecase.name} is in {table}; an answer lands seconds "
            "after it was given, while the lander runs"
        )
    return max(rows, key=lambda row: (row["stage"] != "shadow", row["event_time"]))


def _scorer(registry: ModelRegistry, run_id: str, promotion: LedgerEntry | None, threads: int) -> Scorer:
    """Return the model of a run, with the files that were approved, if it was."""
    approved = promotion.model_hash if promotion else None
    return Scorer.from_files(registry.download_model(run_id, approved), threads=threads)


def decided_row(lake: Lake, usecase: UseCase, entity_id: str, decision: DecisionTime, version: int) -> pa.Table:
    """Return the row of the features table, at the version that was scored."""
    where = (ds.field("decision_date") == decision.decision_date) & (ds.field("entity_id") == entity_id)
    rows = lake.read(features_table(usecase), where=where, version=version)
    rows = rows.filter(pc.equal(rows["slot"], decision.slot))
    if rows.num_rows != 1:
        raise NotFoundError(
            f"use case {usecase.name}: version {version} of {features_table(usecase)} has {rows.num_rows} rows of "
            f"{entity_id!r} at {decision.as_of}; the version may have been vacuumed"
        )
    return rows


def features_again(
    lake: Lake, usecase: UseCase, entity_id: str, decision: DecisionTime, versions: Mapping[str, int], threads: int
) -> pa.Table:
    """Return the entity's features, made by the SQL of today from those versions; no row if it is not decided."""
    day = decision.decision_date
    first = min([day, *(daily_days(usecase, [day]) if usecase.daily else ())])
    with open_history(lake, usecase, first, day, versions=versions, threads=threads) as history:
        rows = history.features(decision)
    return rows.filter(pc.equal(rows["entity_id"], entity_id))


def events_until(lake: Lake, usecase: UseCase, entity_id: str, decision: DecisionTime) -> list[SourceEvent]:
    """Return the events that name an entity, and those that these name by key, known by a decision time, in order.

    They are read from the curated tables as these are now.
    """
    versions = lake.versions(curated_table(usecase, event) for event in usecase.events)
    return _sources(lake, usecase, entity_id, decision, versions)


def _sources(
    lake: Lake, usecase: UseCase, entity_id: str, decision: DecisionTime, versions: Mapping[str, int]
) -> list[SourceEvent]:
    """Return the events that name the entity, and those that these name by key, known by the decision, in order."""
    day, known = decision.decision_date, ds.field("known_at") <= pa.scalar(decision.as_of, TIMESTAMP)
    tables = naming(lake, usecase, [entity_id], lambda event: known & in_reach(event.history, day, day), versions)
    found = {(event.name, row["event_id"]): _source(event, row) for event, rows in tables for row in rows.to_pylist()}
    return sorted(found.values(), key=lambda source: (source.known_at, source.event, source.event_id))


def naming(
    lake: Lake,
    usecase: UseCase,
    entities: Collection[str],
    where: Callable[[EventSpec], ds.Expression],
    versions: Mapping[str, int],
    *,
    by_key: bool = True,
) -> list[tuple[EventSpec, pa.Table]]:
    """Return the curated rows that name any of these entities, of each event; with `by_key` also those that they name.

    `where` says which rows of an event are looked at, `versions` the versions of the curated tables, by name.
    """

    def read(wanted: Callable[[EventSpec], list[ds.Expression]]) -> list[tuple[EventSpec, pa.Table]]:
        names = {event.name: curated_table(usecase, event) for event in usecase.events}
        return [
            (event, lake.read(name, where=where(event) & reduce(or_, columns), version=versions[name]))
            for event in usecase.events
            if (name := names[event.name]) in versions and (columns := wanted(event))
        ]

    def direct(event: EventSpec) -> list[ds.Expression]:
        return [ds.field(column).isin(sorted(entities)) for column in _texts(event)]

    rows = read(direct)
    if not by_key:
        return rows
    named: dict[str, set[str]] = {}
    for event, found in rows:
        for column in _texts(event):
            named.setdefault(column, set()).update(set(pc.unique(found[column]).to_pylist()) - {None, ""})
    return read(
        lambda event: [*direct(event), *(ds.field(c).isin(sorted(named[c])) for c in event.key if named.get(c))]
    )


def _texts(event: EventSpec) -> list[str]:
    """Return the columns of an event that can name something else: its texts, but its own id."""
    return [f.name for f in arrow_schema(event.contract) if pa.types.is_string(f.type) and f.name != "event_id"]


def _source(event: EventSpec, row: Mapping[str, Any]) -> SourceEvent:
    epoch, partition, offset = (row.get(f"kafka_{name}") for name in ("epoch", "partition", "offset"))
    said = {name: row[name] for name in event.contract.__struct_fields__ if name not in Event.__struct_fields__}
    return SourceEvent(
        event.name, event.topic, row["event_id"], row["event_time"], row["known_at"], epoch, partition, offset, said
    )


def _values(rows: pa.Table, names: tuple[str, ...]) -> dict[str, Any]:
    row = rows.slice(0, 1).to_pylist()[0]
    return {name: row.get(name) for name in names}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-9, atol=1e-9, equal_nan=True))
    return bool(one == other)
