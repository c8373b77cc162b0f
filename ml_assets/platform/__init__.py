"""What the settings name, opened when it is first used: lake, registry, database. It knows no Dagster.

Commands and Dagster's resource share it. Each import is where it is used: a command pays for what it opens.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ml_assets.errors import InputError
from ml_assets.local.embedded.environment import database_url

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ml_assets.alerts.routes import Routing
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
    def reader(self) -> Engine:
        """The application's database for who only looks: nothing is migrated, and nothing can be written.

        Raises:
            StateError: it is at another schema than this code's.
        """
        from ml_assets.database.connect import connect_to_read
        from ml_assets.database.newest import is_newest

        engine = connect_to_read(database_url(self.settings, "ml_assets", "psycopg"))
        if not is_newest(engine):
            from ml_assets.database.migrate import require_newest

            try:
                require_newest(engine)
            finally:
                engine.dispose()
        return engine

    @cached_property
    def alert_routing(self) -> Routing:
        """Who is told of which alerts.

        Raises:
            InputError: the file of routes is not there, or is wrong.
        """
        from ml_assets.alerts.routes import NO_ROUTES, read_routing

        if not (name := self.settings.alert_routes):
            return NO_ROUTES
        try:
            text = Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"ML_ASSETS_ALERT_ROUTES: {error.strerror}", where=name) from error
        return read_routing(text, where=name)

    @property
    def alert_secrets(self) -> dict[str, str]:
        """The secrets of sinks, by sink.

        Raises:
            InputError: they are no JSON object of texts.
        """
        try:
            return msgspec.json.decode(self.settings.alert_secrets.get_secret_value(), type=dict[str, str])
        except msgspec.DecodeError:
            raise InputError('ML_ASSETS_ALERT_SECRETS is no JSON object of texts, as {"desk": "..."}') from None

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
        for opened in {"engine", "reader"} & self.__dict__.keys():
            self.__dict__[opened].dispose()


def open_platform(settings: Settings) -> Platform:
    """Return the platform of the settings; nothing is opened yet."""
    from ml_assets.duck import Room, use_duckdb
    from ml_assets.object_store import use_object_stores

    use_object_stores(settings)
    use_duckdb(Room.of(settings))
    return Platform(settings)
