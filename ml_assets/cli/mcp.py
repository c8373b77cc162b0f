"""`ml-assets mcp`: the MCP server, for programs and agents."""

from __future__ import annotations

import contextlib
from typing import Annotated, Literal

import typer
from rich.console import Console

from ml_assets.cli.opened import platform_of, read_settings, usecases_of

PORT = 8100


def add_mcp(app: typer.Typer, console: Console) -> None:
    """Add the command to an app; what it says goes to the console."""

    @app.command()
    def mcp(
        transport: Annotated[
            Literal["stdio", "http"], typer.Option(help="stdio: for the program that starts it; http: for a network")
        ] = "stdio",
        host: Annotated[
            str, typer.Option(help="address to listen on (http); without tokens this machine's own only")
        ] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="port (http)")] = PORT,
    ) -> None:
        """Answer programs and agents by the Model Context Protocol: tools that only read."""
        import anyio

        from ml_assets.mcp_server.server import PATH, build_server, caller, http_app
        from ml_assets.mcp_server.tools import Tools
        from ml_assets.serving.auth import authoriser_of, tls_options
        from ml_assets.serving.drain import DrainingServer

        settings = read_settings()
        authoriser, tls = None, {}
        if transport == "http":
            authoriser, tls = authoriser_of(settings, host), tls_options(settings)
        platform = platform_of(settings)
        reader = platform.reader  # refused now rather than at the first question
        server = build_server(Tools(platform, usecases_of(settings), caller))
        if transport == "stdio":
            anyio.run(server.run_stdio_async)
            return
        console.print(
            f"MCP: http{'s' if tls else ''}://{host}:{port}{PATH}; "
            f"{'tokens of ' + settings.serving_issuer if authoriser else 'no tokens'}",
            highlight=False,
        )
        listening = DrainingServer(
            http_app(server, authoriser, reader), drain_seconds=settings.serving_drain_seconds, host=host, port=port,
            loop="uvloop", access_log=False, log_level="warning", timeout_graceful_shutdown=20, server_header=False,
            **tls,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            listening.run()
        if not listening.started:
            raise typer.Exit(3)  # uvicorn has said why
