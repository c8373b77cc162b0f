"""The sensor on landed data: which partitions does what has landed since the last tick change?"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import cast

import dagster as dg
import msgspec
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from ml_assets.defs.assets.ingestion import LANDED_AT
from ml_assets.defs.common import key, landing_key, partitions
from ml_assets.defs.jobs import feature_keys, ingestion_keys, job_name
from ml_assets.defs.resources import Platform
from ml_assets.defs.sensors.cursor import remember, remembered
from ml_assets.features.days import day_of, day_start
from ml_assets.landing.landed import Change, Landed, look
from ml_assets.lifecycle.horizons import dates_of, horizons_of
from ml_assets.lifecycle.waiting import daily_progress, label_progress
from ml_assets.spec import UseCase

# Dates in one run: runs stay short and within their memory.
_LONGEST = 20
# Materializations that are looked at when there is no cursor.
_HISTORY = 5_000


class Reach(msgspec.Struct, frozen=True):
    """Up to when the topics had landed that labels wait for, and those that decisions wait for."""

    labels: datetime | None = None
    decisions: datetime | None = None


class Cursor(msgspec.Struct, frozen=True):
    """What the last tick saw: what had landed, how far its topics had, and when it looked."""

    landed: Landed = Landed()
    looked_at: datetime | None = None
    reach: Reach | None = None


@dataclass(frozen=True)
class Passed:
    """What the topics have reached since the last look: outcomes of which all has landed, and days likewise.

    `outcomes` are the times at which they are known; `days` the business days before which all has landed.
    """

    outcomes: Sequence[datetime] = ()
    days: Sequence[date] = ()


def landed_data_sensor(usecase: UseCase) -> dg.SensorDefinition:
    """Return the sensor that requests exactly the partitions that landed data, or the time of day, has changed."""

    @dg.sensor(
        name=f"{usecase.name}_landed_data",
        job_name=job_name(usecase, "ingest"),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Compares what has landed for {usecase.name} with what it saw last time, and requests the dates that "
            "have changed, late data included, and those with a decision time that has come."
        ),
    )
    def landed_data(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
        now = datetime.now(UTC)
        if context.cursor:
            cursor = remembered(context, Cursor)
        else:
            cursor = Cursor(already_ingested(context.instance, platform, usecase))
        landed, change = look(platform.lake, usecase.events, cursor.landed)
        reach, passed, waits = _progress(platform, usecase, cursor.reach, now, change.known_from)
        requests = list(plan(usecase, landed, change, cursor.looked_at, now, passed))
        remember(context, Cursor(landed, now, reach))
        if waits:
            context.log.info(waits)
        if not requests:
            said = "nothing new has landed" if any(landed.landed.values()) else "nothing has landed yet"
            return dg.SkipReason(f"{said}; {waits}" if waits else said)
        return dg.SensorResult(run_requests=requests, asset_events=list(_observations(usecase, landed, change)))

    return landed_data


def already_ingested(instance: dg.DagsterInstance, platform: Platform, usecase: UseCase) -> Landed:
    """Return what has landed and been ingested, as the materializations tell: where a sensor without a cursor starts.

    Without this, a new or reset sensor would ask for all of history once more.
    """
    landed, _ = look(platform.lake, usecase.events)
    for event in usecase.events:
        asset = key(usecase, "curated", event.name)
        read_until: dict[date, datetime] = {}
        for record in instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=asset), limit=_HISTORY).records:
            made = record.asset_materialization
            if made is not None and made.partition is not None and LANDED_AT in made.metadata:
                day = date.fromisoformat(made.partition)
                at = datetime.fromtimestamp(cast("float", made.metadata[LANDED_AT].value), tz=UTC)
                read_until[day] = max(at, read_until.get(day, at))
        landed = landed.seen_by(event.topic, read_until)
    return landed


def _progress(
    platform: Platform, usecase: UseCase, before: Reach | None, now: datetime, known_from: datetime | None = None
) -> tuple[Reach, Passed, str]:
    """Return how far the topics have landed, what that has reached since the last look, and what waits, in words.

    An outcome that was reached before is reached anew by rows known no later than it, from `known_from` on: the rows of
    a file that is published at one time may land in several commits, and the first already reaches that time.
    """
    labels, decisions = label_progress(platform.lake, usecase), daily_progress(platform.lake, usecase)
    reach = Reach(labels.until, decisions.until if decisions else None)
    # Without a look before, what is there has been ingested or is requested as new.
    before = before or reach
    horizons = horizons_of(platform.lake, usecase)
    outcomes: list[datetime] = []
    if reach.labels is not None:
        after = before.labels
        if after is not None and known_from is not None:
            after = min(after, known_from - timedelta(microseconds=1))
        outcomes = [horizons.known_at[outcome] for outcome in horizons.known_between(after, reach.labels)]
    days: list[date] = []
    if reach.decisions is not None and reach.decisions != before.decisions:
        first = before.decisions.date() if before.decisions else usecase.first_partition
        days = [
            day
            for day in usecase.decision_dates(first, reach.decisions.date() + timedelta(days=3))
            if (before.decisions is None or before.decisions < day_start(day)) and day_start(day) <= reach.decisions
        ]
    waiting = dates_of(horizons.known_between(reach.labels, now))
    waits = f"{len(waiting)} outcome dates from {waiting[0]} on wait for {labels}" if waiting else ""
    return reach, Passed(outcomes, days), waits


def plan(
    usecase: UseCase,
    landed: Landed,
    change: Change,
    looked_at: datetime | None,
    now: datetime,
    passed: Passed = Passed(),
) -> Iterator[dg.RunRequest]:
    """Yield the runs that a change asks for, in the order in which they must happen.

    Business dates that something landed for are made whole. Features and labels are made again on other dates where a
    decision sees more than before, whose decision time has come since the last look, or on which an outcome is known
    that landed data now reaches.
    """
    known_keys = set(partitions(usecase).get_partition_keys())
    fingerprints = {day: _fingerprint(landed, day) for day in landed_partitions(usecase, landed)}
    version = digest(fingerprints.values())
    # What landed for a date before there was a partition of it, as on a weekend for the Monday.
    opened = {day for day in fingerprints if looked_at is not None and looked_at.date() < day <= now.date()}
    touched = [day for day in sorted({*change.dates, *opened}) if day.isoformat() in known_keys]
    for first, last in _ranges(usecase, touched):
        of_range = digest(fingerprints.get(day, "") for day in touched if first <= day <= last)
        yield _request(usecase, "ingest", ingestion_keys(usecase), first, last, of_range)
    newest = max(fingerprints, default=None)
    if newest is None:
        return
    seeing = set(dates_seeing_more(usecase, change, newest, looked_at, now, passed))
    dates = sorted(seeing - set(touched))
    yield from requests_of(usecase, "features", feature_keys(usecase), dates, f"{version}:{now:%Y%m%dT%H%M}")


def landed_partitions(usecase: UseCase, landed: Landed) -> set[date]:
    """Return the dates with landed events that are partitions: 9999-12-31 is none, and nothing is made up to it."""
    known_keys = set(partitions(usecase).get_partition_keys())
    return {day for days in landed.landed.values() for day in days if day.isoformat() in known_keys}


def dates_seeing_more(
    usecase: UseCase,
    change: Change,
    newest: date,
    looked_at: datetime | None = None,
    now: datetime | None = None,
    passed: Passed = Passed(),
) -> list[date]:
    """Return the partitions with a decision that what is new lets see more; `newest` is the newest landed date."""
    known_keys = set(partitions(usecase).get_partition_keys())
    seeing = set(_seeing_more(usecase, change, newest, looked_at, now or datetime.now(UTC), passed))
    return sorted(day for day in seeing if day.isoformat() in known_keys)


def requests_of(
    usecase: UseCase, what: str, keys: list[dg.AssetKey], dates: Sequence[date], version: str
) -> Iterator[dg.RunRequest]:
    """Yield the runs that make these assets of these dates; `version` tells the data that asks for it."""
    for first, last in _ranges(usecase, dates):
        yield _request(usecase, what, keys, first, last, digest([version]))


def _seeing_more(
    usecase: UseCase, change: Change, newest: date, looked_at: datetime | None, now: datetime, passed: Passed
) -> Iterator[date]:
    """Yield the dates with a decision that what is new lets see more."""
    if change.known_from is not None:
        for day in usecase.decision_dates(max(change.known_from.date(), usecase.first_partition), newest):
            if any(change.known_from <= decision.as_of <= now for decision in usecase.decision_times(day)):
                yield day
    for known_at in passed.outcomes:
        yield day_of(known_at)
    for day in passed.days:
        if any(decision.as_of <= now for decision in usecase.decision_times(day)):
            yield day
    # A feed that has stopped makes no decisions: the day after the newest data is the last that is waited for.
    if looked_at is not None:
        for day in usecase.decision_dates(looked_at.date(), min(now.date(), usecase.next_decision_date(newest))):
            if any(looked_at < decision.as_of <= now for decision in usecase.decision_times(day)):
                yield day


def _ranges(usecase: UseCase, days: Sequence[date]) -> Iterator[tuple[date, date]]:
    """Yield first and last of each run of dates that are neighbouring partitions, at most `_LONGEST` dates each."""
    ranges: list[list[date]] = []
    for day in days:
        after = partitions(usecase).get_next_partition_key(ranges[-1][-1].isoformat()) if ranges else None
        if after == day.isoformat() and len(ranges[-1]) < _LONGEST:
            ranges[-1].append(day)
        else:
            ranges.append([day])
    yield from ((those[0], those[-1]) for those in ranges)


def _request(
    usecase: UseCase, what: str, keys: list[dg.AssetKey], first: date, last: date, version: str
) -> dg.RunRequest:
    run_key = f"{usecase.name}:{what}:{first}:{last}:{version}"
    if first == last:
        return dg.RunRequest(run_key=run_key, partition_key=first.isoformat(), asset_selection=keys)
    tags = {ASSET_PARTITION_RANGE_START_TAG: first.isoformat(), ASSET_PARTITION_RANGE_END_TAG: last.isoformat()}
    return dg.RunRequest(run_key=run_key, tags=tags, asset_selection=keys)


def _observations(usecase: UseCase, landed: Landed, change: Change) -> Iterator[dg.AssetMaterialization]:
    """Yield what has landed since the last look, so that the landing tables show it in the asset graph."""
    for event in usecase.events:
        if event.topic in change.rows:
            states = landed.landed[event.topic]
            yield dg.AssetMaterialization(
                landing_key(event),
                metadata={
                    "dagster/row_count": sum(state.rows for state in states.values()),
                    "new rows": change.rows[event.topic],
                    "dead letters": sum(state.rows for state in landed.dead[event.topic].values()),
                    "business dates": f"{min(states)} to {max(states)}",
                },
            )


def _fingerprint(landed: Landed, day: date) -> str:
    states = [days.get(day) for side in (landed.landed, landed.dead) for _, days in sorted(side.items())]
    return msgspec.json.encode(states).decode()


def digest(parts: Iterable[str]) -> str:
    """Return twelve hex digits that tell these texts from others."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
