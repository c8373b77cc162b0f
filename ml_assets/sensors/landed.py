"""The sensor on landed data: which partitions does what has landed since the last tick change?"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time
from typing import cast

import dagster as dg
import msgspec
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from ml_assets.assets.common import key, partitions
from ml_assets.assets.ingestion import LANDED_AT, landing_key
from ml_assets.contracts import roll_to_weekday
from ml_assets.jobs import feature_keys, ingestion_keys, job_name
from ml_assets.landing.landed import Change, Landed, look
from ml_assets.lifecycle.features import LONGEST_MATURITY
from ml_assets.resources import Platform
from ml_assets.sensors.cursor import remember, remembered
from ml_assets.spec import UseCase

# Dates in one run: runs stay short and within their memory.
_LONGEST = 20
# Materializations that are looked at when there is no cursor.
_HISTORY = 5_000


class Cursor(msgspec.Struct, frozen=True):
    """What the last tick saw: what had landed, and when it looked."""

    landed: Landed = Landed()
    looked_at: datetime | None = None


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
        requests = list(plan(usecase, landed, change, cursor.looked_at, now))
        remember(context, Cursor(landed, now))
        if not requests:
            return dg.SkipReason("nothing new has landed" if any(landed.landed.values()) else "nothing has landed yet")
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


def plan(
    usecase: UseCase, landed: Landed, change: Change, looked_at: datetime | None, now: datetime
) -> Iterator[dg.RunRequest]:
    """Yield the runs that a change asks for, in the order in which they must happen.

    Business dates that something landed for are made whole. Features and labels are made again on other dates where a
    decision sees more than before, whose decision time has come since the last look, or on which an outcome is known
    that landed data now reaches.
    """
    known_keys = set(partitions(usecase).get_partition_keys())
    fingerprints = {day: _fingerprint(landed, day) for topic in landed.landed.values() for day in topic}
    version = _digest(fingerprints.values())
    touched = [day for day in change.dates if day.isoformat() in known_keys]
    for first, last in _ranges(usecase, touched):
        of_range = _digest(fingerprints.get(day, "") for day in touched if first <= day <= last)
        yield _request(usecase, "ingest", ingestion_keys(usecase), first, last, of_range)
    newest = max(fingerprints, default=None)
    if newest is None:
        return
    seeing = set(dates_seeing_more(usecase, change, newest, looked_at, now))
    dates = sorted(seeing - set(touched))
    yield from requests_of(usecase, "features", feature_keys(usecase), dates, f"{version}:{now:%Y%m%dT%H%M}")


def dates_seeing_more(
    usecase: UseCase, change: Change, newest: date, looked_at: datetime | None = None, now: datetime | None = None
) -> list[date]:
    """Return the partitions with a decision that what is new lets see more; `newest` is the newest landed date."""
    known_keys = set(partitions(usecase).get_partition_keys())
    seeing = set(_seeing_more(usecase, change, newest, looked_at, now or datetime.now(UTC)))
    return sorted(day for day in seeing if day.isoformat() in known_keys)


def requests_of(
    usecase: UseCase, what: str, keys: list[dg.AssetKey], dates: Sequence[date], version: str
) -> Iterator[dg.RunRequest]:
    """Yield the runs that make these assets of these dates; `version` tells the data that asks for it."""
    for first, last in _ranges(usecase, dates):
        yield _request(usecase, what, keys, first, last, _digest([version]))


def _seeing_more(
    usecase: UseCase, change: Change, newest: date, looked_at: datetime | None, now: datetime
) -> Iterator[date]:
    """Yield the dates with a decision that what is new lets see more."""
    if change.known_from is not None:
        for day in usecase.calendar.between(change.known_from.date(), newest):
            if any(change.known_from <= decision.as_of <= now for decision in usecase.decision_times(day)):
                yield day
    # A feed that has stopped makes no decisions: the day after the newest data is the last that is waited for.
    first_time = datetime.combine(usecase.first_partition, time(), tzinfo=UTC)
    for known_at in _maturing(usecase, change.watermark_before or first_time, change.watermark or first_time):
        yield roll_to_weekday(known_at.date())
    if looked_at is not None:
        for day in usecase.calendar.between(looked_at.date(), min(now.date(), usecase.calendar.next(newest))):
            if any(looked_at < decision.as_of <= now for decision in usecase.decision_times(day)):
                yield day


def _maturing(usecase: UseCase, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield when each outcome is known that becomes known in a span of time."""
    for outcome in usecase.calendar.between(after.date() - LONGEST_MATURITY, until.date()):
        if after < (known_at := usecase.label.known_at(outcome)) <= until:
            yield known_at


def _ranges(usecase: UseCase, days: Sequence[date]) -> Iterator[tuple[date, date]]:
    """Yield first and last of each run of dates that are neighbouring partitions, so many at most."""
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


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
