"""The commands of `ml-assets` about the databases: prepare, migrate, roles-sql, stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ml_assets.cli.opened import platform_of, read_settings, usecases_of

if TYPE_CHECKING:
    pass


def add_databases_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command()
    def prepare() -> None:
        """Make or migrate the tables of MLflow and of the application."""
        platform = platform_of(read_settings())
        platform.registry.prepare()
        assert platform.engine  # noqa: S101 - opening it migrates it
        platform.close()

    @app.command("migrate")
    def migrate_database() -> None:
        """Migrate the application's database, grant the roles their rights, declare the tiers: the migration Job."""
        from ml_assets.database.migrate import migrate
        from ml_assets.database.promotions import declare_tiers
        from ml_assets.local.embedded.environment import database_url

        settings = read_settings()
        url = database_url(settings)
        changed = migrate(url)
        declare_tiers(url, {usecase.name: usecase.tier for usecase in usecases_of(settings)})
        console.print("the database has been migrated" if changed else "the database is up to date")

    @app.command("roles-sql")
    def roles_sql(
        database: Annotated[str, typer.Option(help="name of the application's database")] = "ml_assets",
    ) -> None:
        """Print the SQL with which an administrator makes the database's roles, once."""
        from ml_assets.database.roles import create_roles_sql

        typer.echo(create_roles_sql(database), nl=False)

    @app.command()
    def stop() -> None:
        """Stop the embedded servers that other commands have left running."""
        from ml_assets.local.embedded.environment import stop_servers

        settings = read_settings()
        stop_servers(settings)
        typer.echo(f"no embedded server of {settings.home_path} runs")
