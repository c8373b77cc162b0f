"""Bring the application's database to the schema of this code, or back.

Tables change by Alembic revisions. Views have one definition, `sql/<view>.sql`, and are made again from it whenever
its text or a table changes: a revision that quoted the file would break as soon as the file moves on.
"""

from __future__ import annotations

from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from ml_assets.database.connect import begin
from ml_assets.database.newest import VIEWS, fingerprints, is_newest, newest_revision, view_sql, views
from ml_assets.database.roles import grant, without_rights
from ml_assets.errors import StateError

_MIGRATING: Final = 0x6D6C5F62  # any number; processes that migrate at once take this lock in turn


def migrate(where: Engine | str) -> bool:
    """Upgrade to the newest revision, make the views, grant the roles their rights; return whether there was need.

    It is one transaction: on an error the database is as it was.
    """
    with begin(where) as connection:
        config = _locked(connection)
        at_head = revision(connection) == ScriptDirectory.from_config(config).get_current_head()
        if at_head and views(connection) == fingerprints():
            if lacking := without_rights(connection):
                grant(connection)
            return bool(lacking)
        _drop_views(connection)
        command.upgrade(config, "head")
        for view in VIEWS:
            connection.exec_driver_sql(f"CREATE VIEW {view} AS {view_sql(view)}")
            connection.exec_driver_sql(f"COMMENT ON VIEW {view} IS '{fingerprints()[view]}'")
        grant(connection)
        return True


def require_newest(where: Engine | str) -> None:
    """Do nothing if the database is at the schema of this code.

    Raises:
        RuntimeError: it is not; whoever runs this may not be allowed to migrate.
    """
    if is_newest(where):
        return
    with begin(where) as connection:
        if lacking := without_rights(connection):
            raise StateError(
                f"{', '.join(lacking)} may read nothing in this database yet: a role that was made after the last "
                "migration gets its rights from the next. Run `ml-assets migrate` with the role that migrates"
            )
        found = revision(connection)
    raise StateError(
        f"the database is at revision {found or 'none'}, with views of that time; this code needs {newest_revision()}: "
        "run `ml-assets migrate` with the role that migrates, as the migration Job does before a rollout"
    )


def downgrade(where: Engine | str, to: str) -> None:
    """Take the tables back to an earlier revision, or to `base`, and drop the views, which belong to the newest."""
    with begin(where) as connection:
        config = _locked(connection)
        _drop_views(connection)
        command.downgrade(config, to)


def revision(connection: Connection) -> str | None:
    """Return the revision that the database is at, or None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def _locked(connection: Connection) -> Config:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
    config = _config()
    config.attributes["connection"] = connection
    return config


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "ml_assets.database:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _drop_views(connection: Connection) -> None:
    for view in reversed(VIEWS):
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {view}")
