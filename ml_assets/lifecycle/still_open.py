"""Which decisions of a list are open no more by now: by the use case's own decisions.sql, asked again.

A list is scored a few times a day; in between instructions settle and are cancelled. Asked is only about entities of
which something has become known since their decision, on their own events alone, so it costs little however many are
open. Where decisions.sql needs more than an entity's own events, it does not list the entity at its decision time
either: then nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.dataset as ds

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import AsOfDatabase, columns_read
from ml_assets.features.sql import use_of
from ml_assets.lake import Lake, curated_table
from ml_assets.lifecycle.features import in_reach, references_of
from ml_assets.lifecycle.lineage import naming
from ml_assets.spec import DecisionTime, UseCase


@dataclass(frozen=True, slots=True)
class Listed:
    """A decision on a list, and until when it can be open: its cut-off."""

    decision: DecisionTime
    until: datetime


def closed_since(lake: Lake, usecase: UseCase, listed: Mapping[str, Listed], now: datetime) -> dict[str, datetime]:
    """Return which of these entities have been closed since their decisions, and when their last event was known.

    What is open until its cut-off has not been closed by that. Where decisions.sql reads a daily table nothing is said:
    an entity's own events do not make one.
    """
    if not use_of(usecase.feature_sql["decisions"]).tables.isdisjoint(table.name.lower() for table in usecase.daily):
        return {}
    versions = lake.versions(curated_table(usecase, event) for event in usecase.events)
    news = _news(lake, usecase, listed, now, versions)
    if not news:
        return {}
    first = min(listed[entity].decision.decision_date for entity in news)
    rows = naming(lake, usecase, news, lambda event: in_reach(event.history, first, now.date()), versions)
    events = {
        event.name: of.select([c for c in columns_read(usecase, event) if c in of.column_names]) for event, of in rows
    }
    groups: dict[tuple[DecisionTime, DecisionTime], set[str]] = {}
    for entity in news:
        decision, until = listed[entity].decision, listed[entity].until
        as_of = min(now, max(decision.as_of, until - timedelta(microseconds=1)))
        again = DecisionTime(decision.slot, as_of, decision.decision_date)
        groups.setdefault((decision, again), set()).add(entity)
    closed: set[str] = set()
    with AsOfDatabase(usecase, events, references_of(usecase, lake.dataset), threads=1) as history:
        for (decision, again), entities in groups.items():
            closed |= (entities & history.decided(decision)) - history.decided(again)
    return {entity: news[entity] for entity in sorted(closed)}


def _news(
    lake: Lake, usecase: UseCase, listed: Mapping[str, Listed], now: datetime, versions: Mapping[str, int]
) -> dict[str, datetime]:
    """Return the entities that something known since their decisions names, and when the last of it was known."""
    found: dict[str, datetime] = {}
    if not listed:
        return found
    since = min(one.decision.as_of for one in listed.values())
    at = ds.field("known_at")
    known = (at > pa.scalar(since, TIMESTAMP)) & (at <= pa.scalar(now, TIMESTAMP))
    rows = naming(
        lake, usecase, listed, lambda event: known & in_reach(event.history, since.date(), now.date()), versions,
        by_key=False,
    )  # fmt: skip
    for row in (row for _, of in rows for row in of.to_pylist()):
        known_at = row["known_at"].astimezone(UTC)
        for entity in {value for value in row.values() if isinstance(value, str) and value in listed}:
            if known_at > listed[entity].decision.as_of:
                found[entity] = max(known_at, found.get(entity, known_at))
    return found
