"""Who may do what in the application's database: four groups, to which a bank gives its users and services.

| role | may |
| --- | --- |
| ml_assets_migrate | own and change the tables; the migration Job |
| ml_assets_load | write and withdraw rows, drop old months of predictions; batch runs |
| ml_assets_score | add and change rows, never delete; the scoring service |
| ml_assets_read | look |

An administrator runs `create_roles_sql` once, since roles belong to the server. Each migration then grants what the
tables of that time need.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

MIGRATE: Final = "ml_assets_migrate"
LOAD: Final = "ml_assets_load"
SCORE: Final = "ml_assets_score"
READ: Final = "ml_assets_read"
ROLES: Final = (MIGRATE, LOAD, SCORE, READ)

_RIGHTS: Final = {
    LOAD: "SELECT, INSERT, UPDATE, DELETE",
    SCORE: "SELECT, INSERT, UPDATE",
    READ: "SELECT",
}
# Each writer makes the month that it writes to; only batch runs drop what is past its retention.
_FUNCTIONS: Final = {
    LOAD: ("predictions_make_month(timestamptz)", "predictions_drop_months(timestamptz)"),
    SCORE: ("predictions_make_month(timestamptz)",),
}
# Kept for reviewers: nobody who writes to them changes or deletes what is there.
_LEDGERS: Final = ("promotions",)


def create_roles_sql(database: str) -> str:
    """Return the SQL that makes the roles, for an administrator who is connected to the database; it may run again."""
    make = "\n".join(
        f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;" for role in ROLES
    )
    return f"""{make}
GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {LOAD}, {SCORE}, {MIGRATE};
GRANT CONNECT ON DATABASE {database} TO {READ};
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO {MIGRATE};
GRANT USAGE ON SCHEMA public TO {LOAD}, {SCORE}, {READ};
"""


def grant(connection: Connection) -> list[str]:
    """Grant the roles that exist their rights on all tables, views and sequences; return which exist.

    Rights on what later migrations make come with those migrations.
    """
    present = set(
        connection.execute(
            text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:roles)"), {"roles": list(_RIGHTS)}
        ).scalars()
    )
    for role in sorted(present):
        connection.exec_driver_sql(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
        connection.exec_driver_sql(f"GRANT {_RIGHTS[role]} ON ALL TABLES IN SCHEMA public TO {role}")
        connection.exec_driver_sql(f"REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {role}")
        for ledger in _LEDGERS:
            connection.exec_driver_sql(f"REVOKE UPDATE, DELETE ON {ledger} FROM {role}")
        for function in _FUNCTIONS.get(role, ()):
            connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {function} TO {role}")
        if role != READ:
            connection.exec_driver_sql(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
    return sorted(present)
