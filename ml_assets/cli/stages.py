"""The commands of `ml-assets` that run a stage of the lifecycle for dates: ingest, retrain, score."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ml_assets.cli.opened import UseCaseName, platform_of, read_settings, usecase_of
from ml_assets.errors import InputError

if TYPE_CHECKING:
    pass


def add_stages_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command()
    def ingest(
        use_case: UseCaseName,
        first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="first date")],
        last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last date")] = None,
    ) -> None:
        """Make curated events, features and labels of dates from what has landed."""
        _run(console, use_case, "ingest", first.date(), (last or first).date())

    @app.command()
    def retrain(
        use_case: UseCaseName,
        day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], help="train as of this date")],
    ) -> None:
        """Train, compare, register, and promote if the gate passes."""
        _run(console, use_case, "retrain", day.date(), day.date())

    @app.command()
    def score(
        use_case: UseCaseName,
        first: Annotated[datetime, typer.Option("--date", "--from", formats=["%Y-%m-%d"], help="date to score")],
        last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last date")] = None,
        despite: Annotated[
            str, typer.Option(help="publish scores that are refused, for this reason, which is shown")
        ] = "",
    ) -> None:
        """Score dates with the champion; scores unlike those of its calibration window are refused."""
        ops = {f"{use_case}__predictions": {"config": {"despite": despite}}} if despite else None
        _run(console, use_case, "score", first.date(), (last or first).date(), ops)


def _run(
    console: Console, use_case: str, verb: Any, first: date, last: date, ops: dict[str, Any] | None = None
) -> None:
    """Run a job for the dates from first to last, each chunk as one run on the Dagster instance."""
    from ml_assets.cli.local_runs import CHUNK, LocalRuns, local_instance, weekdays
    from ml_assets.database.turn import in_turn
    from ml_assets.defs.resources import Platform as Resource
    from ml_assets.lifecycle.outcome import came_out, refuse_idle

    settings = read_settings()
    usecase = usecase_of(settings, use_case)
    days = weekdays(usecase, first, last)
    if not days:
        raise InputError(
            f"{use_case} has no partition from {first} to {last}; it has the weekdays from {usecase.first_partition}"
        )
    platform = platform_of(settings)
    with (
        in_turn(platform.engine, use_case, lambda: _say_that_it_waits(console, use_case)),
        local_instance(settings) as instance,
    ):
        # Only now: the run before this one may have changed what there is.
        refuse_idle(platform.lake, platform.engine, usecase, verb, days)
        runs = LocalRuns(instance, usecase, Resource(home=str(settings.home_path)))
        with console.status(f"{verb} {use_case} {days[0]} to {days[-1]}"):
            told = runs.run_in_chunks(verb, days, CHUNK, ops=ops)
    dates = f"{len(days)} dates, {days[0]} to {days[-1]}" if len(days) > 1 else str(days[0])
    console.print(f"{verb} of {use_case}: {dates}", highlight=False)
    for line in came_out(platform.lake, platform.registry, platform.engine, usecase, verb, days, told=told):
        console.print(line, highlight=False)


def _say_that_it_waits(console: Console, use_case: str) -> None:
    console.print(f"another command runs {use_case}; this one starts when it is done, Ctrl-C gives up", highlight=False)
