"""Whether the application's database is at the schema of this code: two SELECTs, without Alembic."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from ml_assets.database.connect import begin
from ml_assets.database.roles import without_rights

VIEWS: Final = ("work_list", "acted_on")  # in the order in which they build on one another
_VIEWS_OF_OURS: Final = (
    "SELECT relname, coalesce(obj_description(oid, 'pg_class'), '') FROM pg_class "
    "WHERE relkind = 'v' AND relnamespace = current_schema()::regnamespace AND relname = ANY(:views)"
)


@cache
def newest_revision() -> str:
    """Return the newest revision of this code: that of the last of the files, which are named by their revisions."""
    names = [file.name for file in (resources.files("ml_assets.database") / "migrations" / "versions").iterdir()]
    return max(name.partition("_")[0] for name in names if name[:1].isdigit() and name.endswith(".py"))


def is_newest(where: Engine | str) -> bool:
    """Return whether tables and views are those of this code, and each role has its rights; False for an empty one."""
    try:
        with begin(where) as connection:
            if without_rights(connection):
                return False
            rows = connection.execute(
                text(f"SELECT 'revision', version_num FROM alembic_version UNION ALL {_VIEWS_OF_OURS}"),
                {"views": list(VIEWS)},
            ).all()
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == "42P01":  # undefined table: nothing has been migrated yet
            return False
        raise
    return sorted(map(tuple, rows)) == sorted([("revision", newest_revision()), *fingerprints().items()])


def fingerprints() -> dict[str, str]:
    """Return the comment that each view has when it is as this code defines it."""
    return {view: f"sql/{view}.sql {hashlib.sha256(view_sql(view).encode()).hexdigest()[:12]}" for view in VIEWS}


def view_sql(view: str) -> str:
    """Return the query that a view is."""
    return (resources.files("ml_assets.database") / "sql" / f"{view}.sql").read_text(encoding="utf-8")


def views(connection: Connection) -> dict[str, str]:
    """Return the comment of each view of ours that exists."""
    return {row[0]: row[1] for row in connection.execute(text(_VIEWS_OF_OURS), {"views": list(VIEWS)})}
