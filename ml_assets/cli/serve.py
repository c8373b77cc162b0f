"""`ml-assets serve`: the scoring service."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ml_assets.cli.opened import AsOf, platform_of, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from ml_assets.platform import Platform
    from ml_assets.serving.app import Metrics
    from ml_assets.serving.recorder import Recorder
    from ml_assets.settings import Settings

PORT = 8000


def add_serve(app: typer.Typer, console: Console) -> None:
    """Add the command to an app; what it says goes to the console."""

    @app.command()
    def serve(
        host: Annotated[str, typer.Option(help="address to listen on; without tokens this machine's own only")] = (
            "127.0.0.1"
        ),
        port: Annotated[int, typer.Option(help="port")] = PORT,
        as_of: AsOf = None,
    ) -> None:
        """Answer for scores over HTTP: the features of all open decisions live in memory, until Ctrl-C."""
        settings = read_settings()
        from ml_assets.serving.auth import authoriser_of, tls_options

        authoriser, tls = authoriser_of(settings, host), tls_options(settings)
        platform = platform_of(settings)
        import structlog

        from ml_assets.serving.app import Metrics, build_app
        from ml_assets.serving.around import AnswerRecorder, ChangesTold, ShadowTold, bearer
        from ml_assets.serving.clock import clock_of
        from ml_assets.serving.drain import DrainingServer
        from ml_assets.serving.limits import RateLimit, answer_first
        from ml_assets.serving.losses import LossesTold
        from ml_assets.serving.models import fetch_beside
        from ml_assets.serving.parts import let_in
        from ml_assets.serving.scoring import Scoring
        from ml_assets.serving.traces import traces_to
        from ml_assets.usecases import discover

        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(20),
        )
        usecases = discover(settings.usecase_packages)
        fixed = as_of.replace(tzinfo=UTC) if as_of else None
        clock: Callable[[], datetime] = clock_of(platform.lake, usecases, fixed)
        metrics = Metrics()
        recorder = _recorder(settings, metrics)
        tell_losses = LossesTold(recorder, engine_of(platform)) if recorder else None
        scoring = Scoring(
            platform.lake, engine_of(platform), usecases, fetch_beside(settings), clock=clock,
            threads=settings.threads or 1,
            tell=ChangesTold(recorder, least_change=settings.serving_least_change) if recorder else None,
            tell_shadow=ShadowTold(recorder) if recorder else None,
            tell_losses=tell_losses,
        )  # fmt: skip
        console.print(
            f"Scoring: http{'s' if tls else ''}://{host}:{port}, as of {clock():%Y-%m-%d %H:%M} UTC; "
            f"{'tokens of ' + settings.serving_issuer if authoriser else 'no tokens'}; "
            f"{'answers and changes go to Kafka' if recorder else 'no broker runs: answers are not recorded'}"
            f"{f'; traces go to {settings.serving_traces}' if settings.serving_traces else ''}",
            highlight=False,
        )
        traces = traces_to(settings.serving_traces) if settings.serving_traces else None
        app = build_app(
            scoring,
            recorder=AnswerRecorder(recorder) if recorder else None,
            authorise=bearer(authoriser) if authoriser else let_in,
            metrics=metrics,
            rate=RateLimit(settings.serving_rate),
            traces=traces,
        )
        server = DrainingServer(
            app, drain_seconds=settings.serving_drain_seconds, host=host, port=port, loop="uvloop",
            access_log=False, log_level="warning", timeout_graceful_shutdown=20, server_header=False, **tls,
        )  # fmt: skip
        answer_first()
        try:
            server.run()
        except KeyboardInterrupt:
            pass
        finally:
            if recorder:
                recorder.close()
            if traces:
                traces.shutdown()
            if tell_losses:
                tell_losses()
        if not server.started:
            raise typer.Exit(3)  # uvicorn has said why


def engine_of(platform: Platform) -> Callable[[], Engine]:
    """Return what opens the database.

    The embedded one is opened now: the first time it is set up, which takes seconds, and the threads that watch over
    models would be at it together. A server that does not answer is waited for by those threads.
    """
    if not platform.settings.postgres_url.get_secret_value():
        engine = platform.engine
        return lambda: engine
    return lambda: platform.engine


def _recorder(settings: Settings, metrics: Metrics) -> Recorder | None:
    """Return the recorder of answers, started; None if no broker is configured and the embedded one does not run."""
    from ml_assets.local.embedded.environment import running_kafka
    from ml_assets.serving.recorder import Recorder, RecorderMetrics

    if (kafka := running_kafka(settings)) is None:
        return None
    embedded = not settings.kafka_bootstrap
    made = Recorder(
        kafka,
        capacity=settings.serving_record_capacity,
        counts=settings.home_path / "serving" / "waiting",
        make_topics=embedded,
        idempotent=not embedded,
        metrics=RecorderMetrics(metrics.registry),
    )
    made.start()
    return made
