"""The environment of the project's processes: addresses of databases, and Dagster's home.

Settings say where things are. If an address is empty, this module starts the embedded server.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import make_url

import ml_assets
from ml_assets.local.embedded.broker import broker_for, running_broker, stop_broker
from ml_assets.local.embedded.postgres import Driver, server_for, stop_server
from ml_assets.local.embedded.private import make_private
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from ml_assets.landing.kafka import KafkaConnection


def database_url(settings: Settings, database: str = "ml_assets", driver: Driver = "psycopg") -> str:
    """Return the URL of a database on the server of the settings, or on the embedded one, started if need be.

    Raises:
        ModuleNotFoundError, ValueError, RuntimeError: the embedded server is wanted and does not run; see `server_for`.
    """
    configured = settings.postgres_url.get_secret_value()
    if not configured:
        return server_for(settings.home_path).url(database, driver)
    url = make_url(configured).set(drivername=f"postgresql+{driver}", database=database)
    tls = {"sslmode": settings.postgres_sslmode, "sslrootcert": settings.postgres_ca}
    url = url.update_query_dict({name: value for name, value in tls.items() if value})
    return url.render_as_string(hide_password=False)


def kafka_connection(settings: Settings) -> KafkaConnection:
    """Return how to reach the broker of the settings, or the embedded one, started if need be.

    Raises:
        ModuleNotFoundError, RuntimeError: the embedded broker is wanted and does not run; see `broker_for`.
    """
    from ml_assets.landing.kafka import KafkaConnection  # the client is loaded by who talks to a broker

    if not settings.kafka_bootstrap:
        return KafkaConnection(broker_for(settings.home_path))
    return KafkaConnection(
        settings.kafka_bootstrap,
        settings.kafka_security_protocol,
        settings.kafka_sasl_mechanism,
        settings.kafka_username,
        settings.kafka_password,
        settings.kafka_ca_file,
        settings.kafka_token,
    )


def running_kafka(settings: Settings) -> KafkaConnection | None:
    """Return how to reach the broker of the settings, or the embedded one if it is up; it is not started."""
    if not settings.kafka_bootstrap and running_broker(settings.home_path) is None:
        return None
    return kafka_connection(settings)


def stop_servers(settings: Settings, *, used_only: bool = False) -> None:
    """Stop the embedded servers of the home; if `used_only`, not those in whose place the settings name others."""
    if not (used_only and settings.kafka_bootstrap):
        stop_broker(settings.home_path)
    if not (used_only and settings.postgres_url.get_secret_value()):
        stop_server(settings.home_path)


def environment_for(settings: Settings) -> Mapping[str, str]:
    """Return the environment variables with which a subprocess runs Dagster on these settings.

    They fill the `{env: ...}` of dagster.yaml, which Dagster reads from `<home>/dagster`: a link to the file of
    the project is put there. The variables hold absolute paths and the database's password, if it has one.
    """
    database = database_url(settings, "dagster", "psycopg2")
    if settings.postgres_url.get_secret_value():
        make_private(settings.home_path)  # the embedded server has done so
    dagster_home = settings.home_path / "dagster"
    local = dagster_home / "local"
    local.mkdir(parents=True, exist_ok=True)
    _link(dagster_home / "dagster.yaml", instance_config())
    return {
        "DAGSTER_HOME": str(dagster_home),
        "ML_ASSETS_HOME": str(settings.home_path),
        "ML_ASSETS_DAGSTER_POSTGRES_URL": database,
        "ML_ASSETS_DAGSTER_LOCAL_DIR": str(local),
        "ML_ASSETS_MAX_CONCURRENT_RUNS": str(settings.max_concurrent_runs),
        "ML_ASSETS_BACKFILL_RUNS": str(settings.backfill_runs),
    }


def instance_config() -> Path:
    """Return the path of dagster.yaml: beside the package in a checkout, inside it when installed.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    package = Path(ml_assets.__file__).parent
    for place in (package.parent / "dagster.yaml", package / "dagster.yaml"):
        if place.is_file():
            return place
    raise FileNotFoundError(f"dagster.yaml is neither in {package.parent} nor in {package}; install the project again")


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.resolve() == target.resolve():
        return
    made = link.with_suffix(".new")
    made.unlink(missing_ok=True)
    made.symlink_to(target.resolve())
    made.replace(link)  # at once: another process never finds the link missing
