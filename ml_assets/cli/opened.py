"""What commands open: settings and platform, imported when a command runs, so that `--help` does not wait for them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ml_assets.errors import NotFoundError

if TYPE_CHECKING:
    from ml_assets.database.promotions import Actor
    from ml_assets.lake import Lake
    from ml_assets.landing.decode import Records
    from ml_assets.platform import Platform
    from ml_assets.settings import Settings
    from ml_assets.spec import EventSpec, UseCase

UseCaseName = Annotated[str, typer.Argument(help="name of a use case; `ml-assets status` lists them")]
AsOf = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%dT%H:%M"], help="stand at this time (UTC), for a history that is played again"),
]
Topic = Annotated[str, typer.Argument(help="name of a topic; `ml-assets accounting` lists them")]


def read_settings() -> Settings:
    """Return the settings of the environment.

    Raises:
        ml_assets.settings.SettingsError: one has a value that it cannot have.
    """
    from ml_assets.settings import Settings

    return Settings()


def platform_of(settings: Settings) -> Platform:
    """Return the platform of the settings; nothing is opened yet."""
    from ml_assets.platform import open_platform

    return open_platform(settings)


def usecases_of(settings: Settings) -> tuple[UseCase, ...]:
    """Return the use cases of the settings' packages."""
    from ml_assets.usecases import discover

    return discover(settings.usecase_packages)


def usecase_of(settings: Settings, name: str) -> UseCase:
    """Return a use case by its name.

    Raises:
        NotFoundError: there is none.
    """
    known = {usecase.name: usecase for usecase in usecases_of(settings)}
    if name not in known:
        raise NotFoundError(f"there is no use case {name!r}; there are {', '.join(known)}")
    return known[name]


def actor_of(settings: Settings) -> Actor:
    """Return the person who acts: as the settings name them, else by the login of the operating system."""
    import getpass

    from ml_assets.database.promotions import Actor

    return Actor.person(settings.actor or getpass.getuser())


def records_of(settings: Settings) -> Records | None:
    """Return what decodes by a schema registry; None if the settings name none."""
    if not settings.schema_registry_url:
        return None
    from ml_assets.landing.avro import RegistryRecords

    return RegistryRecords(settings.schema_registry_url)


def lake_of(settings: Settings) -> Lake:
    """Return the lake of the settings."""
    return platform_of(settings).lake


def events_of(settings: Settings) -> dict[str, EventSpec]:
    """Return by topic the events that are landed."""
    from ml_assets.answers import landed_events

    return {event.topic: event for event in landed_events(usecases_of(settings))}


def event_of(settings: Settings, topic: str) -> EventSpec:
    """Return the event of a topic.

    Raises:
        NotFoundError: no use case reads the topic.
    """
    events = events_of(settings)
    if topic not in events:
        raise NotFoundError(f"no use case reads the topic {topic!r}; the topics are {', '.join(sorted(events))}")
    return events[topic]
