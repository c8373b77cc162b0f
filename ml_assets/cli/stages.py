"""The commands of `ml-assets` that run a stage of the lifecycle for dates: ingest, backfill, retrain, score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ml_assets.cli.opened import UseCaseName, platform_of, read_settings, usecase_of
from ml_assets.errors import InputError, StateError

if TYPE_CHECKING:
    from rich.status import Status

    from ml_assets.lifecycle.backfill import Engine, FailedDate
    from ml_assets.settings import Settings
    from ml_assets.spec import UseCase


class EngineName(StrEnum):
    """Where the features of a backfill are made."""

    local = "local"
    spark = "spark"


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
    def backfill(
        use_case: UseCaseName,
        first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="first date")],
        last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last date")] = None,
        engine: Annotated[EngineName, typer.Option(help="in this process, or on the executors of a Spark cluster")] = (
            EngineName.local
        ),
        spark: Annotated[
            list[str] | None, typer.Option(help="a setting of Spark's, name=value; may be given again")
        ] = None,
        at_once: Annotated[
            int, typer.Option(min=1, help="dates that are made and written together; more keep more executors busy")
        ] = 20,
    ) -> None:
        """Make the features of many past dates anew from curated events; a date that fails keeps what it had."""
        _backfill(console, use_case, first.date(), (last or first).date(), engine, spark or [], at_once)

    @app.command()
    def retrain(
        use_case: UseCaseName,
        day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], help="train as of this date")],
        since: Annotated[
            datetime | None,
            typer.Option(formats=["%Y-%m-%d"], help="a change: learn from the decision dates since then alone"),
        ] = None,
    ) -> None:
        """Train, compare, register, and promote if the gate passes."""
        from ml_assets.defs.assets.training import since_change

        ops = None
        if since is not None:
            usecase = usecase_of(read_settings(), use_case)
            usecase.learning_since(since.date(), day.date())  # says at once if it cannot
            ops = since_change(usecase, since.date().isoformat())["ops"]
        _run(console, use_case, "retrain", day.date(), day.date(), ops)

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
    from ml_assets.cli.local_runs import CHUNK, LocalRuns, local_instance
    from ml_assets.database.turn import in_turn
    from ml_assets.defs.resources import Platform as Resource
    from ml_assets.lifecycle.outcome import came_out, refuse_idle

    settings = read_settings()
    usecase = usecase_of(settings, use_case)
    days = _days(usecase, first, last)
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
    console.print(f"{verb} of {use_case}: {_spoken(days)}", highlight=False)
    for line in came_out(platform.lake, platform.registry, platform.engine, usecase, verb, days, told=told):
        console.print(line, highlight=False)


def _backfill(
    console: Console, use_case: str, first: date, last: date, engine: EngineName, spark: list[str], at_once: int
) -> None:
    """Make the features of the dates from first to last; record them on the Dagster instance as they are written."""
    from ml_assets.cli.local_runs import local_instance, record_features
    from ml_assets.database.turn import in_turn
    from ml_assets.lifecycle.backfill import backfill
    from ml_assets.lifecycle.outcome import came_out, refuse_idle

    settings = read_settings()
    usecase = usecase_of(settings, use_case)
    days = _days(usecase, first, last)
    platform = platform_of(settings)
    refuse_idle(platform.lake, platform.engine, usecase, "backfill", days)
    begun, written = 0, list[date]()
    told: list[Any] = []
    failed: list[FailedDate] = []
    with (
        in_turn(platform.engine, use_case, lambda: _say_that_it_waits(console, use_case)),
        local_instance(settings) as instance,
        console.status(f"backfill {use_case} {days[0]} to {days[-1]}") as status,
        _engine(settings, engine, spark, status) as makes,
    ):
        for part in backfill(
            platform.lake, usecase, days, makes, at_once=at_once, until=datetime.now(UTC), threads=settings.threads
        ):
            begun += len(part.dates)
            failed += part.failed
            without = {one.day for one in part.failed}
            if part.report is not None:
                made = [day for day in part.dates if day not in without]
                told.append(record_features(instance, usecase, part.report, made))
                written += made
            status.update(f"backfill {use_case}: {begun} of {len(days)} dates")
    if written:
        console.print(f"backfill of {use_case}: {_spoken(written)}", highlight=False)
        for line in came_out(
            platform.lake, platform.registry, platform.engine, usecase, "backfill", written, told=told
        ):
            console.print(line, highlight=False)
    if failed:
        rest = f"; those from {days[begun]} on were not begun" if begun < len(days) else ""
        raise StateError(
            f"{len(failed)} of {len(days)} dates failed and keep what they had{rest}:\n"
            + "\n".join(f"{one.day}: {one.why}" for one in failed)
        )


@contextmanager
def _engine(settings: Settings, engine: EngineName, spark: list[str], status: Status) -> Iterator[Engine]:
    """Open where features are made."""
    if engine is EngineName.local:
        if spark:
            raise InputError("--spark is for --engine spark")
        from ml_assets.lifecycle.backfill import LocalEngine

        yield LocalEngine(threads=settings.threads, progress=lambda day: status.update(f"backfill: made {day}"))
        return
    from ml_assets.spark.session import conf_of, open_spark

    with open_spark(conf_of(spark), settings.usecase_packages) as session:
        from ml_assets.spark.engine import SparkEngine

        yield SparkEngine(session)


def _days(usecase: UseCase, first: date, last: date) -> list[date]:
    """Return the partitions from first to last.

    Raises:
        InputError: there is none.
    """
    from ml_assets.cli.local_runs import weekdays

    if days := weekdays(usecase, first, last):
        return days
    raise InputError(
        f"{usecase.name} has no partition from {first} to {last}; it has the weekdays from {usecase.first_partition}"
    )


def _spoken(days: list[date]) -> str:
    return f"{len(days)} dates, {days[0]} to {days[-1]}" if len(days) > 1 else str(days[0])


def _say_that_it_waits(console: Console, use_case: str) -> None:
    console.print(f"another command runs {use_case}; this one starts when it is done, Ctrl-C gives up", highlight=False)
