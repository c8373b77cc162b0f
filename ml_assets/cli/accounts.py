"""The commands of `ml-assets` that keep the lake in order: accounting, accept-loss, maintain."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli.opened import Topic, event_of, events_of, lake_of, platform_of, read_settings, usecases_of
from ml_assets.errors import NotFoundError, StateError


def add_accounts_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command()
    def accounting() -> None:
        """Show for each topic whether every consumed message is in the lake, once, and what curation made of it."""
        from ml_assets.cli.curation import show_curation
        from ml_assets.landing.accounting import account

        settings = read_settings()
        table = Table(
            "topic", "partition", "consumed to", "landed", "dead letters", "replayed", "gaps", "lost", "right"
        )
        wrong = []
        for event in events_of(settings).values():
            for part in account(lake_of(settings), event, threads=settings.threads):
                if not part.is_right:
                    wrong.append(
                        f"{event.topic}/{part.partition}: {part.missing} missing, {part.doubled} doubled, "
                        f"{part.beyond} beyond the position"
                    )
                numbers = (part.position, part.landed, part.dead_lettered, part.replayed, part.gaps, part.lost)
                table.add_row(
                    event.topic, f"{part.partition}", *(f"{n:,}" for n in numbers),
                    "yes" if part.is_right else Text("no", "red"),
                )  # fmt: skip
        console.print(table if table.row_count else "nothing has landed yet")
        wrong += show_curation(console, lake_of(settings), usecases_of(settings), threads=settings.threads)
        if wrong:
            raise StateError(f"the account does not balance: {'; '.join(wrong)}")

    @app.command("accept-loss")
    def accept_loss_command(
        topic: Topic,
        partition: Annotated[int, typer.Argument(min=0, help="partition whose messages the broker has deleted")],
        reason: Annotated[str, typer.Option(help="who accepts it and why; it is kept in the landing table")],
    ) -> None:
        """Give up messages that the broker deleted before they landed, so that landing continues after them."""
        from ml_assets.landing.accounting import accept_loss
        from ml_assets.local.embedded.environment import kafka_connection

        settings = read_settings()
        event = event_of(settings, topic)
        cluster = kafka_connection(settings).admin()
        known = cluster.topics([topic]).get(topic)
        if known is None or partition not in known.partitions:
            raise NotFoundError(f"the broker has no partition {partition} of topic {topic}")
        low = cluster.low(topic, partition)
        first, until = accept_loss(lake_of(settings), event, known.epoch, partition, low, reason)
        console.print(f"{topic}/{partition}: offsets {first} to {until - 1} are given up; landing goes on at {until}")

    @app.command()
    def maintain(
        keep_hours: Annotated[int, typer.Option(min=0, help="hours for which old versions stay readable")] = 168,
    ) -> None:
        """Compact small files of the lake, and remove old versions that are not pinned."""
        from ml_assets.lifecycle.maintenance import maintain_lake

        settings = read_settings()
        platform = platform_of(settings)
        usecases = usecases_of(settings)
        table = Table("table", "files before", "files after", "removed files", "pinned versions")
        for report in maintain_lake(platform.lake, platform.registry, platform.engine, usecases, keep_hours=keep_hours):
            numbers = (report.files_before, report.files_after, report.removed_files, len(report.pinned))
            table.add_row(report.table, *(f"{n:,}" for n in numbers))
        platform.close()
        console.print(table)
