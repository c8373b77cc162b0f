"""Dagster resources: the servers and stores that assets use, opened when a run needs them.

Each is a thin, configurable door to a plain object of a pure package; no logic belongs here.
"""

from functools import cached_property
from pathlib import Path

import dagster as dg
from sqlalchemy import Engine

from ml_assets.code_version import code_version
from ml_assets.embedded.environment import database_url
from ml_assets.lake import Lake
from ml_assets.object_store import lake_options, use_s3
from ml_assets.registry import ModelRegistry
from ml_assets.settings import Settings


class Platform(dg.ConfigurableResource):
    """Everything outside the process that assets touch, as the settings of the environment name it."""

    home: str = ""

    @cached_property
    def settings(self) -> Settings:
        """The settings, with this resource's home if it has one."""
        settings = Settings(home=Path(self.home)) if self.home else Settings()
        use_s3(settings)
        return settings

    @cached_property
    def lake(self) -> Lake:
        """The Delta tables."""
        return Lake(self.settings.lake_uri, lake_options(self.settings))

    @cached_property
    def registry(self) -> ModelRegistry:
        """MLflow tracking and registry."""
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
        from ml_assets.database.migrate import migrate, require_newest

        url = database_url(self.settings, "ml_assets", "psycopg")
        (migrate if self.settings.migrate_on_connect else require_newest)(url)
        return connect(url)

    @cached_property
    def code(self) -> str:
        """The git commit of the running code."""
        return code_version(self.settings.code_version)

    def close(self) -> None:
        """Close the connections to the application's database, if any were opened."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's signature
        """Close what a run has opened: each run has a platform of its own."""
        self.close()
