"""Which outcomes the decisions of a use case have, and when each is known: as far ahead as its SQL says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple

from ml_assets.calendars import BusinessCalendar
from ml_assets.errors import InputError
from ml_assets.features.days import day_of
from ml_assets.lake import Lake, features_table
from ml_assets.spec import UseCase

# Outcome dates of one file further apart are read from it: one of the year 9999 would make a million days.
_WIDE = timedelta(days=400)


class Outcome(NamedTuple):
    """The outcomes of a date that are known at one time: those at the places of these calendars, named by market."""

    date: date
    markets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Horizons:
    """The outcome dates that the decisions of each date may have, and when each outcome is known."""

    by_decision: Mapping[date, frozenset[date]]
    known_at: Mapping[Outcome, datetime]

    def known_on(self, day: date) -> list[Outcome]:
        """Return the outcomes that become known on this date (on a weekend: on the Monday after)."""
        return sorted(outcome for outcome, at in self.known_at.items() if day_of(at) == day)

    def of_date(self, day: date) -> list[Outcome]:
        """Return the outcomes of a date: one for each time at which some of them are known."""
        return sorted(outcome for outcome in self.known_at if outcome.date == day)

    def known_between(self, after: datetime | None, until: datetime) -> list[Outcome]:
        """Return the outcomes that become known in a span of time; None is the beginning."""
        return sorted(o for o, at in self.known_at.items() if (after is None or after < at) and at <= until)

    def span_of(self, outcome: Outcome) -> tuple[date, date]:
        """Return the dates from the first decision about an outcome to the day on which the outcome is known."""
        made = [decided for decided, outcomes in self.by_decision.items() if outcome.date in outcomes]
        return min([outcome.date, *made]), day_of(self.known_at[outcome])

    def open_on(self, day: date) -> list[Outcome]:
        """Return the outcomes of decisions made by a date that become known after it."""
        decided = {outcome for made, outcomes in self.by_decision.items() if made <= day for outcome in outcomes}
        return sorted(outcome for outcome, at in self.known_at.items() if outcome.date in decided and day_of(at) > day)


def horizons_of(lake: Lake, usecase: UseCase) -> Horizons:
    """Return the outcome dates that the decisions of each date may have, and when each is known.

    They come from the log of the features alone: all days from the first outcome date to the last.
    """
    found: dict[date, frozenset[date]] = {}
    for file in lake.files_with_ranges(features_table(usecase), ["outcome_date"]):
        if not file.rows:
            continue
        first, last = file.ranges.get("outcome_date", (date.min, date.max))
        if last - first > _WIDE:
            days = frozenset(file.read(["outcome_date"])["outcome_date"].unique().to_pylist())
        else:
            days = frozenset(first + timedelta(days=ahead) for ahead in range((last - first).days + 1))
        decided = file.values["decision_date"]
        found[decided] = found.get(decided, frozenset()) | days
    known: dict[Outcome, datetime] = {}
    for day in {day for days in found.values() for day in days}:
        at_once: dict[datetime, list[str]] = {}
        for calendar in usecase.calendars:
            at = known_time(usecase, day, calendar)
            if at is not None:
                at_once.setdefault(at, []).append(calendar.market)
        known |= {Outcome(day, tuple(markets)): at for at, markets in at_once.items()}
    return Horizons(found, known)


def dates_of(outcomes: Iterable[Outcome]) -> list[date]:
    """Return the dates of outcomes, each once, in order."""
    return sorted({outcome.date for outcome in outcomes})


def known_time(usecase: UseCase, outcome_date: date, calendar: BusinessCalendar) -> datetime | None:
    """Return when the outcome of a date is known at the places of a calendar; None at the end of all calendars.

    Raises:
        ValueError: the use case gives a time without a time zone.
    """
    try:
        known = usecase.outcome_known_at(outcome_date, calendar)
    except OverflowError:
        return None
    if known.tzinfo is None:
        raise InputError(
            f"use case {usecase.name}: LabelSpec.known_at({outcome_date}) has no time zone; give it in UTC"
        )
    return known


def known_everywhere(usecase: UseCase, outcome_date: date) -> datetime | None:
    """Return when the outcomes of a date are known at all places; None if they never are at one.

    Raises:
        ValueError: the use case gives a time without a time zone.
    """
    times = [known_time(usecase, outcome_date, calendar) for calendar in usecase.calendars]
    known = [at for at in times if at is not None]
    return max(known) if len(known) == len(times) else None
