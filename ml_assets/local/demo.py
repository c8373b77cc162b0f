"""The demo: the whole lifecycle of a use case on this machine, from its input to a work-list, and the results.

Everything but the input is what production runs: the broker, the lander, the jobs, the registry, the database.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ml_assets.errors import InputError, NotFoundError, StateError
from ml_assets.local.demo_events import Source, land_once
from ml_assets.platform import Platform, open_platform
from ml_assets.settings import Settings
from ml_assets.spec import UseCase

_SHOWN = 10
DEMO_APPROVER = "demo-approver"


@dataclass(frozen=True)
class Scenario:
    """What the demo does with a use case.

    `events` says in words which events the source has: those of another demo are not mixed with them. Dates from
    `first` to `last` are ingested, `training_date` is trained as of, `scored` are scored. `window` is the run config of
    the training set; `truth` a Parquet file of true probabilities, if there are any; `later` the first and the last
    date after the window on which the champion is tried once more, frozen.
    """

    usecase: UseCase
    source: Source
    events: str
    first: date
    last: date
    training_date: date
    scored: tuple[date, ...]
    window: dict[str, str] = field(default_factory=dict)
    truth: Path | None = None
    later: tuple[date, date] | None = None


# Below, the gate's floors are not met by chance: it asks for 500 fails, and there are some 3 % of two decisions each.
FEWEST_INSTRUCTIONS = 500
# Of the last days the outcomes are open.
_OPEN_DAYS = 2


def refuse_short_market(usecase: UseCase, days: int, instructions: int) -> None:
    """Do nothing if a simulated market of this size can be trained on.

    Raises:
        ValueError: it cannot; the message has a size that can.
    """
    split = usecase.split
    least = split.calibration_days + split.train_days // 2 + split.test_days + _OPEN_DAYS
    if days < least:
        raise InputError(
            f"{days} days are too few to train on: {split.test_days} to test, {split.calibration_days} to calibrate, "
            f"half of {split.train_days} to train and {_OPEN_DAYS} whose outcomes are open make {least}; "
            f"--days {least} or more"
        )
    if instructions < FEWEST_INSTRUCTIONS:
        raise InputError(
            f"{instructions} instructions a day are too few for the gate to tell a model from chance, so there would "
            f"be no champion; --instructions {FEWEST_INSTRUCTIONS} or more"
        )


def run_demo(settings: Settings, scenario: Scenario, console: Console) -> None:
    """Run the scenario and print the results.

    Raises:
        ml_assets.cli.local_runs.RunFailedError: a job failed.
    """
    from ml_assets.cli.local_runs import CHUNK, LocalRuns, local_instance, weekdays
    from ml_assets.defs.resources import Platform as Resource

    platform, resource = open_platform(settings), Resource(home=str(settings.home_path))
    usecase = scenario.usecase
    started = perf_counter()
    with local_instance(settings) as instance, _preparing(), _progress(console) as progress:
        runs = LocalRuns(instance, usecase, resource)
        _land(settings, platform, scenario, progress)
        days = weekdays(usecase, scenario.first, scenario.last)
        with _bar(progress, "dates curated, with features and labels", len(days)) as advance:
            runs.run_in_chunks("ingest", days, CHUNK, advance)
    with local_instance(settings) as instance, _progress(console) as progress:
        runs = LocalRuns(instance, usecase, resource)
        with _bar(progress, "candidates trained, compared, registered", len(usecase.candidates)) as advance:
            config = {f"{usecase.name}__training_set": {"config": scenario.window}} if scenario.window else None
            runs.run("retrain", [scenario.training_date], ops=config)
            advance(len(usecase.candidates))
        if usecase.needs_approval:
            _approve(platform, usecase, progress.console)
        with _bar(progress, "dates scored by the champion and watched", len(scenario.scored)) as advance:
            for day in scenario.scored:
                runs.run("score", [day])
                runs.run("monitor", [day])
                advance(1)
    summarize(settings, platform, scenario, console)
    platform.close()
    console.print(f"\nDone in {perf_counter() - started:.0f} s. Where to look next:")
    console.print(
        Text("  make ui           ", "bold").append(
            "asset graph, metadata and checks, on http://localhost:3000", "not bold"
        )
    )
    console.print(
        Text("  ml-assets --help  ", "bold").append(
            "the command line: work-list, status, score, promote, ...", "not bold"
        )
    )


def _approve(platform: Platform, usecase: UseCase, console: Console) -> None:
    """Play the person who approves a promotion in the tier `high`, and say so; in production that is a person."""
    from ml_assets.database.promotions import Actor, open_request
    from ml_assets.lifecycle.promotion import approve

    if (request := open_request(platform.engine, usecase.name)) is None:
        return
    approve(platform.registry, platform.engine, usecase, Actor.person(DEMO_APPROVER), reason="approved by the demo")
    console.print(
        f"{usecase.name} is of tier high: {request.actor} asked for version {request.to_version}, and the demo "
        f"approved it as the person `{DEMO_APPROVER}`; see `ml-assets history {usecase.name}`",
        style="dim",
    )


@contextmanager
def _preparing() -> Iterator[None]:
    """Make the tables of MLflow and of the application in another process meanwhile: MLflow's take it some seconds."""
    preparing = subprocess.Popen([sys.executable, "-m", "ml_assets.cli.main", "prepare"])
    yield
    if preparing.wait():
        raise StateError("the databases could not be made ready; the error is above")


def _land(settings: Settings, platform: Platform, scenario: Scenario, progress: Progress) -> None:
    """Produce the scenario's messages and land them, unless an earlier demo has landed all of them."""
    if not land_once(
        settings, platform.lake, scenario.usecase, scenario.source, scenario.events, partial(_bar, progress)
    ):
        progress.console.print("events have landed before and are used again; --fresh starts anew", style="dim")


def summarize(settings: Settings, platform: Platform, scenario: Scenario, console: Console) -> None:
    """Print the models on the unseen window, and the top of the newest work-list."""
    from ml_assets.cli.printed import print_months, print_work_list
    from ml_assets.lifecycle.backtest import backtest
    from ml_assets.lifecycle.evaluation import compare_models
    from ml_assets.registry import CHAMPION

    usecase = scenario.usecase
    comparison, _ = compare_models(
        platform.lake, platform.registry, platform.engine, usecase, scenario.training_date, threads=settings.threads
    )
    probabilities = dict(comparison.probabilities)
    if scenario.truth is not None:
        probabilities["best reachable"] = true_probabilities(scenario.truth, comparison.window, "reachable")
    _print_models(usecase, comparison.window, probabilities, console)
    if CHAMPION in probabilities and len({str(day)[:7] for day in comparison.window.dates}) > 1:
        rule, champion = probabilities[usecase.rule.name], probabilities[CHAMPION]
        print_months(usecase, comparison.window, champion, rule, "Champion against the rule, by month", console)
    if CHAMPION in probabilities and scenario.later is not None:
        tried = backtest(
            platform.lake, platform.registry, platform.engine, usecase, *scenario.later, threads=settings.threads
        )
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
        raise NotFoundError(
            f"{truth} has no probability of {unknown['entity_id']} at {unknown['decision_time']}; it is of another "
            "simulation than the lake. Run the demo with --fresh"
        )
    return joined[column].to_numpy()


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


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text=Text("✓", "green")),
        TextColumn("{task.description}", markup=False),
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
