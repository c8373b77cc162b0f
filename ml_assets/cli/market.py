"""The commands of `ml-assets` that make events and run everything on them: demo, rehearsal, simulate, replay-sec."""

from __future__ import annotations

import shutil
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ml_assets.cli.opened import platform_of, read_settings, usecase_of
from ml_assets.errors import InputError

if TYPE_CHECKING:
    from ml_assets.local.demo import Scenario
    from ml_assets.settings import Settings

_FIRST_DAY = datetime(2026, 1, 5)  # noqa: DTZ001 - a day


def add_market_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command()
    def demo(
        use_case: Annotated[str, typer.Option(help="settlement_fails (simulated) or cns_fails (SEC files)")] = (
            "settlement_fails"
        ),
        data: Annotated[Path | None, typer.Option(help="folder of the SEC files, for cns_fails")] = None,
        days: Annotated[int, typer.Option(min=1, help="business days to simulate")] = 60,
        instructions: Annotated[int, typer.Option(min=1, help="settlement instructions a day")] = 4000,
        seed: Annotated[int, typer.Option(help="seed of the simulation")] = 20260105,
        stress: Annotated[bool, typer.Option(help="simulate a stress regime")] = False,
        fresh: Annotated[bool, typer.Option(help="delete everything that earlier demos made, and start anew")] = False,
    ) -> None:
        """Run the whole lifecycle on this machine: broker, lake, features, training, registration, scoring."""
        from ml_assets.local.demo import refuse_short_market, run_demo
        from ml_assets.local.embedded.environment import stop_servers

        settings = read_settings()
        if use_case == "settlement_fails":
            refuse_short_market(usecase_of(settings, use_case), days, instructions)
        if fresh:
            stop_servers(settings)
            shutil.rmtree(settings.home_path, ignore_errors=True)
        if use_case == "cns_fails":
            scenario = _replayed(console, data)
        elif use_case == "settlement_fails":
            scenario = _simulated(console, settings, days, instructions, seed, stress)
        else:
            raise InputError(f"there is no demo of {use_case!r}; there are settlement_fails and cns_fails")
        try:
            run_demo(settings, scenario, console)
        finally:
            stop_servers(settings)

    @app.command()
    def simulate(
        days: Annotated[int, typer.Option(min=1, help="business days")] = 60,
        instructions: Annotated[int, typer.Option(min=1, help="settlement instructions a day")] = 4000,
        start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="first business day")] = _FIRST_DAY,
        seed: Annotated[int, typer.Option()] = 20260105,
        stress: Annotated[bool, typer.Option(help="a fortnight of stress")] = False,
        dirty: Annotated[
            float, typer.Option(min=0, max=0.5, help="share of duplicate, late, malformed messages")
        ] = 0.002,
    ) -> None:
        """Simulate a market and produce its events to Kafka; reference files and the truth go below the home folder."""
        from ml_assets.local.simulation.market import MarketConfig, simulate
        from ml_assets.object_store import use_object_stores

        settings = read_settings()
        use_object_stores(settings)
        market = simulate(
            MarketConfig(
                start=start.date(), days=days, instructions_per_day=instructions, seed=seed, stress=stress, dirty=dirty
            )
        )
        market.write_reference(settings.reference_uri)
        market.write_truth(_truth(settings))
        _produce(console, settings, market)

    @app.command()
    def rehearsal(
        days: Annotated[int, typer.Option(min=100, help="business days; with fewer, all happens earlier")] = 250,
        data: Annotated[
            Path | None, typer.Option(help="folder of the SEC's files: play cns_fails on them, not a simulated year")
        ] = None,
        out: Annotated[
            Path | None, typer.Option(help="the page; its plots go into a folder beside it [docs/rehearsal.md]")
        ] = None,
    ) -> None:
        """Rehearse a year of settlement_fails day by day: what changes, what is flagged, what is retrained, the cost.

        With --data the SEC's files are played instead: all months, then two years without a file. It has servers and a
        lake of its own below the home folder, and leaves those of the demo alone. It ends with 1 if a goal is
        missed that can be reached.
        """
        from ml_assets.local.rehearsal.files import FilesPlan
        from ml_assets.local.rehearsal.page import mark
        from ml_assets.local.rehearsal.plan import Plan
        from ml_assets.local.rehearsal.run import rehearse, rehearse_files

        settings = read_settings()

        def say(line: str) -> None:
            console.print(line, highlight=False, markup=False)

        if data is None:
            page = out or Path("docs/rehearsal.md")
            reached = rehearse(settings, Plan.of_days(days), usecase_of(settings, "settlement_fails"), page, say)
        else:
            page = out or Path("docs/rehearsal-sec.md")
            reached = rehearse_files(settings, FilesPlan(), data, usecase_of(settings, "cns_fails"), page, say)
        for one in reached:
            say(f"{mark(one).strip('*')}: {one.what}: {one.came} (asked: {one.asked})")
        say(f"It is told in {page}")
        if any(one.reached is False and not one.beyond for one in reached):
            raise typer.Exit(1)

    @app.command("replay-sec")
    def replay_sec(
        data: Annotated[Path, typer.Argument(help="folder of the SEC's files, as downloaded")],
        until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="last publication date")] = None,
        corrected_on: Annotated[
            datetime | None,
            typer.Option(formats=["%Y-%m-%d"], help="the files replace earlier ones, and were published on this date"),
        ] = None,
    ) -> None:
        """Produce the SEC's fails-to-deliver files to Kafka, in order of publication."""
        from ml_assets.local.simulation.sec_ftd import replay

        replayed = replay(data, until.date() if until else None, corrected_on.date() if corrected_on else None)
        _say_what_is_missing(console, replayed)
        _produce(console, read_settings(), replayed)


def _simulated(console: Console, settings: Settings, days: int, instructions: int, seed: int, stress: bool) -> Scenario:
    from ml_assets.local.demo import Scenario
    from ml_assets.local.demo_events import refuse_other_events
    from ml_assets.local.simulation.market import MarketConfig, simulate

    usecase = usecase_of(settings, "settlement_fails")
    events = f"{days} days of {instructions:,} instructions, seed {seed}{', a regime of stress' if stress else ''}"
    # Before the reference files and the truth of the other one are written over.
    refuse_other_events(settings, platform_of(settings).lake, usecase, events)
    config = MarketConfig(days=days, instructions_per_day=instructions, seed=seed, stress=stress)
    with console.status(f"simulating {days} business days of {instructions:,} instructions"):
        market = simulate(config)
        market.write_reference(settings.reference_uri)
        market.write_truth(_truth(settings))
    last = usecase.calendar.add(config.start, days - 1)
    return Scenario(usecase, market, events, config.start, last, last, (last,), truth=_truth(settings))


def _replayed(console: Console, data: Path | None) -> Scenario:
    """Return the scenario of the SEC files: train on what was known by the end of 2020, test on the next quarter."""
    from ml_assets.local.demo import Scenario
    from ml_assets.local.simulation.sec_ftd import replay

    if data is None:
        raise InputError("cns_fails needs the SEC's files: --data <folder of cnsfailsYYYYMM{a|b}.zip>")
    replayed = replay(data)
    _say_what_is_missing(console, replayed)
    usecase = usecase_of(read_settings(), "cns_fails")
    return Scenario(
        usecase,
        replayed,
        f"the SEC's files {replayed.periods[0]} to {replayed.periods[-1]}, {replayed.message_count:,} rows",
        first=date(2020, 6, 1),
        last=date(2021, 5, 31),
        training_date=date(2021, 4, 15),
        scored=(date(2021, 3, 31),),
        window={"train_cutoff": "2021-01-01", "test_first": "2021-01-04", "test_last": "2021-03-31"},
        later=(date(2021, 4, 1), date(2021, 5, 31)),
    )


def _say_what_is_missing(console: Console, replayed: Any) -> None:
    for name, reason in replayed.refused.items():
        console.print(Text.assemble((f"not taken, {name}: ", "yellow"), reason))
    if replayed.gaps:
        gaps = f" {', '.join(replayed.gaps)}: these dates are unknown, not without fails"
        console.print(Text.assemble(("no file for", "yellow"), gaps))


def _produce(console: Console, settings: Settings, source: Any) -> None:
    from rich.progress import Progress

    from ml_assets.landing.produce import ensure_topics, produce
    from ml_assets.local.embedded.environment import kafka_connection

    kafka = kafka_connection(settings)
    ensure_topics(kafka, source.topics)
    with Progress(console=console) as progress:
        task = progress.add_task("messages", total=source.message_count)
        sent = produce(kafka, source.messages(), progress=lambda steps: progress.advance(task, steps))
    console.print(f"{sent:,} messages are on the broker {kafka.bootstrap}; `ml-assets land --replay` lands them")


def _truth(settings: Settings) -> Path:
    return settings.home_path / "truth" / "settlement_fails.parquet"
