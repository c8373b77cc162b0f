"""The commands of `ml-assets dead-letters`: list, show, replay."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli.opened import Topic, event_of, events_of, lake_of, read_settings, records_of

_SHOWN_BYTES = 2_000


def add_dead_letters_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""
    letters = typer.Typer(help="Messages that broke their contract: look at them, mend, replay.", no_args_is_help=True)
    app.add_typer(letters, name="dead-letters")

    @letters.command("list")
    def list_letters() -> None:
        """Count the dead letters that wait, by topic and reason."""
        from ml_assets.lake.counts import counts_by, most_frequent
        from ml_assets.landing.dead_letters import waiting_dead_letters

        settings = read_settings()
        table = Table("topic", "reason", "letters", "first", "last")
        for event in events_of(settings).values():
            waiting = waiting_dead_letters(lake_of(settings), event)
            times = waiting.group_by("reason").aggregate([("known_at", "min"), ("known_at", "max")]).to_pylist()
            between = {row["reason"]: (row["known_at_min"], row["known_at_max"]) for row in times}
            for reason, number in most_frequent(counts_by(waiting, "reason")).items():
                first, last = between.get(reason, (None, None))  # of the sum of all others nobody asks
                shown = (f"{time:%F %T}" if time else "" for time in (first, last))
                table.add_row(event.topic, reason, f"{number:,}", *shown)
        console.print(table if table.row_count else "no dead letters wait")

    @letters.command("show")
    def show_letters(
        topic: Topic,
        limit: Annotated[int, typer.Option(min=1, help="letters to show, the newest")] = 10,
    ) -> None:
        """Show dead letters of a topic: their coordinates, the reason, and their bytes."""
        from ml_assets.landing.dead_letters import waiting_dead_letters

        settings = read_settings()
        waiting = waiting_dead_letters(lake_of(settings), event_of(settings, topic))
        for row in waiting.slice(max(0, waiting.num_rows - limit)).to_pylist():
            value = (row["value"] or b"")[:_SHOWN_BYTES]
            console.print(
                Text.assemble(
                    (f"{topic}/{row['kafka_partition']}@{row['kafka_offset']}", "bold"),
                    f" {row['known_at']:%F %T} ",
                    (row["reason"], "red"),
                )
            )
            console.print(value.decode("utf-8", "backslashreplace"), markup=False, highlight=False)
        console.print(f"{waiting.num_rows:,} dead letters of {topic} wait")

    @letters.command("replay")
    def replay_letters(topic: Topic) -> None:
        """Land the dead letters of a topic that its contract now accepts, each once."""
        from ml_assets.landing.dead_letters import replay

        settings = read_settings()
        report = replay(lake_of(settings), event_of(settings, topic), records=records_of(settings))
        console.print(f"{report.landed:,} dead letters of {topic} have landed")
        for reason, number in report.refused.items():
            console.print(Text.assemble((f"{number:,} still refused: ", "yellow"), reason))
        if report.dates:
            dates = ", ".join(map(str, report.dates))
            console.print(f"their dates are made again by the sensor, or by `ml-assets ingest`: {dates}")
