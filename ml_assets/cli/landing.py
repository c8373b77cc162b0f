"""The commands of `ml-assets` that land: land, land-anew."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli.opened import events_of, lake_of, read_settings, records_of, usecase_of, usecases_of
from ml_assets.errors import InputError, StateError

if TYPE_CHECKING:
    from ml_assets.landing.lander import Lander
    from ml_assets.landing.metrics import Health, LanderMetrics
    from ml_assets.landing.partitions import Assignment
    from ml_assets.landing.session import TopicReport
    from ml_assets.settings import Settings
    from ml_assets.spec import EventSpec


def add_landing_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command()
    def land(
        follow: Annotated[bool, typer.Option(help="go on landing what comes, until Ctrl-C or SIGTERM")] = False,
        replay: Annotated[bool, typer.Option(help="known_at is the broker's time: for history that is played")] = False,
        connect: Annotated[bool, typer.Option(help="land what Kafka Connect has written to ML_ASSETS_CONNECT_ROOT")] = (
            False
        ),
    ) -> None:
        """Land what the broker holds in the lake, each message once."""
        settings = read_settings()
        if replay:
            settings = settings.model_copy(update={"landing_clock": "replay"})
        if connect:
            _land_objects(settings, console)
        elif follow:
            _follow(settings, console)
        else:
            _land_once(settings, console)

    @app.command("land-anew")
    def land_anew(
        use_case: Annotated[str, typer.Argument(help="name of a use case; all its topics are landed anew")],
        replay: Annotated[bool, typer.Option(help="known_at is the broker's time: for history that is played")] = False,
        drop_earlier: Annotated[
            bool, typer.Option("--drop-earlier", help="drop what landed before a topic was made anew on the broker")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    ) -> None:
        """Remove what has landed of a use case from the lake, and land its topics again from their start."""
        settings = read_settings()
        if replay:
            settings = settings.model_copy(update={"landing_clock": "replay"})
        _land_anew(settings, console, use_case, drop_earlier=drop_earlier, ask=not yes)


def _land_once(settings: Settings, console: Console, events: list[EventSpec] | None = None) -> list[TopicReport]:
    lander = _lander(settings, events=events)
    with console.status("landing") as status:
        landed = 0

        def show(messages: int) -> None:
            nonlocal landed
            landed += messages
            status.update(f"{landed:,} messages landed")

        reports = lander.land_available(show)
    _print_reports(reports, console, "the broker has none of the topics yet")
    if settings.landing_clock == "live" and any(report.landed for report in reports):
        _warn_of_late(settings, console)
    return reports


def _warn_of_late(settings: Settings, console: Console) -> None:
    from ml_assets.landing.anew import known_too_late

    for usecase in usecases_of(settings):
        if late := known_too_late(lake_of(settings), usecase):
            console.print(Text(late, "yellow"))


def _land_anew(settings: Settings, console: Console, name: str, *, drop_earlier: bool, ask: bool) -> None:
    from ml_assets.landing.anew import dates_landed, plan_anew, take_out
    from ml_assets.landing.partitions import GROUP
    from ml_assets.local.embedded.environment import kafka_connection

    usecase, lake = usecase_of(settings, name), lake_of(settings)
    cluster = kafka_connection(settings).admin()
    if _assignment(settings) == "group" and (readers := cluster.readers(GROUP)):
        raise StateError(
            f"{len(readers)} lander(s) run, and would land the topics anew on their own clock: end them first"
        )
    plans = plan_anew(lake, cluster, usecase, drop_earlier=drop_earlier)
    table = Table("topic", "messages to land anew", "dropped, of an earlier life of the topic")
    for plan in plans:
        table.add_row(plan.topic, f"{plan.landed:,}", f"{plan.earlier:,}")
    console.print(table)
    topics = {plan.topic for plan in plans}
    for other in usecases_of(settings):
        if other.name != name and (shared := topics & {event.topic for event in other.events}):
            console.print(f"{other.name} reads {', '.join(sorted(shared))} too: its dates are to be made again as well")
    if ask:
        typer.confirm("Has every `ml-assets land --follow` been ended, and shall this be landed anew?", abort=True)
    take_out(lake, plans)
    reports = _land_once(settings, console, list({event.topic: event for event in usecase.events}.values()))
    consumed, landed = sum(report.consumed for report in reports), sum(plan.landed for plan in plans)
    if consumed < landed:
        raise StateError(
            f"only {consumed:,} of {landed:,} messages were landed here, the others by a lander that runs, on its own "
            "clock: end it, then start this again"
        )
    if days := dates_landed(lake, usecase.events):
        console.print(
            "what was made of the earlier landing stays until it is made again: "
            f"`ml-assets ingest {name} --from {days[0]} --to {days[1]}`"
        )


def _land_objects(settings: Settings, console: Console) -> None:
    from ml_assets.landing.connect import land_objects

    if not settings.connect_root:
        raise InputError("ML_ASSETS_CONNECT_ROOT is not set: it names the folder that Kafka Connect's sink writes to")
    events = list(events_of(settings).values())
    with console.status("landing objects"):
        reports = land_objects(
            lake_of(settings), events, settings.connect_root, clock=settings.landing_clock, records=records_of(settings)
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
    from ml_assets.landing.metrics import Health, LanderMetrics
    from ml_assets.probes import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    metrics, health, stop = LanderMetrics(), Health(), threading.Event()
    lander = _lander(settings, metrics, health)
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    server = serve(metrics.registry, health, settings.metrics_port) if settings.metrics_port else None
    console.print(
        "landing; Ctrl-C ends it"
        + (f"; http://localhost:{settings.metrics_port}/metrics, /live and /ready" if server else "")
    )
    lander.run(stop)
    console.print("ended; what was in memory is committed")


def _lander(
    settings: Settings,
    metrics: LanderMetrics | None = None,
    health: Health | None = None,
    *,
    events: list[EventSpec] | None = None,
) -> Lander:
    from ml_assets.landing.lander import Lander
    from ml_assets.landing.session import FlushLimits
    from ml_assets.local.embedded.environment import kafka_connection

    return Lander(
        lake_of(settings),
        events or list(events_of(settings).values()),
        kafka_connection(settings),
        clock=settings.landing_clock,
        limits=FlushLimits(
            settings.landing_flush_rows, settings.landing_flush_mib << 20, settings.landing_flush_seconds
        ),
        assignment=_assignment(settings),
        records=records_of(settings),
        metrics=metrics,
        health=health,
    )


def _assignment(settings: Settings) -> Assignment:
    # The embedded broker takes 20 s to let a lander into a group, and serves one machine.
    return settings.landing_assignment if settings.kafka_bootstrap else "all"
