"""The commands of `ml-assets` about landing: land, dead-letters, accounting, accept-loss, maintain."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ml_assets.settings import Settings

if TYPE_CHECKING:
    from ml_assets.lake import Lake
    from ml_assets.landing.decode import Records
    from ml_assets.landing.lander import Lander
    from ml_assets.landing.metrics import Health, LanderMetrics
    from ml_assets.spec import EventSpec

Topic = Annotated[str, typer.Argument(help="name of a topic; `ml-assets accounting` lists them")]
_SHOWN_BYTES = 2_000


def add_landing_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""
    letters = typer.Typer(help="Messages that broke their contract: look at them, mend, replay.", no_args_is_help=True)
    app.add_typer(letters, name="dead-letters")

    @app.command()
    def land(
        follow: Annotated[bool, typer.Option(help="go on landing what comes, until Ctrl-C or SIGTERM")] = False,
        replay: Annotated[bool, typer.Option(help="known_at is the broker's time: for history that is played")] = False,
        connect: Annotated[bool, typer.Option(help="land what Kafka Connect has written to ML_ASSETS_CONNECT_ROOT")] = (
            False
        ),
    ) -> None:
        """Land what the broker holds in the lake, each message once."""
        settings = Settings()
        if replay:
            settings = settings.model_copy(update={"landing_clock": "replay"})
        if connect:
            _land_objects(settings, console)
        elif follow:
            _follow(settings, console)
        else:
            _land_once(settings, console)

    @letters.command("list")
    def list_letters() -> None:
        """Count the dead letters that wait, by topic and reason."""
        from ml_assets.lake.counts import counts_by
        from ml_assets.landing.dead_letters import waiting_dead_letters

        settings = Settings()
        table = Table("topic", "reason", "letters", "first", "last")
        for event in _events(settings).values():
            waiting = waiting_dead_letters(_lake(settings), event)
            for reason, number in counts_by(waiting, "reason").items():
                times = [row["known_at"] for row in waiting.to_pylist() if row["reason"] == reason]
                table.add_row(event.topic, reason, f"{number:,}", f"{min(times):%F %T}", f"{max(times):%F %T}")
        console.print(table if table.row_count else "no dead letters wait")

    @letters.command("show")
    def show_letters(
        topic: Topic,
        limit: Annotated[int, typer.Option(min=1, help="letters to show, the newest")] = 10,
    ) -> None:
        """Show dead letters of a topic: where they stood, why, and their bytes."""
        from ml_assets.landing.dead_letters import waiting_dead_letters

        settings = Settings()
        waiting = waiting_dead_letters(_lake(settings), _event(settings, topic))
        for row in waiting.slice(max(0, waiting.num_rows - limit)).to_pylist():
            value = (row["value"] or b"")[:_SHOWN_BYTES]
            console.print(
                f"[bold]{topic}/{row['kafka_partition']}@{row['kafka_offset']}[/] {row['broker_time']:%F %T} "
                f"[red]{row['reason']}[/]"
            )
            console.print(value.decode("utf-8", "backslashreplace"), markup=False, highlight=False)
        console.print(f"{waiting.num_rows:,} dead letters of {topic} wait")

    @letters.command("replay")
    def replay_letters(topic: Topic) -> None:
        """Land the dead letters of a topic that its contract now accepts, each once."""
        from ml_assets.landing.dead_letters import replay

        settings = Settings()
        report = replay(_lake(settings), _event(settings, topic), records=_records(settings))
        console.print(f"{report.landed:,} dead letters of {topic} have landed")
        for reason, number in report.refused.items():
            console.print(f"[yellow]{number:,} still refused:[/] {reason}", highlight=False)
        if report.dates:
            dates = ", ".join(map(str, report.dates))
            console.print(f"their dates are made again by the sensor, or by `ml-assets ingest`: {dates}")

    @app.command()
    def accounting() -> None:
        """Show for each topic whether every consumed message is in the lake, once."""
        from ml_assets.landing.accounting import account

        settings = Settings()
        table = Table(
            "topic", "partition", "consumed to", "landed", "dead letters", "replayed", "gaps", "lost", "right"
        )
        wrong = []
        for event in _events(settings).values():
            for part in account(_lake(settings), event, threads=settings.threads):
                if not part.is_right:
                    wrong.append(
                        f"{event.topic}/{part.partition}: {part.missing} missing, {part.doubled} doubled, "
                        f"{part.beyond} beyond the position"
                    )
                numbers = (part.position, part.landed, part.dead_lettered, part.replayed, part.gaps, part.lost)
                table.add_row(
                    event.topic, f"{part.partition}", *(f"{n:,}" for n in numbers),
                    "yes" if part.is_right else "[red]no[/]",
                )  # fmt: skip
        console.print(table if table.row_count else "nothing has landed yet")
        if wrong:
            raise RuntimeError(f"the account does not balance: {'; '.join(wrong)}")

    @app.command("accept-loss")
    def accept_loss_command(
        topic: Topic,
        partition: Annotated[int, typer.Argument(min=0, help="partition whose messages the broker has deleted")],
        reason: Annotated[str, typer.Option(help="who accepts it and why; it is kept in the landing table")],
    ) -> None:
        """Give up messages that the broker deleted before they were landed, so that landing goes on behind them."""
        from ml_assets.embedded.environment import kafka_connection
        from ml_assets.landing.accounting import accept_loss

        settings = Settings()
        event = _event(settings, topic)
        cluster = kafka_connection(settings).admin()
        known = cluster.topics([topic]).get(topic)
        if known is None or partition not in known.partitions:
            raise LookupError(f"the broker has no partition {partition} of topic {topic}")
        low = cluster.low(topic, partition)
        first, until = accept_loss(_lake(settings), event, known.epoch, partition, low, reason)
        console.print(f"{topic}/{partition}: offsets {first} to {until - 1} are given up; landing goes on at {until}")

    @app.command()
    def maintain(
        keep_hours: Annotated[int, typer.Option(min=0, help="versions younger than so many hours stay readable")] = 168,
    ) -> None:
        """Compact small files of the lake, and remove old versions that nothing is pinned to."""
        from ml_assets.lifecycle.maintenance import maintain_lake
        from ml_assets.resources import Platform
        from ml_assets.usecases import discover

        settings = Settings()
        platform = Platform(home=str(settings.home_path))
        usecases = discover(settings.usecase_packages)
        table = Table("table", "files before", "files after", "removed files", "pinned versions")
        for report in maintain_lake(platform.lake, platform.registry, platform.engine, usecases, keep_hours=keep_hours):
            numbers = (report.files_before, report.files_after, report.removed_files, len(report.pinned))
            table.add_row(report.table, *(f"{n:,}" for n in numbers))
        platform.close()
        console.print(table)


def _land_once(settings: Settings, console: Console) -> None:
    lander = _lander(settings)
    with console.status("landing") as status:
        landed = 0

        def show(messages: int) -> None:
            nonlocal landed
            landed += messages
            status.update(f"{landed:,} messages landed")

        reports = lander.land_available(show)
    _print_reports(reports, console, "the broker has none of the topics yet")


def _land_objects(settings: Settings, console: Console) -> None:
    from ml_assets.landing.connect import land_objects

    if not settings.connect_root:
        raise ValueError("ML_ASSETS_CONNECT_ROOT is not set: it names the folder that Kafka Connect's sink writes to")
    events = list(_events(settings).values())
    with console.status("landing objects"):
        reports = land_objects(
            _lake(settings), events, settings.connect_root, clock=settings.landing_clock, records=_records(settings)
        )
    _print_reports(reports, console, f"there are no objects of the topics below {settings.connect_root}")


def _print_reports(reports: list[Any], console: Console, nothing: str) -> None:
    table = Table("topic", *(["consumed", "landed", "dead letters", "seconds"]))
    for report in reports:
        table.add_row(
            report.topic, f"{report.consumed:,}", f"{report.landed:,}", f"{report.dead_lettered:,}",
            f"{report.seconds:.1f}",
        )  # fmt: skip
    console.print(table if reports else nothing)


def _follow(settings: Settings, console: Console) -> None:
    """Run the lander as a service: metrics and probes on a port, a clean end on SIGTERM."""
    from ml_assets.landing.metrics import Health, LanderMetrics, serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    metrics, health, stop = LanderMetrics(), Health(), threading.Event()
    lander = _lander(settings, metrics, health)
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    server = serve(metrics, health, settings.metrics_port) if settings.metrics_port else None
    console.print(
        "landing; Ctrl-C ends it"
        + (f"; http://localhost:{settings.metrics_port}/metrics, /live and /ready" if server else "")
    )
    lander.run(stop)
    console.print("ended; what was in memory is committed")


def _lander(settings: Settings, metrics: LanderMetrics | None = None, health: Health | None = None) -> Lander:
    from ml_assets.embedded.environment import kafka_connection
    from ml_assets.landing.lander import FlushLimits, Lander

    return Lander(
        _lake(settings),
        list(_events(settings).values()),
        kafka_connection(settings),
        clock=settings.landing_clock,
        limits=FlushLimits(
            settings.landing_flush_rows, settings.landing_flush_mib << 20, settings.landing_flush_seconds
        ),
        # The embedded broker takes 20 s to let a lander into a group, and serves one machine.
        assignment=settings.landing_assignment if settings.kafka_bootstrap else "all",
        records=_records(settings),
        metrics=metrics,
        health=health,
    )


def _records(settings: Settings) -> Records | None:
    if not settings.schema_registry_url:
        return None
    from ml_assets.landing.avro import RegistryRecords

    return RegistryRecords(settings.schema_registry_url)


def _lake(settings: Settings) -> Lake:
    from ml_assets.resources import Platform

    return Platform(home=str(settings.home_path)).lake


def _events(settings: Settings) -> dict[str, EventSpec]:
    from ml_assets.usecases import discover

    return {event.topic: event for usecase in discover(settings.usecase_packages) for event in usecase.events}


def _event(settings: Settings, topic: str) -> EventSpec:
    events = _events(settings)
    if topic not in events:
        raise LookupError(f"no use case reads the topic {topic!r}; the topics are {', '.join(sorted(events))}")
    return events[topic]
