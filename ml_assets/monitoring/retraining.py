"""Whether to retrain a model out of turn, besides the nightly schedule: a rule with limits that gives its reasons.

Retraining is not promotion: the gate judges the new model as it judges any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from ml_assets.monitoring.drift import CAUSE, FEATURE, FEED, GROUP, MISSING, PREDICTION
from ml_assets.monitoring.estimate import differs
from ml_assets.spec import MonitoringSpec

Outcome = Literal["retrain", "wait", "ask a person"]
_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class JudgedDate:
    """A complete outcome date, whether it breached, and `why`: what breached."""

    day: date
    breached: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier decision of the rule: its date, its outcome, and the champion's version then (None: no champion)."""

    day: date
    outcome: str
    champion: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All inputs of the rule, as of the end of `day`.

    `dates` are the complete outcome dates, the earliest first; `due` is the newest one that should be complete by now.
    `champion` is a version and `trained` its training date; both are None without a champion. `new_labels` is the
    number of outcomes that became known since then, or since the last retraining out of turn. `red` names the inputs
    that are incomplete or broken. `past` are the earlier decisions of the rule, the earliest first.
    """

    day: date
    due: date
    dates: Sequence[JudgedDate]
    champion: int | None
    trained: date | None
    new_labels: int
    red: Sequence[str] = ()
    past: Sequence[Past] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The rule's decision on a date, its reason, and the numbers that it is based on."""

    day: date
    outcome: Outcome
    reason: str
    numbers: Mapping[str, Any]


def breaches(spec: MonitoringSpec, estimated: Iterable[Mapping[str, Any]]) -> list[JudgedDate]:
    """Return the complete outcome dates in rows of the table `estimates`, the earliest first.

    A date breaches if its PR-AUC is below the estimate, or its base rate above or below it: outside the band, and by
    more than `max_estimate_error` of the realised value.
    """
    found: dict[date, list[str]] = {}
    for row in estimated:
        if row["metric"] not in ("pr_auc", "base_rate") or row["realised"] is None or row["estimated"] is None:
            continue
        said = found.setdefault(row["outcome_date"], [])
        better = row["metric"] == "pr_auc" and row["realised"] > row["estimated"]
        if differs(spec, row["estimated"], row["low"], row["high"], row["realised"]) and not better:
            said.append(f"{row['metric']} {row['realised']:.3f}, expected {row['estimated']:.3f}")
    return [JudgedDate(day, bool(why), "; ".join(why)) for day, why in sorted(found.items())]


def with_drift(dates: Sequence[JudgedDate], drift: Iterable[Mapping[str, Any]]) -> list[JudgedDate]:
    """Return the outcome dates; those on which scores, causes or outcomes have drifted breach as well.

    `drift` are rows of the table `drift`. Drift of a decision date counts for the newest complete outcome date that is
    not later. Drift of a feature alone is not a reason to retrain.
    """
    said: dict[date, dict[str, None]] = {}
    for row in drift:
        before = [one.day for one in dates if one.day <= row["decision_date"]]
        if row["drifted"] and row["kind"] in (PREDICTION, CAUSE, GROUP) and before:
            said.setdefault(max(before), {})[f"drift of {row['kind']} {row['name']} ({row['why']})"] = None
    return [
        JudgedDate(one.day, True, "; ".join([*([one.why] if one.why else []), *said[one.day]]))
        if one.day in said
        else one
        for one in dates
    ]


def broken(drift: Iterable[Mapping[str, Any]], first: date, max_psi: float) -> list[str]:
    """Return findings that mean a broken input rather than a changed market, from rows of `drift` since `first`.

    These are drift of feeds, drift of missing values, and a feature with a population stability index above `max_psi`,
    on its first date: no market moves a column that far, but a feed that has changed its unit or its meaning does.
    """
    return [
        f"{row['kind']} {row['name']} of {row['decision_date']}: {row['why']}"
        for row in drift
        if row["decision_date"] >= first
        and (
            (row["drifted"] and (row["kind"] == FEED or row["measure"] == MISSING))
            or (row["breached"] and row["kind"] == FEATURE and row["measure"] == "psi" and row["value"] > max_psi)
        )
    ]


def decide(spec: MonitoringSpec, facts: Facts) -> Decision:
    """Return whether to retrain out of turn, and since when the newest dates breach (the number `since`).

    Retraining needs all of these: `breaches` of the last `windows` complete outcome dates since the last gap breach,
    and the newest one does; no input is red; `min_gap` has passed since the champion's training and the last retraining
    out of turn; fewer than `max_per_week` of these lie in the last seven days; there are `min_new_labels` outcomes.
    With `since_change` it also needs enough complete dates since the change, the first date of the run of breaches.
    After `max_in_vain` retrainings that did not change the champion, the decision is to ask a person.
    """
    dates = [one for one in facts.dates if one.day <= facts.day]
    since, gap = _after_gap(spec, dates, facts)
    last = since[-spec.windows :]
    found = sum(one.breached for one in last)
    before = [one for one in facts.past if one.day < facts.day and one.outcome == "retrain"]
    this_week = sum(facts.day - one.day < _WEEK for one in before)
    in_vain = _in_vain(before, facts.champion)
    trained = last_training(facts.trained, before, facts.day)
    numbers = {
        "breaches": found,
        "of": len(last),
        "breaches asked": spec.breaches,
        "newest breached": bool(last and last[-1].breached),
        "new labels": facts.new_labels,
        "new labels asked": spec.min_new_labels,
        "last training": trained.isoformat() if trained else None,
        "retrainings in seven days": this_week,
        "retrainings without gain": in_vain,
        "champion": facts.champion,
        "gap": gap,
    }
    changed = _since(spec, since)
    if spec.since_change is not None and changed:
        numbers |= {"since": changed[0].day.isoformat(), "dates since": len(changed)}

    def say(outcome: Outcome, reason: str) -> Decision:
        return Decision(facts.day, outcome, f"{reason}. {gap}" if gap else reason, numbers)

    seen = f"{found} of the last {len(last)} complete outcome dates breach"
    if facts.champion is None:
        return say("wait", "there is no champion to retrain")
    if not last:
        return say("wait", "no outcome date of what the champion has scored is complete yet")
    if found < spec.breaches:
        return say("wait", f"{seen}; {spec.breaches} of {spec.windows} are needed")
    if not last[-1].breached:
        return say("wait", f"{seen}, but the newest, {last[-1].day}, does not: the change has passed")
    seen += f", the newest with {last[-1].why}"
    if facts.red:
        return say("wait", f"{seen}; but an input is incomplete or broken: {facts.red[0]}")
    if trained is not None and facts.day - trained < spec.min_gap:
        return say("wait", f"{seen}; but the last training was on {trained}, less than {spec.min_gap.days} days ago")
    if this_week >= spec.max_per_week:
        return say(
            "wait", f"{seen}; but there were {this_week} retrainings out of turn in seven days, and no more are allowed"
        )
    if facts.new_labels < spec.min_new_labels:
        return say(
            "wait",
            f"{seen}; but there are {facts.new_labels:,} outcomes since the last training, and "
            f"{spec.min_new_labels:,} are needed",
        )
    if spec.since_change is not None:
        since_then = f"{len(changed)} complete dates since {changed[0].day}, when it began"
        if len(changed) < spec.since_change.dates:
            return say(
                "wait", f"{seen}; but of the {spec.since_change.dates} dates to learn from there are {since_then}"
            )
        seen += f"; learning from the {since_then}"
    if in_vain >= spec.max_in_vain:
        return say(
            "ask a person",
            f"{seen}; and after {in_vain} retrainings in a row version {facts.champion} is still champion: look at "
            "features and data, then retrain by hand",
        )
    return say("retrain", seen)


def last_training(champion_trained: date | None, past: Iterable[Past], day: date) -> date | None:
    """Return when the last training before a day was: the champion's, or one out of turn that came to nothing."""
    tried = [one.day for one in past if one.day < day and one.outcome == "retrain"]
    return max([*tried, *([champion_trained] if champion_trained else [])], default=None)


def _after_gap(spec: MonitoringSpec, dates: Sequence[JudgedDate], facts: Facts) -> tuple[list[JudgedDate], str]:
    """Return the dates since the last gap, and the gap in words; nothing is judged across one.

    Outcomes that are not due yet, such as those of files that are published weeks later, are no gap.
    """
    since: list[JudgedDate] = []
    gap = ""
    for one in dates:
        if since and one.day - since[-1].day > spec.longest_gap:
            gap = f"No outcome date from {since[-1].day} to {one.day} is complete: nothing is judged across this gap"
            since = []
        since.append(one)
    newest = since[-1].day if since else facts.trained
    if newest is not None and facts.due - newest > spec.longest_gap:
        gap = (
            f"No outcome date since {newest} is complete, and those up to {facts.due} are due: look at `ml-assets "
            "status` for what waits"
        )
        return [], gap
    return since, gap


def _since(spec: MonitoringSpec, dates: Sequence[JudgedDate]) -> Sequence[JudgedDate]:
    """Return the dates from the first of the newest run of breaches on; none without a breach.

    In a run there are at most as many dates without a breach between two breaches as `windows` leaves to `breaches`.
    """
    first, missing = len(dates), 0
    for position in range(len(dates) - 1, -1, -1):
        missing = 0 if dates[position].breached else missing + 1
        if missing > spec.windows - spec.breaches:
            break
        if dates[position].breached:
            first = position
    return dates[first:]


def _in_vain(before: Sequence[Past], champion: int | None) -> int:
    """Return how many of the last retrainings in a row did not change the champion."""
    count = 0
    for one in reversed(before):
        if one.champion != champion:
            break
        count += 1
    return count
