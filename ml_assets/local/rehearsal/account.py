"""What a year cost and what was recovered: the team's lists beside those of the rule, an old model and the truth. Pure.

Everybody has the same capacity, the same chances when chasing a fail, and the same outcomes as if nobody had acted.
The other lists are made from the features as they were in the year, in which the team had acted by its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.learning.bootstrap import Interval
from ml_assets.learning.statistics import average_precision
from ml_assets.local.rehearsal.mornings import BY_SCHEDULE, Morning
from ml_assets.local.rehearsal.plan import FEED, MARKET, WHAT_HAPPENS, Plan
from ml_assets.local.rehearsal.play import Year, chase, on_lists
from ml_assets.local.simulation.market import Change
from ml_assets.spec import UseCase

NOBODY, RULE, NEVER, TEAM, ORACLE = "no model", "the rule", "never retrained", "the rehearsal", "the oracle"
# Business days after a change in which its alarms count as its own, and by which a retrained model has recovered.
AFTERMATH, RECOVERED_BY = 20, 10
# So many business days after the team begins to act its acting changes rates of fails: they look back 60 days.
GOES_LIVE = 43
# How limits are tried: capacities, as shares of the year's own, and shares of the chased fails that settle.
_CAPACITIES, _EFFECTIVENESS = (0.5, 1.0, 2.0), (0.5, 0.8)
_BEFORE, _WINDOW = 10, 20
_LEAST_BELOW = 0.25
_RESAMPLES = 400
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Decisions:
    """All decisions of the year whose outcome is known: arrays (n,), with the probability that each list is made of.

    `failed` is the outcome had nobody acted, `cost` that of a fail.
    """

    rows: pa.Table
    failed: NDArray[np.bool_]
    cost: Floats
    probabilities: Mapping[str, Floats]

    def of_days(self, slot: str, first: date, last: date) -> NDArray[np.bool_]:
        """Return the decisions of a slot about outcome dates from first to last."""
        days = self.rows["outcome_date"].to_numpy()
        of_slot = np.array(self.rows["slot"].to_pylist(), dtype=object) == slot
        return np.asarray(of_slot & (days >= np.datetime64(first)) & (days <= np.datetime64(last)))


@dataclass(frozen=True, slots=True)
class Cost:
    """What fails cost under a list, how many decisions were acted on, and what that cost."""

    penalty: float
    acts: int
    acting: float
    by_month: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Flagged:
    """When a change was flagged: business days from the first that shows it, and as what; None: not before the next."""

    change: Change
    shown: int
    after: int | None
    named: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """Shares of the best lift around a change: before it, and from ten business days after it on.

    `lost` is what the model that is never retrained has lost, with its interval over days. `share` of it was recovered;
    NaN if chance explains the loss.
    """

    change: Change
    before: float
    never: float
    team: float
    lost: Interval

    @property
    def share(self) -> float:
        """The share of the loss that the retrained champion has recovered."""
        return (self.team - self.never) / self.lost.value if self.lost.low > 0 else math.nan


@dataclass(frozen=True, slots=True)
class Goal:
    """What was to be reached, what was, and whether that is enough; None: there was nothing to reach.

    `beyond` says that the oracle does not reach it either.
    """

    what: str
    asked: str
    came: str
    reached: bool | None
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """What lists can save: penalties below the rule's, as shares, by model and oracle at a capacity per slot."""

    capacity: int
    effectiveness: float
    model: float
    oracle: float


def costs(usecase: UseCase, decisions: Decisions, saved: Collection[str], acts: int) -> dict[str, Cost]:
    """Return what the fails of the year cost under each list; `saved` and `acts` are the team's own."""
    entities = np.array(decisions.rows["entity_id"].to_pylist(), dtype=object)
    last = _last(decisions.rows)
    at_stake = np.where(decisions.failed, decisions.cost, 0.0)[last]
    months = np.array([str(day)[:7] for day in decisions.rows["outcome_date"].to_pylist()], dtype=object)[last]

    def of(kept_from_failing: Collection[str], acted: int) -> Cost:
        stays = at_stake * ~np.isin(entities[last].astype(str), list(kept_from_failing))
        by_month = {str(month): float(stays[months == month].sum()) for month in np.unique(months)}
        return Cost(float(stays.sum()), acted, acted * usecase.action.cost, by_month)

    found = {NOBODY: of((), 0), TEAM: of(saved, acts)}
    for name, probability in decisions.probabilities.items():
        if name != TEAM:
            acted = on_lists(usecase, decisions.rows, probability * decisions.cost)
            pairs = zip(acted["entity_id"].to_pylist(), acted["slot"].to_pylist(), strict=True)
            found[name] = of({one for one, slot in pairs if chase(usecase, one, slot)}, acted.num_rows)
    return found


def limits(usecase: UseCase, decisions: Decisions) -> list[Limit]:
    """Return how far below the rule's penalties the lists of the year's models and of the oracle would be otherwise.

    Otherwise is with another capacity, or another share of the chased fails that settle. The oracle knows each
    decision's true probability: nobody's list is better, but by luck.
    """
    lists = {RULE: RULE, "the models": TEAM, ORACLE: ORACLE}
    tried = replace(decisions, probabilities={name: decisions.probabilities[one] for name, one in lists.items()})
    found = []
    for effectiveness in _EFFECTIVENESS:
        for share in _CAPACITIES:
            capacity = max(1, round(share * usecase.capacity))
            action = replace(usecase.action, effectiveness=effectiveness)
            made = costs(replace(usecase, capacity=capacity, action=action), tried, (), 0)
            model, oracle = (1 - made[name].penalty / made[RULE].penalty for name in ("the models", ORACLE))
            found.append(Limit(capacity, effectiveness, model, oracle))
    return found


def lift_share(decisions: Decisions, name: str, rows: NDArray[Any]) -> float:
    """Return the PR-AUC above the base rate that a list's probabilities have on some decisions, over the oracle's.

    `rows` are a mask or positions; a decision whose position stands twice counts twice.
    """
    failed = decisions.failed[rows].astype(np.float64)
    if not failed.any():
        return math.nan
    mine, best = (average_precision(failed, decisions.probabilities[one][rows]) for one in (name, ORACLE))
    return float((mine - failed.mean()) / (best - failed.mean()))


def alarms(mornings: Sequence[Morning]) -> dict[int, list[str]]:
    """Return what drifts on a day and did not on the day before, by day."""
    found: dict[int, list[str]] = {}
    before: Collection[str] = ()
    for morning in mornings:
        if new := [one for one in morning.drifted if one not in before]:
            found[morning.day] = new
        before = morning.drifted
    return found


def flagged(plan: Plan, mornings: Sequence[Morning]) -> list[Flagged]:
    """Return when each change was flagged first."""
    found = []
    raised = alarms(mornings)
    for change in plan.changes:
        shown = plan.first_shown(change)
        days = [day for day in sorted(raised) if shown <= day <= shown + AFTERMATH]
        named = raised[days[0]][0] if days else ""
        found.append(Flagged(change, shown, days[0] - shown if days else None, named))
    return found


def false_alarms(plan: Plan, mornings: Sequence[Morning]) -> tuple[int, int]:
    """Return the days with an alarm of nothing, and the number of quiet days.

    Quiet days are those of no change nor its aftermath. That the team begins to act is a change.
    """
    loud = set(range(GOES_LIVE))
    for change in plan.changes:
        end = plan.days if change.end is None else change.end
        loud |= set(range(change.first, min(end, change.first) + AFTERMATH))
        loud |= set(range(end, end + AFTERMATH))
    quiet = [one.day for one in mornings if one.day not in loud]
    return sum(day in alarms(mornings) for day in quiet), len(quiet)


def recoveries(year: Year, decisions: Decisions) -> list[Recovered]:
    """Return what was lost and recovered after each change that lasts, on the decisions of its settlement mornings.

    What is traded on the market that opens fails as other securities of its class do: there is nothing to learn anew.
    """
    plan, slot, found = year.plan, year.usecase.slots[0].name, []
    dates = [one.date for one in year.mornings]
    for change in plan.changes:
        shown = plan.first_shown(change)
        first, last = shown + RECOVERED_BY, min(shown + RECOVERED_BY + _WINDOW, len(dates)) - 1
        if change.what == MARKET or change.end is not None or last - first < _BEFORE or shown < _BEFORE:
            continue
        before = decisions.of_days(slot, dates[shown - _BEFORE], dates[shown - 1])
        after = decisions.of_days(slot, dates[first], dates[last])
        found.append(
            Recovered(
                change,
                lift_share(decisions, NEVER, before),
                lift_share(decisions, NEVER, after),
                lift_share(decisions, TEAM, after),
                _lost(decisions, before, after),
            )
        )
    return found


def _lost(decisions: Decisions, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Interval:
    """Return the share of the best lift that the model that is never retrained has lost, with its interval over days.

    Days are drawn with replacement, those before and those after the change apart (Efron 1979).
    """
    rng = np.random.default_rng(0)
    days = decisions.rows["outcome_date"].to_numpy()

    def drawn(rows: NDArray[np.bool_]) -> Iterator[float]:
        of_day = [np.flatnonzero(rows & (days == day)) for day in np.unique(days[rows])]
        for _ in range(_RESAMPLES):
            chosen = rng.integers(len(of_day), size=len(of_day))
            yield lift_share(decisions, NEVER, np.concatenate([of_day[at] for at in chosen]))

    losses = np.array([one - other for one, other in zip(drawn(before), drawn(after), strict=True)])
    low, high = np.quantile(losses, [0.025, 0.975])
    value = lift_share(decisions, NEVER, before) - lift_share(decisions, NEVER, after)
    return Interval(value, float(low), float(high))


def goals(
    found: Mapping[str, Cost], flags: Sequence[Flagged], quiet: tuple[int, int], recovered: Sequence[Recovered]
) -> list[Goal]:
    """Return what was to be reached, and whether it was."""
    below, most = (1 - found[name].penalty / found[RULE].penalty for name in (TEAM, ORACLE))
    saving = (found[NOBODY].penalty - found[TEAM].penalty) / (found[NOBODY].penalty - found[ORACLE].penalty)
    each = [
        Goal(
            f"flagged: {WHAT_HAPPENS[one.change.what]}",
            "within 3 business days",
            "never" if one.after is None else f"after {one.after}, as {one.named}",
            one.after is not None and one.after <= 3,
        )
        for one in flags
    ]
    each += [
        Goal(
            f"lift recovered: {WHAT_HAPPENS[one.change.what]}",
            f"90 % of what is lost, {RECOVERED_BY} business days after",
            f"{one.share:.0%} of {_said(one.lost)} of the best lift"
            if math.isfinite(one.share)
            else f"the model that is never retrained lost {_said(one.lost)} of the best lift: nothing to recover",
            one.share >= 0.9 if math.isfinite(one.share) else None,
        )
        for one in recovered
    ]
    count, days = quiet
    quarters = days / 62.5
    return [
        *each,
        Goal(
            "days with an alarm while nothing changes", "at most one a quarter",
            f"{count} in {days} quiet days", count <= max(1.0, quarters),
        ),
        Goal(
            "penalties below the rule's, at equal capacity", "at least 25 %",
            f"{below:.1%}; the list of the oracle, who knows the true probabilities, is {most:.1%} below",
            below >= _LEAST_BELOW, beyond=most < _LEAST_BELOW,
        ),
        Goal("of the oracle's saving", "at least 85 %", f"{saving:.0%}", saving >= 0.85),
    ]  # fmt: skip


def _said(lost: Interval) -> str:
    """Return a loss in words, with its interval."""
    return f"{lost.value:.1%} ({lost.low:.1%} to {lost.high:.1%})"


def brakes(plan: Plan, mornings: Sequence[Morning]) -> list[Goal]:
    """Return whether what must not happen did: a bad model that passes, a model that learns a broken feed."""
    trainings = [one for morning in mornings for one in morning.trainings]
    found = []
    if plan.bad_challenger is not None:
        outcomes = [one.outcome for one in trainings if one.day == plan.bad_challenger]
        found.append(
            Goal(
                "a data scientist's model that lacks what matters", "refused by the gate",
                outcomes[0] if outcomes else "it was not trained", outcomes == ["refused"],
            )
        )  # fmt: skip
    for change in plan.changes:
        if change.what == FEED:
            end = plan.days if change.end is None else change.end
            during = [one for one in trainings if change.first <= one.day < end and one.why != BY_SCHEDULE]
            found.append(
                Goal(
                    f"while {WHAT_HAPPENS[FEED]}", "no retraining out of turn",
                    f"{len(during)}, by version {', '.join(str(one.version) for one in during)}" if during else "none",
                    not during,
                )
            )  # fmt: skip
    return found


def _last(rows: pa.Table) -> NDArray[np.bool_]:
    """Return the last decision of each entity: (n,)."""
    times = rows["decision_time"].to_numpy()
    entities = np.unique(np.array(rows["entity_id"].to_pylist(), dtype=object).astype(str), return_inverse=True)[1]
    order = np.lexsort((times, entities))
    last = np.zeros(len(order), dtype=np.bool_)
    last[order[np.append(np.diff(entities[order]) != 0, True)]] = True
    return last
