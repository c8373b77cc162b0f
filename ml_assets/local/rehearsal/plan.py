"""What happens in the rehearsal's year, and when: the market's changes, and what people do. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final

from ml_assets.local.simulation.market import Change, MarketConfig
from ml_assets.spec import Candidate, UseCase

# Business days of history before the year begins: training, calibration and test window of the first model.
HISTORY = 60
# The first confirmation of a trade's settlement shows so many business days after the trade.
SETTLES_AFTER = 2
STRESS: Final = "stress"
COUNTERPARTY: Final = "counterparty"
MARKET: Final = "market"
FEED: Final = "feed"
LATE: Final = "late"
WHAT_HAPPENS = {
    COUNTERPARTY: "a counterparty degrades, for good",
    MARKET: "a new market opens, for good",
    FEED: "the feed of lending fees comes in percent instead of basis points, until it is mended",
    STRESS: "two weeks of stress: about twice the fails",
    LATE: "what is instructed late fails far more often, for good",
}


def shows_after(what: str) -> int:
    """Return how many business days after it begins a change shows: what shows by fails, shows by settlement."""
    return SETTLES_AFTER if what in (STRESS, COUNTERPARTY, LATE) else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A year: `days` business days from `start` on, after `HISTORY` days in which nobody acted.

    Days are numbered from the first of the year, 0. `changes` are the market's, numbered likewise. On the day
    `bad_challenger` a data scientist registers a model that lacks what matters. Every `retrain_every` days the schedule
    retrains. `capacity` is how many decisions the analyst acts on per slot; each time a fail is chased it settles in
    time with the probability `ActionSpec.effectiveness`.
    """

    start: date = date(2025, 1, 2)
    days: int = 250
    changes: tuple[Change, ...] = (
        Change(COUNTERPARTY, 25),
        Change(MARKET, 70),
        Change(FEED, 115, 122),
        Change(STRESS, 175, 185),
        Change(LATE, 205),
    )
    bad_challenger: int | None = 150
    retrain_every: int = 20
    instructions_per_day: int = 2_000
    counterparties: int = 60
    securities: int = 400
    capacity: int = 240
    seed: int = 20250102

    @classmethod
    def of_days(cls, days: int) -> Plan:
        """Return a plan of so many days in which the same happens, earlier if there are fewer."""
        year = cls()
        if days == year.days:
            return year

        def at(number: int) -> int:
            return number * days // year.days

        moved = (
            replace(one, first=at(one.first), end=None if one.end is None else at(one.first) + one.end - one.first)
            for one in year.changes
        )
        bad = None if year.bad_challenger is None else at(year.bad_challenger)
        return cls(days=days, changes=tuple(moved), bad_challenger=bad)

    def first_shown(self, change: Change) -> int:
        """Return the first day of the year whose events can show a change."""
        return change.first + shows_after(change.what)

    def market(self, usecase: UseCase) -> MarketConfig:
        """Return the configuration of the market, with its history."""
        return MarketConfig(
            start=usecase.calendar.add(self.start, -HISTORY),
            days=HISTORY + self.days,
            instructions_per_day=self.instructions_per_day,
            counterparties=self.counterparties,
            securities=self.securities,
            seed=self.seed,
            dirty=0.0,
            changes=tuple(
                replace(one, first=HISTORY + one.first, end=None if one.end is None else HISTORY + one.end)
                for one in self.changes
            ),
        )

    def usecase(self, usecase: UseCase) -> UseCase:
        """Return the use case as the rehearsal runs it, with its own capacity, from the first day of history on.

        The boosted trees are left out, for speed: the logistic regression is chosen before them all the same.
        """
        return replace(
            usecase,
            first_partition=usecase.calendar.add(self.start, -HISTORY),
            capacity=self.capacity,
            action=replace(usecase.action, taken=True),
            # Of a market of this size only the fails that nobody acted on count; what lists save is not among them.
            gate=replace(usecase.gate, min_test_positives=60, min_saved_per_day=-math.inf),
            candidates=tuple(one for one in usecase.candidates if one.is_rule or one.name == "logistic"),
        )


def with_bad_challenger(usecase: UseCase) -> UseCase:
    """Return the use case with the model of a data scientist who leaves out what is known of counterparties."""
    without = frozenset({"counterparty_relative_rate", "prior_log_odds", "matching_status", "unmatched_on_isd"})

    def bad(candidate: Candidate) -> Candidate:
        return replace(
            candidate,
            description=f"{candidate.description}, without {', '.join(sorted(without))}",
            build=lambda features, seed: candidate.build(tuple(f for f in features if f.name not in without), seed),
        )

    return replace(usecase, candidates=tuple(one if one.is_rule else bad(one) for one in usecase.candidates))


def home_of(home: Path) -> Path:
    """Return the folder below the home in which the rehearsal keeps its lake and its servers."""
    return home / "rehearsal"
