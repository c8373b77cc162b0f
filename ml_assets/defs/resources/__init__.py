"""Dagster resources: the platform, as a resource that a run opens and closes. No logic belongs here."""

from functools import cached_property
from pathlib import Path

import dagster as dg
from sqlalchemy import Engine

from ml_assets import platform
from ml_assets.lake import Lake
from ml_assets.registry import ModelRegistry
from ml_assets.settings import Settings
from ml_assets.spec import UseCase


class Platform(dg.ConfigurableResource):
    """The platform of the settings of the environment, with this resource's home if it has one."""

    home: str = ""

    @cached_property
    def opened(self) -> platform.Platform:
        """The plain platform that this wraps."""
        return platform.open_platform(Settings(home=Path(self.home)) if self.home else Settings())

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.opened.settings

    @property
    def lake(self) -> Lake:
        """The Delta tables."""
        return self.opened.lake

    @property
    def registry(self) -> ModelRegistry:
        """MLflow tracking and registry."""
        return self.opened.registry

    @property
    def engine(self) -> Engine:
        """The application's database; see `ml_assets.platform.Platform.engine`."""
        return self.opened.engine

    @property
    def code(self) -> str:
        """The git commit of the running code."""
        return self.opened.code

    def code_with(self, usecase: UseCase) -> str:
        """The git commit of the running code, and what it does not tell of the use case's folder."""
        return self.opened.code_with(usecase)

    def close(self) -> None:
        """Close the connections to the application's database, if any were opened."""
        self.opened.close()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's signature
        """Close what a run has opened: each run has a platform of its own."""
        self.close()
