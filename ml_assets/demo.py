"""The demo: the whole lifecycle of a use case on this machine, from its input to a work-list, and what came out.

Everything but the input is what production runs: the broker, the lander, the jobs, the registry, the database.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ml_assets.local_runs import LocalRuns, local_instance, weekdays
from ml_assets.resources import Platform
from ml_assets.settings import Settings
from ml_assets.simulation.messages import Message
from ml_assets.spec import UseCase

# Partitions made in one run: enough to share its start, few enough to see progress and to bound memory.
CHUNK = 20
_SHOWN = 10
DEMO_APPROVER = "demo-approver"
# Log-odds that a cause must add to be shown: it makes a fail a tenth likelier.
_WORTH_SAYING = 0.1


class Source(Protocol):
    """Input for a use case: a simulated market, or files that are played again."""

    @property
    def topics(self) -> Iterable[str]:
        """The topics of the messages."""
        ...

    @property
    def message_count(self) -> int:
        """How many messages there will be, for a progress bar."""
        ...

    def messages(self) -> Iterator[Message]:
        """Yield the messages in the order in which they became known."""
        ...


@dataclass(frozen=True)
class Scenario:
    """What the demo does with a use case.

    Dates from `first` to `last` are ingested, `training_date` is trained as of, `scored` are scored. `window` is
    the run config of the training set; `truth` a Parquet file of true probabilities, if there are any; `later` the
    first and the last date after the window on which the champion is tried once more, frozen.
    """

    usecase: UseCase
    source: Source
    first: date
    last: date
    training_date: date
    scored: tuple[date, ...]
    window: dict[str, str] = field(default_factory=dict)
    truth: Path | None = None
    later: tuple[date, date] | None = None


def run_demo(settings: Settings, scenario: Scenario, console: Console) -> None:
    """Run the scenario and print what came out.

    Raises:
        ml_assets.local_runs.RunFailedError: a job failed.
    """
    platform = Platform(home=str(settings.home_path))
    usecase = scenario.usecase
    started = perf_counter()
    with local_instance(settings) as instance, _preparing(), _progress(console) as progress:
        runs = LocalRuns(instance, usecase, platform)
        _land(settings, platform, scenario, progress)
        days = weekdays(usecase, scenario.first, scenario.last)
        with _bar(progress, "dates curated, with features and labels", len(days)) as advance:
            runs.run_in_chunks("ingest", days, CHUNK, advance)
    with local_instance(settings) as instance, _progress(console) as progress:
        runs = LocalRuns(instance, usecase, platform)
        with _bar(progress, "candidates trained, compared, registered", len(usecase.candidates)) as advance:
            config = {f"{usecase.name}__training_set": {"config": scenario.window}} if scenario.window else None
            runs.run("retrain", [scenario.training_date], ops=config)
            advance(len(usecase.candidates))
        if usecase.needs_approval:
            _approve(platform, usecase, progress.console)
        with _bar(progress, "dates scored by the champion", len(scenario.scored)) as advance:
            for day in scenario.scored:
                runs.run("score", [day])
                advance(1)
    summarize(settings, platform, scenario, console)
    platform.close()
    console.print(f"\nDone in {perf_counter() - started:.0f} s. Where to look next:")
    console.print("  [bold]make ui[/]           asset graph, metadata and checks, on http://localhost:3000")
    console.print("  [bold]ml-assets --help[/]  the command line: work-list, status, score, promote, ...")


def _approve(platform: Platform, usecase: UseCase, console: Console) -> None:
    """Play the person who approves a promotion in the tier `high`, and say so; in production that is a person."""
    from ml_assets.database.promotions import Actor, open_request
    from ml_assets.lifecycle.promotion import approve

    if (request := open_request(platform.engine, usecase.name)) is None:
        return
    approve(platform.registry, platform.engine, usecase, Actor.person(DEMO_APPROVER), reason="approved by the demo")
    console.print(
        f"[dim]{usecase.name} is of tier high: {request.actor} asked for version {request.to_version}, and the demo "
        f"approved it as the person `{DEMO_APPROVER}`; see `ml-assets history {usecase.name}`[/]"
    )


@contextmanager
def _preparing() -> Iterator[None]:
    """Make the tables of MLflow and of the application in another process meanwhile: MLflow's take it some seconds."""
    preparing = subprocess.Popen([sys.executable, "-m", "ml_assets.cli", "prepare"])
    yield
    if preparing.wait():
        raise RuntimeError("the databases could not be made ready; the error is above")


def _land(settings: Settings, platform: Platform, scenario: Scenario, progress: Progress) -> None:
    """Produce the scenario's messages and land them, unless they have landed before."""
    from ml_assets.embedded.environment import kafka_connection
    from ml_assets.lake import landing_table
    from ml_assets.landing.lander import Lander
    from ml_assets.landing.produce import ensure_topics, produce

    usecase, source = scenario.usecase, scenario.source
    if any(platform.lake.version(landing_table(event.topic)) is not None for event in usecase.events):
        progress.console.print("[dim]events have landed before and are used again; --fresh starts anew[/]")
        return
    kafka = kafka_connection(settings)
    ensure_topics(kafka, source.topics)
    with _bar(progress, "messages produced to Kafka", source.message_count) as advance:
        sent = produce(kafka, source.messages(), progress=advance)
    with _bar(progress, "messages landed in Delta Lake", sent) as advance:
        Lander(platform.lake, usecase.events, kafka, clock="replay").land_available(advance)


def summarize(settings: Settings, platform: Platform, scenario: Scenario, console: Console) -> None:
    """Print the models on the unseen window, and the top of the newest work-list."""
    from ml_assets.lifecycle.backtest import backtest
    from ml_assets.lifecycle.evaluation import compare_models
    from ml_assets.registry import CHAMPION

    usecase = scenario.usecase
    comparison, _ = compare_models(
        platform.lake, platform.registry, usecase, scenario.training_date, threads=settings.threads
    )
    probabilities = dict(comparison.probabilities)
    if scenario.truth is not None:
        probabilities["best reachable"] = true_probabilities(scenario.truth, comparison.window, "reachable")
    _print_models(usecase, comparison.window, probabilities, console)
    if CHAMPION in probabilities and len({str(day)[:7] for day in comparison.window.dates}) > 1:
        rule, champion = probabilities[usecase.rule.name], probabilities[CHAMPION]
        print_months(usecase, comparison.window, champion, rule, "Champion against the rule, by month", console)
    if CHAMPION in probabilities and scenario.later is not None:
        tried = backtest(platform.lake, platform.registry, usecase, *scenario.later, threads=settings.threads)
        print_months(usecase, tried.window, tried.model, tried.rule, "The same, frozen, on later months", console)
    print_work_list(platform, usecase, console, _SHOWN)


def true_probabilities(truth: Path, window: Any, column: str = "probability") -> Any:
    """Return the true probability of each decision of a window: (n,). `column` is one of `simulation.truth`'s two.

    Raises:
        LookupError: the truth lacks a decision of the window.
    """
    known = pd.read_parquet(truth, columns=["entity_id", "decision_time", column])
    known["decision_time"] = known["decision_time"].dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[us]")
    asked = pd.DataFrame({"entity_id": window.entity_ids, "decision_time": window.decision_times})
    asked["decision_time"] = asked["decision_time"].astype("datetime64[us]")
    joined = asked.merge(known, how="left", on=["entity_id", "decision_time"])
    if joined[column].isna().any():
        unknown = joined[joined[column].isna()].iloc[0]
        raise LookupError(
            f"{truth} has no probability of {unknown['entity_id']} at {unknown['decision_time']}; it is of another "
            "simulation than the lake. Run the demo with --fresh"
        )
    return joined[column].to_numpy()


def print_work_list(
    platform: Platform, usecase: UseCase, console: Console, limit: int, day: date | None = None
) -> None:
    """Print the dearest rows of a work-list, by default the newest."""
    from ml_assets.database.work_list import next_outcome_date, work_list

    day = day or next_outcome_date(platform.engine, usecase.name)
    rows = work_list(platform.engine, usecase.name, day, limit) if day else []
    if not rows:
        console.print(f"The work-list of {usecase.name} is empty; score a date first.")
        return
    table = Table(title=f"{usecase.title}: work-list for {day}, the first {len(rows)} by expected cost")
    table.add_column("#", justify="right")
    table.add_column(usecase.entity, no_wrap=True)
    table.add_column("what it is")
    table.add_column("p(fail)", justify="right")
    table.add_column(f"cost, {usecase.currency}", justify="right")
    if usecase.causes:
        table.add_column("why, log-odds")
        table.add_column("what to do")
    for row in rows:
        said = " · ".join(_show(value) for value in (row["attributes"] or {}).values() if value != row["entity_id"])
        table.add_row(
            str(row["priority"]), row["entity_id"], said, f"{row['probability']:.3f}", f"{row['expected_cost']:,.0f}",
            *(_reasons(row["reason_codes"]) if usecase.causes else ()),
        )  # fmt: skip
    console.print(table)


def _reasons(codes: dict[str, Any] | None) -> tuple[str, str]:
    """Return the causes that raise the probability, and what is done about the first of them."""
    if codes is None:
        return "", ""
    # JSONB does not keep an order.
    ordered = sorted(codes["contributions"].items(), key=lambda item: -item[1])
    raising = [f"{cause} {value:+.1f}" for cause, value in ordered if value >= _WORTH_SAYING]
    return ", ".join(raising), codes["action"] or ""


def _print_models(usecase: UseCase, window: Any, probabilities: dict[str, Any], console: Console) -> None:
    from ml_assets.learning.metrics import evaluate, share_of_best

    measured = {
        name: evaluate(window, p, capacity=usecase.capacity, action=usecase.action) for name, p in probabilities.items()
    }
    some = next(iter(measured.values()))
    days = sorted({str(day) for day in window.dates.astype("datetime64[D]")})
    table = Table(
        title=f"{usecase.title}: {some['n']:,.0f} unseen decisions of {days[0]} to {days[-1]}, "
        f"base rate {some['base_rate']:.3f}",
        caption=f"caught: by the first {usecase.capacity} of each work-list; saved: {usecase.currency} a day against "
        f"no model, if {usecase.action.effectiveness:.0%} of what is acted on settles and acting costs "
        f"{usecase.action.cost:g}. Lift: PR-AUC above the base rate.",
    )
    columns = {
        "PR-AUC": "pr_auc", "ROC-AUC": "roc_auc", "Brier": "brier", "calibration error": "calibration_error",
        "fails caught": "recall_at_capacity", "value caught": "value_recall_at_capacity",
        "cost caught": "cost_captured_at_capacity",
    }  # fmt: skip
    best = measured.get("best reachable")
    models = sorted(measured, key=lambda name: measured[name]["pr_auc"])
    table.add_column("")
    for name in models:
        table.add_column(name.replace("_", " "), justify="right")
    for column, metric in columns.items():
        table.add_row(column, *(f"{measured[name][metric]:.3f}" for name in models))
    table.add_row("saved", *(f"{measured[name]['saved_per_day']:,.0f}" for name in models))
    if best:
        for column, metric in (("of best lift", "lift"), ("of best skill", "brier_skill")):
            table.add_row(column, *(f"{share_of_best(measured[name], best, metric):.1%}" for name in models))
    console.print(table)


def print_months(usecase: UseCase, window: Any, model: Any, rule: Any, title: str, console: Console) -> None:
    """Print a model against the rule, month by month: (n,) probabilities each, in the order of the window."""
    from ml_assets.lifecycle.backtest import by_month

    table = Table(title=title)
    for column in ("decisions", "month"):
        table.add_column(column)
    for column in (
        "n",
        "base rate",
        "PR-AUC a day",
        "the rule's",
        "gain",
        "ROC-AUC",
        "the rule's",
        "calibration error",
    ):
        table.add_column(column, justify="right")
    for row in by_month(usecase, window, model, rule).to_dict("records"):
        table.add_row(
            row["decisions"], row["month"], f"{row['n']:,}", f"{row['base_rate']:.3f}", f"{row['per_day_pr_auc']:.3f}",
            f"{row['rule_per_day_pr_auc']:.3f}", f"{row['gain']:+.1%}", f"{row['roc_auc']:.3f}",
            f"{row['rule_roc_auc']:.3f}", f"{row['calibration_error']:.3f}",
        )  # fmt: skip
    console.print(table)


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
    return "" if value is None else str(value)


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def _bar(progress: Progress, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves a bar on; at the end the bar is full, since the total may be an estimate."""
    task = progress.add_task(what, total=total)
    yield lambda steps: progress.advance(task, steps)
    done = progress.tasks[progress.task_ids.index(task)].completed
    progress.update(task, total=done, completed=done)
