"""The commands of `ml-assets` that test a saved model again: reproduce, backtest."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli.opened import UseCaseName, platform_of, read_settings, usecase_of
from ml_assets.errors import StateError

if TYPE_CHECKING:
    pass


def add_models_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command("reproduce")
    def reproduce_version(
        use_case: UseCaseName, version: Annotated[int, typer.Argument(min=1, help="version of the model")]
    ) -> None:
        """Make a model again from the data that it was trained on, and compare rows, parameters, probabilities."""
        from ml_assets.lifecycle.reproduce import reproduce

        settings = read_settings()
        platform, usecase = platform_of(settings), usecase_of(settings, use_case)
        made = reproduce(
            platform.lake, platform.registry, usecase, version, code_version=platform.code_with(usecase),
            threads=settings.threads,
        )  # fmt: skip
        table = Table("what", "on record", "made again", "same", title=f"{use_case} version {version}, made again")
        for compared in made.comparisons:
            table.add_row(
                compared.what, compared.recorded, compared.made_again, "yes" if compared.same else Text("no", "red")
            )
        console.print(table)
        if made.code != made.code_now:
            console.print(f"It was trained by commit {made.code or 'unknown'}; this is {made.code_now or 'unknown'}.")
        if not made.same:
            raise StateError(f"version {version} did not come out the same; see above")
        console.print("The same model.")

    @app.command("backtest")
    def backtest_version(
        use_case: UseCaseName,
        first: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="first decision date")],
        last: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="last decision date")],
        version: Annotated[
            int | None, typer.Option(min=1, help="version of the model; the champion if not given")
        ] = None,
    ) -> None:
        """Test a saved model, unchanged, on later days of known outcome: by month, against the rule trained with it."""
        from ml_assets.cli.printed import print_months
        from ml_assets.lifecycle.backtest import backtest

        settings = read_settings()
        platform, usecase = platform_of(settings), usecase_of(settings, use_case)
        tried = backtest(
            platform.lake, platform.registry, platform.engine, usecase, first.date(), last.date(), version=version,
            threads=settings.threads,
        )  # fmt: skip
        title = f"{use_case} version {tried.version}, trained on what was known by {tried.trained_until:%Y-%m-%d}"
        print_months(usecase, tried.window, tried.model, tried.rule, title, console)
