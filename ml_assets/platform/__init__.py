"""What the settings name, opened when it is first used: lake, registry, database. It knows no Dagster.

Commands and Dagster's resource share it. Each import is where it is used: a command pays for what it opens.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ml_assets.local.embedded.environment import database_url

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ml_assets.lake import Lake
    from ml_assets.registry import ModelRegistry
    from ml_assets.settings import Settings
    from ml_assets.spec import UseCase

__all__ = ["Platform", "open_platform"]


class Platform:
    """Everything outside the process that the lifecycle touches."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def lake(self) -> Lake:
        """The Delta tables."""
        from ml_assets.lake import Lake
        from ml_assets.object_store import lake_options

        return Lake(self.settings.lake_uri, lake_options(self.settings))

    @cached_property
    def registry(self) -> ModelRegistry:
        """MLflow tracking and registry."""
        from ml_assets.registry import ModelRegistry

        settings = self.settings
        return ModelRegistry(
            settings.mlflow_uri or database_url(settings, "mlflow", "psycopg2"),
            settings.artifact_uri,
            cache=settings.home_path / "models",
            credentials=(settings.mlflow_username, settings.mlflow_password.get_secret_value()),
        )

    @cached_property
    def engine(self) -> Engine:
        """The application's database, at the newest schema.

        Raises:
            RuntimeError: it is at another one, and `migrate_on_connect` is off.
        """
        from ml_assets.database.connect import connect
        from ml_assets.database.newest import is_newest

        engine = connect(database_url(self.settings, "ml_assets", "psycopg"))
        if not is_newest(engine):
            from ml_assets.database.migrate import migrate, require_newest

            (migrate if self.settings.migrate_on_connect else require_newest)(engine)
        return engine

    @cached_property
    def code(self) -> str:
        """The git commit of the running code."""
        from ml_assets.code_version import code_version

        return code_version(self.settings.code_version)

    def code_with(self, usecase: UseCase) -> str:
        """The git commit of the running code, and what it does not tell of the use case's folder."""
        from ml_assets.code_version import code_with

        return code_with(usecase, self.settings.code_version)

    def close(self) -> None:
        """Close the connections to the application's database, if any were opened."""
        if "engine" in self.__dict__:
            self.engine.dispose()


def open_platform(settings: Settings) -> Platform:
    """Return the platform of the settings; nothing is opened yet."""
    from ml_assets.object_store import use_s3

    use_s3(settings)
    return Platform(settings)
