"""What `ml-assets accounting` shows about curation: how many landed events are where, by use case."""

from collections.abc import Iterable
from dataclasses import astuple
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.lake import Lake
from ml_assets.spec import UseCase


def show_curation(console: Console, lake: Lake, usecases: Iterable[UseCase], *, threads: int = 0) -> list[str]:
    """Print the account of curation, and return the errors: events that are in no table after a day."""
    from ml_assets.landing.curation_account import account_of_curation, totals

    now = datetime.now(UTC)
    table = Table("use case", "event", "landed", "curated", "quarantined", "copies", "not yet", "too early", "right")
    wrong = []
    for usecase in usecases:
        for event in usecase.events:
            dates = account_of_curation(lake, usecase, event, threads=threads)
            bad = [one for one in dates if not one.is_right(now)]
            wrong += [
                f"{usecase.name}/{event.name} {one.business_date}: {one.unaccounted} events in no table; "
                "`ml-assets ingest` of that date makes them, if it is a partition"
                for one in bad
            ]
            if dates:
                right = Text("no", "red") if bad else "yes"
                table.add_row(usecase.name, event.name, *(f"{n:,}" for n in astuple(totals(dates))), right)
    if table.row_count:
        console.print(table)
    return wrong
