"""What playing the SEC's files shows, as goals and as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.learning.plots import estimate_plot
from ml_assets.local.rehearsal.account import Goal
from ml_assets.local.rehearsal.files import Played
from ml_assets.local.rehearsal.mornings import Morning
from ml_assets.local.rehearsal.page import goals_table, of_training

_WEEK = timedelta(days=7)
MOST_OFF = 0.10


class Compared(NamedTuple):
    """Complete outcome dates: how many, the mean PR-AUC that was estimated, and the mean that came out."""

    dates: int
    estimated: float
    realised: float

    @property
    def error(self) -> float:
        """The error of the estimate, as a share of what came out."""
        return self.estimated / self.realised - 1


def compared(estimates: pa.Table, month: str = "") -> Compared:
    """Return how the estimates of PR-AUC did on the complete outcome dates, of a month (`2021-03`) or of all."""
    rows = [
        row for row in estimates.to_pylist()
        if row["metric"] == "pr_auc" and row["realised"] is not None and row["estimated"] is not None
        and str(row["outcome_date"]).startswith(month)
    ]  # fmt: skip
    means = [float(np.mean([row[name] for row in rows])) if rows else np.nan for name in ("estimated", "realised")]
    return Compared(len(rows), *means)


def goals_of_months(played: Played) -> list[Goal]:
    """Return what was to be reached over all months that there are, and what was."""
    spec, mornings = played.usecase.monitoring, played.mornings
    whole = compared(played.estimates)
    asked = [one.date for one in mornings if one.decision and one.decision.outcome == "retrain"]
    most = max((sum(day <= one < day + _WEEK for one in asked) for day in asked), default=0)
    # Two decisions to retrain without a publication between them would learn the same twice.
    same = sum(not any(a <= one < b for one in played.published) for a, b in pairwise(asked))
    seen = [gap for gap in played.gaps if gap[0] >= mornings[0].date]
    said = [gap for gap in seen if _is_said(mornings, gap)]
    return [
        Goal(
            "the estimate of PR-AUC, over all complete outcome dates", f"within {MOST_OFF:.0%} of what came out",
            f"{whole.error:+.1%}: {whole.estimated:.3f} estimated, {whole.realised:.3f} came, {whole.dates} dates",
            abs(whole.error) <= MOST_OFF if whole.dates else False,
        ),
        Goal(
            "no storm of retrainings", f"at most {spec.max_per_week} in seven days, none twice on the same files",
            f"{len(asked)} out of turn in {len(mornings)} mornings, at most {most} in seven days, {same} on the same "
            "files",
            most <= spec.max_per_week and not same,
        ),
        Goal(
            "gaps of the files are said", f"{len(seen)}: {', '.join(f'{a} to {b}' for a, b in seen)}",
            f"{len(said)}", len(said) == len(seen) if seen else None,
        ),
    ]  # fmt: skip


def goals_of_gap(played: Played) -> list[Goal]:
    """Return what was to be reached where nothing was published for years, and what was."""
    _, ends = played.gaps[-1]
    longest = played.usecase.monitoring.longest_gap
    # The last files before it are published later than its first date; until then, what they hold is awaited too.
    within = [one for one in played.mornings if one.date > played.published[-2] and _says_silent(one)]
    judged = [one for one in within if one.decision and one.decision.numbers["of"]]
    trained = [one for one in within for _ in one.trainings]
    message = message_after(played)
    return [
        Goal(
            "the gap is said", f"each morning, once outcomes are due for more than {longest.days} days",
            f"from {within[0].date} on, {len(within)} mornings" if within else "never",
            bool(within) and within == [one for one in played.mornings if one.date >= within[0].date],
        ),
        Goal(
            "nothing is judged across it", "no complete outcome date counts, and nothing is trained",
            f"{len(judged)} mornings with one, {len(trained)} trainings", bool(within) and not judged and not trained,
        ),
        Goal(
            f"the message after it, once the half-month of {ends} is published", "says what to do",
            message or "there is none", "nothing is trained across" in message and "ingest" in message,
        ),
    ]  # fmt: skip


def message_after(played: Played) -> str:
    """Return what the first training after the last publication said."""
    last = played.published[-1]
    return next((one.untrained for one in played.mornings if one.date > last and one.untrained), "")


def files_page(months: Played, silent: Played, reached: Sequence[Goal], measured: Sequence[str], plots: str) -> str:
    """Return the page; `measured` are lines on how it was made, `plots` is the folder of the plots, as a link."""
    models = [one.name for one in months.usecase.candidates if not one.is_rule]
    names = sorted({str(day)[:7] for day in pc.unique(months.estimates["outcome_date"]).to_pylist()})
    lines = [
        "# The SEC's files, day by day",
        "",
        "Written by `make rehearsal-sec DATA=<folder>`: cns_fails on the files that the SEC publishes, each known from",
        "its publication on. Each morning at 07:05 what was published is landed through the broker, and what is due is",
        "done by the stages of production. The schedule retrains after every second publication: the rule and",
        f"{' and '.join(models)}, as written, without search.",
        "",
        *(f"- {line}" for line in measured),
        "",
        "## What was to be reached",
        "",
        *goals_table(reached),
        "",
        "## All months that there are",
        "",
        f"{months.rows:,} rows of {len(months.published)} publications. The first model is of "
        f"{months.mornings[0].date}, after {len(months.attempts)} attempts: the first of them said",
        f"_{next(iter(months.attempts.values()), 'nothing')}_",
        "",
        f"![PR-AUC by outcome date, estimated and realised]({plots}/estimates.png)",
        "",
        "| month | complete outcome dates | PR-AUC estimated | came out | off |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(_month(name, compared(months.estimates, name)) for name in names),
        "",
        "| date | what |",
        "| --- | --- |",
        *(f"| {day} | {what} |" for day, what in story(months)),
        "",
        "## Two years of nothing",
        "",
        "The files of the first year, and the last half-month of them once more, two years later, with nothing",
        "between. The schedule retrains after each publication. While nothing comes only each twentieth morning is",
        "played.",
        "",
        "| date | what |",
        "| --- | --- |",
        *(f"| {day} | {what} |" for day, what in story(silent)),
        "",
    ]
    return "\n".join(lines)


def files_plots(months: Played) -> dict[str, bytes]:
    """Return the plot of the page, by name."""
    rows = [row for row in months.estimates.to_pylist() if row["metric"] == "pr_auc"]
    rows.sort(key=lambda row: row["outcome_date"])

    def column(name: str) -> NDArray[np.float64]:
        return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)

    days = [row["outcome_date"] for row in rows]
    made = estimate_plot(days, column("estimated"), column("low"), column("high"), column("realised"))
    return {"estimates": made}


def story(played: Played) -> Iterator[tuple[date, str]]:
    """Yield what happened, in order: trainings, decisions that are not the day before's, and gaps, each once."""
    yield played.mornings[0].date, of_training(played.first)
    version: int | None = None
    said = ""
    for morning in played.mornings:
        if version is not None and morning.champion != version:
            yield morning.date, f"champion is version {morning.champion}, instead of {version}"
        version = morning.champion
        if morning.refused:
            yield morning.date, "scores are refused, and published all the same, for the record"
        decision = morning.decision
        if decision is not None:
            gap = str(decision.numbers["gap"]).split(", and those")[0]
            if gap != said:
                yield morning.date, decision.numbers["gap"] or "the gap is behind: outcomes are judged again"
            said = gap
            if decision.outcome != "wait":
                yield morning.date, f"decision: {decision.outcome}: {decision.reason}"
        if morning.untrained:
            yield morning.date, f"no training: {morning.untrained}"
        for training in morning.trainings:
            yield morning.date, of_training(training)


def _month(name: str, one: Compared) -> str:
    if not one.dates:
        return f"| {name} | 0 | | | |"
    return f"| {name} | {one.dates} | {one.estimated:.3f} | {one.realised:.3f} | {one.error:+.1%} |"


def _is_said(mornings: Sequence[Morning], gap: tuple[date, date]) -> bool:
    """Return whether a morning says that no outcome date of a gap is complete."""
    return any(
        one.decision is not None and f"No outcome date from {gap[0]} to {gap[1]} is complete" in one.decision.reason
        for one in mornings
    )


def _says_silent(morning: Morning) -> bool:
    return morning.decision is not None and "No outcome date since" in morning.decision.reason
