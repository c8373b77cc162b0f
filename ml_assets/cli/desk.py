"""`ml-assets desk`: the pages on which analysts work the list."""

from __future__ import annotations

import contextlib
import getpass
from datetime import UTC
from typing import Annotated

import typer
from rich.console import Console

from ml_assets.cli.opened import AsOf, platform_of, read_settings, usecases_of
from ml_assets.cli.serve import engine_of
from ml_assets.links import DESK_PORT


def add_desk(app: typer.Typer, console: Console) -> None:
    """Add the command to an app; what it says goes to the console."""

    @app.command()
    def desk(
        host: Annotated[
            str, typer.Option(help="address to listen on; without a login proxy this machine's own only")
        ] = ("127.0.0.1"),
        port: Annotated[int, typer.Option(help="port")] = DESK_PORT,
        as_of: AsOf = None,
    ) -> None:
        """Open the desk: the work-lists, what analysts say about them, and their lead's page, until Ctrl-C."""
        settings = read_settings()
        from ml_assets.desk.app import Desk, build_app
        from ml_assets.desk.people import Forms, door_of, secret_of
        from ml_assets.desk.sending import Sending
        from ml_assets.local.embedded.environment import running_kafka
        from ml_assets.serving.clock import clock_of
        from ml_assets.serving.drain import DrainingServer

        door = door_of(settings, host, settings.actor or getpass.getuser())
        platform, usecases = platform_of(settings), usecases_of(settings)
        clock = clock_of(platform.lake, usecases, as_of.replace(tzinfo=UTC) if as_of else None)
        engine_of(platform)  # the embedded server is set up before requests come, in threads, at the same time
        made = Desk(platform, usecases, clock=clock, door=door, forms=Forms(secret_of(settings)))
        who = "logins of the proxy" if settings.desk_proxy else "this machine's login"
        console.print(f"Desk: http://{host}:{port}, as of {clock():%Y-%m-%d %H:%M} UTC; {who}", highlight=False)
        server = DrainingServer(
            build_app(made), drain_seconds=settings.serving_drain_seconds, host=host, port=port, loop="uvloop",
            access_log=False, log_level="warning", timeout_graceful_shutdown=20, server_header=False,
            # Who asks is told by the proxy that speaks to us; an address in a header is none.
            proxy_headers=False,
        )  # fmt: skip
        sending = Sending(platform, usecases, lambda: running_kafka(settings))
        sending.start()
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
        sending.stop()
        if not server.started:
            raise typer.Exit(3)  # uvicorn has said why
