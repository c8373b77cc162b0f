"""`ml-assets ui`: the Dagster UI, the MLflow UI and the desk of a laptop."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ml_assets.cli.opened import read_settings
from ml_assets.links import DAGSTER_PORT, DESK_PORT, MLFLOW_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_assets.settings import Settings


def add_ui(app: typer.Typer, console: Console) -> None:
    """Add the command to an app; what it says goes to the console."""

    @app.command()
    def ui(
        port: Annotated[int, typer.Option(help="port of the Dagster UI")] = DAGSTER_PORT,
        mlflow_port: Annotated[int, typer.Option(help="port of the MLflow UI; 0: none")] = MLFLOW_PORT,
        desk_port: Annotated[int, typer.Option(help="port of the desk; 0: none")] = DESK_PORT,
    ) -> None:
        """Open the Dagster UI with its daemon, the MLflow UI and the desk, on embedded servers, until Ctrl-C."""
        from ml_assets.local.embedded.environment import environment_for, stop_servers
        from ml_assets.local.embedded.foreground import run_until_told

        settings = read_settings()
        _refuse_taken("--port", port)
        _refuse_taken("--mlflow-port", mlflow_port)
        _refuse_taken("--desk-port", desk_port)
        served = settings.mlflow_uri.startswith("http")
        mlflow_ui = settings.links.mlflow if served or not mlflow_port else f"http://localhost:{mlflow_port}"
        environment = {
            **os.environ,
            **environment_for(settings),
            "ML_ASSETS_DAGSTER_UI": settings.dagster_ui or f"http://localhost:{port}",
            "ML_ASSETS_MLFLOW_UI": settings.mlflow_ui or mlflow_ui,
        }
        commands = [[_program("dagster"), "dev", "-m", "ml_assets.definitions", "-p", str(port)]]
        if mlflow_port and not served:
            commands.append(mlflow_command(mlflow_port, settings.artifact_uri))
            environment |= mlflow_environment(settings)
        console.print(f"Dagster UI: http://localhost:{port}", highlight=False)
        if mlflow_ui:
            console.print(f"MLflow UI:  {mlflow_ui}", highlight=False)
        if desk_port:
            commands.append([_program("ml-assets"), "desk", "--port", str(desk_port)])
            console.print(f"Desk:       http://localhost:{desk_port}", highlight=False)
        console.print("They take some seconds to come up; Ctrl-C ends them.")
        try:
            run_until_told(commands, environment)
        finally:
            stop_servers(settings, used_only=True)


def mlflow_command(port: int, artifacts: str) -> list[str]:
    """Return the command of an MLflow server that answers this machine only, and only by these names."""
    names = ",".join(f"{host}:{port}" for host in ("localhost", "127.0.0.1"))
    return [
        _program("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--allowed-hosts", names, "--default-artifact-root", artifacts, "--artifacts-destination", artifacts,
    ]  # fmt: skip


def mlflow_environment(settings: Settings) -> Mapping[str, str]:
    """Return what the MLflow server is told by variables: a list of processes would show the database's password."""
    from ml_assets.local.embedded.environment import database_url

    return {
        "MLFLOW_BACKEND_STORE_URI": settings.mlflow_uri or database_url(settings, "mlflow", "psycopg2"),
        "MLFLOW_ALLOW_MODEL_CODE_EXECUTION": "false",
        # Its job runner is seven more processes, of 170 MB each, for features that nothing here uses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _refuse_taken(option: str, port: int) -> None:
    """Say before anything starts that another program listens on a port; 0 is none.

    Raises:
        OSError: one does.
    """
    with socket.socket() as probe:
        probe.settimeout(1)
        if port and probe.connect_ex(("127.0.0.1", port)) == 0:
            raise OSError(f"port {port} is taken by another program; choose another one with {option}")


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
