"""The year's story as Markdown: the goals, what it cost, one page of plots, and what happened when."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

import numpy as np

from ml_assets.learning.plots import drift_plot, estimate_plot, lines_plot
from ml_assets.local.rehearsal.account import (
    NEVER,
    NOBODY,
    ORACLE,
    RULE,
    TEAM,
    Cost,
    Decisions,
    Goal,
    Limit,
    alarms,
    lift_share,
)
from ml_assets.local.rehearsal.mornings import Morning, Training
from ml_assets.local.rehearsal.plan import HISTORY, WHAT_HAPPENS
from ml_assets.local.rehearsal.play import Year

_WEEK = 5
_SHOWN_DRIFTS = 14


def page(
    year: Year, found: Mapping[str, Cost], could_be: Sequence[Limit], reached: Sequence[Goal], measured: Sequence[str],
    plots: str,
) -> str:  # fmt: skip
    """Return the page; `measured` are lines on how it was made, `plots` is the folder of the plots, as a link."""
    plan, currency = year.plan, year.usecase.currency
    lines = [
        "# A year rehearsed",
        "",
        "Written by `make rehearsal`: settlement_fails on a simulated market, day by day as it would be live. Each",
        "morning at 07:05 what has happened is landed through the broker; what is due is done by the stages of",
        "production; an analyst acts on the work-lists, and what is saved so settles. Another person approves what the",
        f"gate has passed. The year has {plan.days} business days from {plan.start}, after {HISTORY} in which nobody "
        "acted;",
        f"{plan.instructions_per_day} instructions a day, {plan.counterparties} counterparties, a capacity of "
        f"{plan.capacity} per slot. The schedule retrains every",
        f"{plan.retrain_every} days here, so that it is the rule that has to react.",
        "",
        *(f"- {line}" for line in measured),
        "",
        "## What was to be reached",
        "",
        *goals_table(reached),
        "",
        "## What the year cost",
        "",
        f"Penalties and funding of fails, in {currency}. All lists have the same capacity; a fail that is chased",
        f"settles in time with {year.usecase.action.effectiveness:.0%} each time. Acting costs "
        f"{year.usecase.action.cost:g} {currency} a decision.",
        "",
        "| list by | penalties | below no model | acted on | cost of acting |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(_cost_line(name, found[name], found[NOBODY]) for name in (NOBODY, RULE, NEVER, TEAM, ORACLE)),
        "",
        "How far below the rule's penalties lists can be, on the same year. It depends on the capacity per slot and on",
        "the share of the chased fails that settle; the oracle's is the limit:",
        "",
        "| capacity | chased fails that settle | the models | the oracle |",
        "| ---: | ---: | ---: | ---: |",
        *(f"| {one.capacity} | {one.effectiveness:.0%} | {one.model:.1%} | {one.oracle:.1%} |" for one in could_be),
        "",
        *(f"![{title}]({plots}/{name}.png)\n" for name, title in PLOTS.items()),
        "## What happened when",
        "",
        "| date | what |",
        "| --- | --- |",
        *(f"| {day} | {what} |" for day, what in story(year)),
        "",
    ]
    return "\n".join(lines)


def goals_table(reached: Sequence[Goal]) -> list[str]:
    """Return the goals as lines of a table."""
    return [
        "| goal | asked | came | |",
        "| --- | --- | --- | --- |",
        *(f"| {one.what} | {one.asked} | {one.came} | {mark(one)} |" for one in reached),
    ]


def mark(goal: Goal) -> str:
    """Return in words whether a goal was reached."""
    if goal.reached is None:
        return "nothing to reach"
    return "reached" if goal.reached else "**out of reach, also for the oracle**" if goal.beyond else "**missed**"


PLOTS = {
    "costs": "Penalties by month",
    "lift": "Share of the best lift, by week",
    "estimates": "PR-AUC of what nobody acted on, estimated and realised",
    "drift": "What drifted, by week",
}


def plots(year: Year, decisions: Decisions, found: Mapping[str, Cost]) -> dict[str, bytes]:
    """Return the plots by the names of `PLOTS`."""
    months = sorted(found[TEAM].by_month)
    by_month = {
        name: [found[name].by_month.get(month, 0.0) for month in months] for name in (RULE, NEVER, TEAM, ORACLE)
    }
    weeks = [year.mornings[at : at + _WEEK] for at in range(0, len(year.mornings), _WEEK)]
    slot = year.usecase.slots[0].name
    shares = {
        name: [lift_share(decisions, name, decisions.of_days(slot, week[0].date, week[-1].date)) for week in weeks]
        for name in (RULE, NEVER, TEAM)
    }
    told = [one for one in year.mornings if one.estimated is not None]
    estimated = np.array([one.estimated for one in told], dtype=np.float64)
    realised = np.array([math.nan if one.realised is None else one.realised for one in told])
    return {
        "costs": lines_plot(months, by_month, title=f"{PLOTS['costs']}, {year.usecase.currency}"),
        "lift": lines_plot([f"{week[0].date:%d %b}" for week in weeks], shares, title=PLOTS["lift"], percent=True),
        "estimates": estimate_plot(
            [one.date for one in told], estimated, estimated, estimated, realised, title=PLOTS["estimates"]
        ),
        "drift": drift_plot([week[0].date for week in weeks], _by_week(weeks), title=PLOTS["drift"]),
    }


def story(year: Year) -> Iterator[tuple[date, str]]:
    """Yield what happened, in order: changes of the market, alarms, decisions to retrain, verdicts, approvals."""
    raised = alarms(year.mornings)
    version: int | None = None
    for morning in year.mornings:
        for change in year.plan.changes:
            if morning.day == change.first:
                yield morning.date, f"**{WHAT_HAPPENS[change.what]}**"
            if morning.day == change.end:
                yield morning.date, f"**over: {WHAT_HAPPENS[change.what]}**"
        if morning.approved is not None:
            yield morning.date, f"a person approves version {morning.approved}"
        if version is not None and morning.champion != version:
            yield morning.date, f"champion is version {morning.champion}, instead of {version}"
        version = morning.champion
        if morning.refused:
            yield morning.date, "scores are refused, the team acts by its checklist"
        if new := raised.get(morning.day):
            more = f", and {len(new) - 3} more" if len(new) > 3 else ""
            yield morning.date, "drift: " + "; ".join(f"{one} ({morning.drifted[one]})" for one in new[:3]) + more
        decision = morning.decision
        if decision is not None and decision.outcome != "wait":
            yield morning.date, f"decision: {decision.outcome}: {decision.reason}"
        elif decision is not None and decision.numbers["breaches"] >= decision.numbers["breaches asked"]:
            yield morning.date, f"decision: not to retrain: {decision.reason}"
        for training in morning.trainings:
            yield morning.date, of_training(training)


def of_training(training: Training) -> str:
    """Return a retraining in words: why, what the gate said, and what was done."""
    why = training.why if len(training.why) < 40 else "by the rule"
    failed = ", ".join(
        f"{one.name} {one.value:.3g} {'must be'} {one.comparison} {one.threshold:.3g}"
        if isinstance(one.value, float)
        else one.name
        for one in training.verdict.failures
    )
    said = "the gate says yes" if training.verdict.passed else f"the gate says no ({failed})"
    return f"version {training.version} is trained ({why}): {said}; {training.outcome}"


def _by_week(weeks: Sequence[Sequence[Morning]]) -> dict[str, list[float]]:
    """Return of what drifted on most days the share of each week's days on which it did, above 1 where on all."""
    counted: dict[str, list[float]] = {}
    for number, week in enumerate(weeks):
        for morning in week:
            for name in morning.drifted:
                counted.setdefault(name, [0.0] * len(weeks))[number] += 2 / len(week)
    most = sorted(counted, key=lambda name: -sum(counted[name]))[:_SHOWN_DRIFTS]
    return {name: counted[name] for name in most}


def _cost_line(name: str, cost: Cost, without: Cost) -> str:
    share = f"{1 - cost.penalty / without.penalty:.0%}" if cost is not without else ""
    return f"| {name} | {cost.penalty:,.0f} | {share} | {cost.acts:,} | {cost.acting:,.0f} |"
