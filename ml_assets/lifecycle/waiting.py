"""What waits for which topic: a missing row counts as an outcome only once its topics have landed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime

import pyarrow as pa

from ml_assets.contracts import roll_to_weekday
from ml_assets.features import daily_events, label_events
from ml_assets.features.days import day_start
from ml_assets.features.sound import lacking
from ml_assets.lake import Lake, curated_table, features_table, quarantine_table
from ml_assets.landing.extent import TopicProgress, least, topic_progress
from ml_assets.landing.landed import look
from ml_assets.lifecycle.horizons import Horizons, Outcome, dates_of, horizons_of
from ml_assets.lifecycle.ingestion import beyond_limits
from ml_assets.spec import UseCase


def label_progress(lake: Lake, usecase: UseCase) -> TopicProgress:
    """Return how far the topic that delays the labels most has landed."""
    slowest = least(topic_progress(lake, event) for event in label_events(usecase))
    assert slowest is not None  # noqa: S101 - a use case has events
    return slowest


def daily_progress(lake: Lake, usecase: UseCase) -> TopicProgress | None:
    """Return how far the topic that delays decisions most has landed.

    None if there is no daily table, or if none of its events has ever landed: then no lander wrote their history.
    """
    landed = [topic_progress(lake, event) for event in daily_events(usecase)]
    return least(landed) if any(one.partitions for one in landed) else None


_TOO_MANY_BAD = (
    "more of it is in quarantine than its limits let through; mend feed or contract, replay dead letters, then "
)
# Events with rows that have landed and are not in the curated table, by event and business date, and why not.
NotIngested = tuple[tuple[str, date, str], ...]


def not_ingested(lake: Lake, usecase: UseCase) -> NotIngested:
    """Return which business dates of the events that the label waits for lack rows in the curated table.

    Rows have landed since the date was curated, or it was never curated, or more of its rows are in quarantine than
    the event's limits allow. Such a missing row, like one that has not landed, does not count as an outcome.
    """
    found = []
    for event in label_events(usecase):
        made: dict[date, datetime] = {}
        for table in (curated_table(usecase, event), quarantine_table(usecase, event)):
            for file in lake.files(table, "business_date"):
                made[file.partition] = max(file.modified_at, made.get(file.partition, file.modified_at))
        for day, state in look(lake, [event])[0].landed[event.topic].items():
            if state.rows and (day not in made or made[day] < state.landed_until):
                found.append((event.name, day, "has landed and has not been ingested; "))
        for day in sorted(beyond_limits(lake, usecase, event)):
            found.append((event.name, day, _TOO_MANY_BAD))
    return tuple(found)


def what_is_stale(usecase: UseCase, horizons: Horizons, stale: NotIngested, outcome: Outcome) -> str:
    """Return which event an outcome waits for that has landed, why, and what to do; empty if it waits for none."""
    first, known = horizons.span_of(outcome)
    for name, day, why in stale_for(stale, first, known)[:1]:
        return f"event {name} of {day}: {why}`ml-assets ingest {usecase.name} --from {day} --to {known}`"
    return ""


def stale_for(stale: NotIngested, first: date, last: date) -> NotIngested:
    """Return those of some dates, both included."""
    return tuple((name, day, why) for name, day, why in stale if first <= day <= last)


def is_mature(horizons: Horizons, slowest: TopicProgress | None, stale: NotIngested, outcome: Outcome) -> bool:
    """Return whether all that the labels of an outcome wait for has landed and is ingested."""
    return reached(slowest, horizons.known_at[outcome]) and not stale_for(stale, *horizons.span_of(outcome))


def all_progress(lake: Lake, usecases: Iterable[UseCase]) -> Mapping[str, TopicProgress]:
    """Return how far each topic of these use cases has landed."""
    events = {event.topic: event for usecase in usecases for event in usecase.events}
    return {topic: topic_progress(lake, event) for topic, event in events.items()}


def reached(progress: TopicProgress | None, moment: datetime) -> bool:
    """Return whether everything up to a time has landed."""
    return progress is None or (progress.until is not None and moment <= progress.until)


def what_lacks(lake: Lake, usecase: UseCase) -> list[str]:
    """Return, in words, which of the newest decisions lack what they need of the references and of their place."""
    made = [file for file in lake.files_with_ranges(features_table(usecase), ()) if file.rows]
    if not made:
        return []
    newest = max(file.values["decision_date"] for file in made)
    columns = ["attributes", "outcome_date"]
    rows = pa.concat_tables(file.read(columns) for file in made if file.values["decision_date"] == newest)
    found = sorted(lacking(usecase, rows).items())
    return [f"of {rows.num_rows:,} decisions of {newest}, {count:,}: {what}" for what, count in found]


def what_waits(lake: Lake, usecase: UseCase, now: datetime | None = None) -> list[str]:
    """Return, in words, what waits for a topic that has not landed: labels and decisions, each with topic and time."""
    now = now or datetime.now(UTC)
    labels, decisions = label_progress(lake, usecase), daily_progress(lake, usecase)
    horizons, stale = horizons_of(lake, usecase), not_ingested(lake, usecase)
    said = []
    if labels.until is not None:
        known = horizons.known_between(None, labels.until)
        held = {outcome.date: why for outcome in known if (why := what_is_stale(usecase, horizons, stale, outcome))}
        for first, why in list(held.items())[:1]:
            said.append(f"the labels of {len(held)} outcome dates, from {first} on, wait for {why}")
    if waiting := dates_of(horizons.known_between(labels.until, now)):
        said.append(f"the labels of {len(waiting)} outcome dates, from {waiting[0]} on, wait for {labels}")
    if decisions is not None and not reached(decisions, day_start(roll_to_weekday(now.date()))):
        said.append(f"decisions of today wait for {decisions}")
    return said
