"""The commands of `ml-assets` for whoever adds a model: new, check, produce, settings."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli.opened import read_settings
from ml_assets.errors import NotFoundError

if TYPE_CHECKING:
    from ml_assets.settings import Settings
    from ml_assets.spec import EventSpec

_SHOWN = 20


def add_usecase_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command()
    def new(
        name: Annotated[str, typer.Argument(help="name of the use case: lower-case letters, digits and _")],
        files: Annotated[
            list[Path],
            typer.Option("--from", help="file of events (.csv, .jsonl, .parquet); the first is what is decided on"),
        ],
        entity: Annotated[str, typer.Option(help="column that names what is decided: the id of an order, a trade")],
        time: Annotated[str, typer.Option(help="column that says when a row happened")],
        package: Annotated[
            str, typer.Option(help="folder, a Python package, that the use case goes into")
        ] = "my_cases",
    ) -> None:
        """Draft a use case from files of events: a folder that `ml-assets check` passes, and what to think about."""
        from ml_assets.cli.draft import draft

        made = draft(name, files, entity=entity, time=time, package=package)
        for path in made.paths:
            console.print(f"  {path}", highlight=False)
        console.print(
            f"\nNext, in this folder:\n  export ML_ASSETS_USECASE_PACKAGES={package}\n  ml-assets check {name}",
            markup=False,
        )
        for event, file in made.events.items():
            command = shlex.join(["ml-assets", "produce", name, event, str(file), "--event-time", time])
            console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
        console.print("  ml-assets land --replay", highlight=False)

    @app.command()
    def check(
        use_case: Annotated[str, typer.Argument(help="name of a use case; all if left out")] = "",
    ) -> None:
        """Say what a use case lacks: all its SQL is run on empty tables, all that it declares is looked at."""
        from ml_assets.lifecycle.check import check_module, refuse_two_contracts
        from ml_assets.usecases import usecase_modules

        found, wrong, looked_at = [], 0, 0
        for module in usecase_modules(read_settings().usecase_packages):
            usecase, findings = check_module(module)
            name = usecase.name if usecase else module.rsplit(".", 2)[-2]
            if usecase:
                found.append(usecase)
            if use_case not in ("", name):
                continue
            looked_at += 1
            errors = [one for one in findings if one.error]
            wrong += len(errors)
            folder = usecase.folder if usecase else Path(module.rsplit(".", 1)[0].replace(".", "/"))
            for one in (*errors, *(one for one in findings if not one.error)):
                console.print(
                    Text.assemble(
                        ("wrong  " if one.error else "think  ", "red" if one.error else "yellow"),
                        f"{_near(folder)}/{one}",
                    ),
                    soft_wrap=True,
                )
            console.print(f"{name}: {_verdict(len(errors), len(findings) - len(errors))}", highlight=False)
        if not looked_at:
            known = ", ".join(sorted(usecase.name for usecase in found))
            raise NotFoundError(f"there is no use case {use_case!r}; there are {known or 'none'}")
        refuse_two_contracts(found)
        if wrong:
            raise typer.Exit(1)

    @app.command()
    def produce(
        use_case: Annotated[str, typer.Argument(help="name of a use case")],
        event: Annotated[str, typer.Argument(help="name of one of its events")],
        file: Annotated[Path, typer.Argument(help="file of events: .csv, .jsonl or .parquet")],
        event_time: Annotated[str, typer.Option(help="column that says when a row happened")] = "event_time",
        published: Annotated[
            str, typer.Option(help="column that says when it was published; else when it happened")
        ] = "",
    ) -> None:
        """Send the rows of a file to the topic of an event; lines that break its contract are listed and not sent."""
        from rich.progress import Progress

        from ml_assets.landing.files import read_events
        from ml_assets.landing.produce import ensure_topics
        from ml_assets.landing.produce import produce as send
        from ml_assets.local.embedded.environment import kafka_connection

        settings = read_settings()
        spec = _event(settings, use_case, event)
        with Progress(console=console) as progress:
            task = progress.add_task("rows read", total=None)
            read = read_events(
                file, spec, event_time=event_time, published=published, progress=lambda n: progress.advance(task, n)
            )
            progress.update(task, total=len(read.messages) + len(read.refused))
            kafka = kafka_connection(settings)
            ensure_topics(kafka, [spec.topic])
            task = progress.add_task("messages sent", total=len(read.messages))
            sent = send(kafka, read.messages, progress=lambda n: progress.advance(task, n))
        for line, why in read.refused[:_SHOWN]:
            console.print(Text.assemble(("not sent  ", "red"), f"{file.name}:{line}: {why}"), soft_wrap=True)
        if len(read.refused) > _SHOWN:
            console.print(f"... and {len(read.refused) - _SHOWN:,} more lines", highlight=False)
        if read.ignored:
            names = ", ".join(read.ignored)
            console.print(f"columns that {spec.contract.__name__} has no field for, not sent: {names}", markup=False)
        if read.made_ids:
            console.print("there is no column event_id: ids are made of what the rows say", highlight=False)
        console.print(
            f"{sent:,} messages of {file.name} are on topic {spec.topic}; {len(read.refused):,} lines are not. "
            "`ml-assets land --replay` lands them as known when they were published",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        if read.refused:
            raise typer.Exit(1)

    @app.command("settings")
    def show_settings() -> None:
        """Print all settings: value, where it is from, what it means. Secrets are not shown."""
        table = Table("variable", "value", "from", "meaning")
        for one in read_settings().shown():
            table.add_row(*map(Text, one), style="" if one.source == "default" else "bold")
        console.print(table)


def _event(settings: Settings, use_case: str, name: str) -> EventSpec:
    from ml_assets.usecases import discover

    known = {usecase.name: usecase for usecase in discover(settings.usecase_packages)}
    if use_case not in known:
        raise NotFoundError(f"there is no use case {use_case!r}; there are {', '.join(known)}")
    events = {event.name: event for event in known[use_case].events}
    if name not in events:
        raise NotFoundError(f"use case {use_case} has no event {name!r}; it has {', '.join(events)}")
    return events[name]


def _verdict(errors: int, hints: int) -> str:
    if errors:
        return "1 thing is wrong" if errors == 1 else f"{errors} things are wrong"
    return f"complete; {hints} to think about" if hints else "complete"


def _near(folder: Path) -> Path:
    """Return a folder as seen from here, if it is below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
