"""The commands of `ml-assets` about backups: backup, backups, restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli.opened import read_settings
from ml_assets.errors import StateError

if TYPE_CHECKING:
    from ml_assets.backup import Places
    from ml_assets.settings import Settings

Where = Annotated[str, typer.Argument(help="folder or s3:// prefix of the backups")]
# MLflow's server keeps its users in a database of its own, if it asks for a password.
_DATABASES = ("ml_assets", "mlflow", "mlflow_auth", "dagster")


def add_backup_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command("backup")
    def make_backup(
        where: Where,
        keep: Annotated[int, typer.Option(min=0, help="backups that stay, the newest; 0: all")] = 0,
    ) -> None:
        """Back up databases, lake, artifacts and reference files, while everything runs."""
        from ml_assets.backup import backup
        from ml_assets.code_version import code_version
        from ml_assets.usecases import discover

        settings = read_settings()
        names = [usecase.name for usecase in discover(settings.usecase_packages)]
        with console.status("backing up"):
            made = backup(_places(settings), where, names, code=code_version(settings.code_version), keep=keep)
        console.print(
            f"backup {made.name}: {len(made.databases)} databases, {len(made.tables)} tables of {len(made.files):,} "
            f"files, {len(made.objects):,} other objects"
        )

    @app.command("backups")
    def list_backups(where: Where) -> None:
        """List the backups, the newest first, and what is missing of each."""
        from ml_assets.backup import backups
        from ml_assets.object_store import use_object_stores

        use_object_stores(read_settings())
        table = Table("backup", "databases", "tables", "files", "MiB", "complete", title=f"backups in {where}")
        broken = []
        for made, missing in backups(where):
            size = sum([*made.objects.values(), *made.files.values(), *(d.size for d in made.databases.values())])
            table.add_row(
                made.name, ", ".join(made.databases), f"{len(made.tables)}", f"{len(made.files):,}",
                f"{size / 2**20:,.0f}", Text(f"lacks {missing[0]}", "red") if missing else "yes",
            )  # fmt: skip
            broken += [made.name] if missing else []
        console.print(table if table.row_count else f"there are no backups in {where}")
        if broken:
            raise StateError(f"not complete: {', '.join(broken)}")

    @app.command("restore")
    def restore_backup(
        where: Where, name: Annotated[str, typer.Option(help="which; the newest if not given")] = ""
    ) -> None:
        """Restore a backup into empty databases and folders; the roles of the databases must exist."""
        from ml_assets.backup import restore

        settings = read_settings()
        with console.status("restoring"):
            made = restore(_places(settings), where, name)
        console.print(f"backup {made.name} is restored: {', '.join(made.databases)}; {len(made.tables)} tables")


def _places(settings: Settings) -> Places:
    from ml_assets.backup import Places
    from ml_assets.lake import Lake
    from ml_assets.local.embedded.environment import database_url
    from ml_assets.local.embedded.postgres import client_programs
    from ml_assets.object_store import lake_options, use_object_stores

    use_object_stores(settings)
    return Places(
        databases={name: database_url(settings, name) for name in _DATABASES},
        lake=Lake(settings.lake_uri, lake_options(settings)),
        artifacts=settings.artifact_uri,
        reference=settings.reference_uri,
        programs=None if settings.postgres_url.get_secret_value() else client_programs(),
    )
