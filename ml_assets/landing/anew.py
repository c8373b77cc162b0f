"""Landing the topics of a use case again. History that was landed live is known from that day: no decision sees it.

One commit removes the rows of a landing table and resets its positions; the lander then reads from the start. Older
versions stay readable, and so do the rows from which a model or a prediction was made, as long as housekeeping keeps
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from deltalake.exceptions import CommitFailedError

from ml_assets.errors import InputError
from ml_assets.lake import Lake, PositionMovedError, landing_table
from ml_assets.landing.accounting import account
from ml_assets.landing.extent import read_id
from ml_assets.landing.kafka import Cluster, app_id
from ml_assets.landing.schemas import EVENT
from ml_assets.spec import EventSpec, UseCase

# A feed that is landed on the next morning, or after a holiday, is not history.
_LATE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Anew:
    """A topic to land again: how many messages landed from its present life, and from lives that the broker forgot.

    `positions` are those to set back.
    """

    topic: str
    landed: int
    earlier: int
    positions: tuple[str, ...]


def plan_anew(lake: Lake, cluster: Cluster, usecase: UseCase, *, drop_earlier: bool = False) -> list[Anew]:
    """Return what landing the topics of a use case again would do; nothing is changed.

    Offsets of a topic's present life that have landed are still there if its first one is. What landed from an earlier
    life, before the topic was created again, is lost unless its messages have been produced again. `drop_earlier` says
    that they have.

    Raises:
        ValueError: the use case is of the tier `high`, or something has landed that the broker does not hold any more.
        ml_assets.landing.kafka.KafkaUnreachableError: the broker does not answer.
    """
    if usecase.needs_approval:
        raise InputError(
            f"{usecase.name} is of the tier {usecase.tier}: when its events became known is evidence, and is not made "
            "anew. Land the history into a lake of its own: ML_ASSETS_LAKE_ROOT=<another folder or prefix>"
        )
    events = {event.topic: event for event in usecase.events}
    present = cluster.topics(events)
    found, why = [], []
    for topic, event in events.items():
        life = present.get(topic)
        epoch, numbers = (life.epoch, life.partitions) if life else ("", ())
        if gone := {p: low for (_, p), low in cluster.starts((topic, p) for p in numbers).items() if low}:
            lost = ", ".join(f"0 to {low - 1} of partition {p}" for p, low in gone.items())
            why.append(f"topic {topic}: the broker has deleted the offsets {lost}")
        landed = {True: 0, False: 0}
        for part in account(lake, event):
            landed[part.epoch == epoch] += part.landed + part.dead_lettered
        if landed[False] and not drop_earlier:
            why.append(
                f"topic {topic}: {landed[False]:,} messages landed before the topic was made anew on the broker; if "
                "they have been produced again (`ml-assets produce`), say --drop-earlier"
            )
        ids = (*(app_id(topic, epoch, p) for p in numbers), *(read_id(topic, p) for p in numbers))
        found.append(Anew(topic, landed[True], landed[False], ids))
    if why:
        raise InputError(
            f"{usecase.name} is not landed anew, rows would be lost: {'; '.join(why)}. A lake of its own loses "
            "nothing: ML_ASSETS_LAKE_ROOT=<another folder or prefix>"
        )
    return found


def take_out(lake: Lake, plans: Sequence[Anew]) -> None:
    """Remove the rows of topics from their landing tables and reset their positions, each table in one commit.

    Raises:
        PositionMovedError: a lander has written meanwhile; what comes after that topic is untouched.
    """
    for plan in plans:
        try:
            lake.empty(landing_table(plan.topic), set_back=plan.positions)
        except CommitFailedError as error:
            raise PositionMovedError(
                f"topic {plan.topic}: a lander has written at the same time; end it, then start this again"
            ) from error


def known_too_late(lake: Lake, usecase: UseCase, last: date | None = None) -> str:
    """Return a warning if all events up to a business date became known only after it, and how to repair that.

    Without a date it is a week after the newest event. Empty if some were known in time, or if there are none.
    """
    files = [
        file
        for event in usecase.events
        for file in lake.files(landing_table(event.topic), "business_date", kind=EVENT)
        if file.rows and (last is None or file.partition <= last)
    ]
    known = [file.known_from for file in files if file.known_from is not None]
    if not files or len(known) < len(files):
        return ""
    newest = max(file.partition for file in files)
    since: datetime = min(known)
    if since.date() <= (last or newest + _LATE):
        return ""
    return (
        f"{usecase.name}: all its events to {newest} are known since {since:%Y-%m-%d %H:%M} UTC only, when they "
        "landed: no decision before that sees them. If they are history, land them as known when they were published: "
        f"`ml-assets land-anew {usecase.name} --replay`"
    )


def dates_landed(lake: Lake, events: Sequence[EventSpec]) -> tuple[date, date] | None:
    """Return the first and the last business date of which events have landed; None if none have."""
    days = [
        file.partition
        for event in events
        for file in lake.files(landing_table(event.topic), "business_date", kind=EVENT)
        if file.rows
    ]
    return (min(days), max(days)) if days else None
