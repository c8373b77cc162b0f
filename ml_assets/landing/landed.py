"""What has landed since somebody last looked: from the log of the tables alone, never from their rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Self

import msgspec

from ml_assets.lake import DataFile, Lake, landing_table
from ml_assets.landing.schemas import DEAD_LETTER, EVENT, REPLAY
from ml_assets.spec import EventSpec


class DateState(msgspec.Struct, frozen=True, array_like=True):
    """What tells whether the landed data of a business date has changed: it only grows.

    Files do not tell: compaction writes the same rows into others.
    """

    rows: int
    landed_until: datetime


class Landed(msgspec.Struct, frozen=True):
    """By topic and business date: what has landed, and the dead letters beside it."""

    landed: dict[str, dict[date, DateState]] = {}
    dead: dict[str, dict[date, DateState]] = {}

    def seen_by(self, topic: str, read_until: Mapping[date, datetime]) -> Self:
        """Return the state without those dates of a topic that have data newer than somebody has read of them."""

        def read(days: dict[date, DateState]) -> dict[date, DateState]:
            return {day: s for day, s in days.items() if day in read_until and s.landed_until <= read_until[day]}

        return msgspec.structs.replace(
            self,
            landed={**self.landed, topic: read(self.landed.get(topic, {}))},
            dead={**self.dead, topic: read(self.dead.get(topic, {}))},
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What has landed between two looks: the business dates touched, and the new rows by topic.

    The earliest of the new rows was known at `known_from`.
    """

    dates: tuple[date, ...]
    known_from: datetime | None = None
    rows: Mapping[str, int] = field(default_factory=dict)


def look(lake: Lake, events: Sequence[EventSpec], before: Landed | None = None) -> tuple[Landed, Change]:
    """Return what has landed of these events by now, and what of it is new since `before` (None: all)."""
    before = before or Landed()
    landed: dict[str, dict[date, DateState]] = {}
    dead: dict[str, dict[date, DateState]] = {}
    dates: set[date] = set()
    known: list[datetime] = []
    rows: dict[str, int] = {}
    for topic in dict.fromkeys(event.topic for event in events):
        files = lake.files(landing_table(topic), "business_date", kind=EVENT)
        landed[topic] = _states(files)
        dead[topic] = _states(dead_letter_files(lake, topic))
        seen = before.landed.get(topic, {})
        new = [
            file for file in files if file.partition not in seen or _landed(file) > seen[file.partition].landed_until
        ]
        known.extend(file.known_from for file in new if file.known_from is not None)
        dates |= _changed(seen, landed[topic]) | _changed(before.dead.get(topic, {}), dead[topic])
        if count := _rows(landed[topic]) - _rows(seen):
            rows[topic] = count
    return Landed(landed, dead), Change(tuple(sorted(dates)), min(known, default=None), rows)


def landed_until(lake: Lake, event: EventSpec, dates: Sequence[date]) -> datetime | None:
    """Return when the newest landed data of some dates, dead letters included, was written; None if there is none."""
    files = [
        *lake.files(landing_table(event.topic), "business_date", kind=EVENT),
        *dead_letter_files(lake, event.topic),
    ]
    return max((_landed(file) for file in files if file.partition in set(dates)), default=None)


def dead_letter_files(lake: Lake, topic: str) -> list[DataFile]:
    """Return the files that hold a topic's dead letters, and what has become of them since."""
    return [f for kind in (DEAD_LETTER, REPLAY) for f in lake.files(landing_table(topic), "business_date", kind=kind)]


def _states(files: Sequence[DataFile]) -> dict[date, DateState]:
    by_date: dict[date, list[DataFile]] = defaultdict(list)
    for file in files:
        by_date[file.partition].append(file)
    return {
        day: DateState(sum(file.rows for file in those), max(map(_landed, those)))
        for day, those in sorted(by_date.items())
    }


def _rows(states: Mapping[date, DateState]) -> int:
    return sum(state.rows for state in states.values())


def _landed(file: DataFile) -> datetime:
    return file.landed_until or file.modified_at


def _changed(before: dict[date, DateState], now: dict[date, DateState]) -> set[date]:
    return {day for day, state in now.items() if before.get(day) != state}
