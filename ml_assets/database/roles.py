"""Who may do what in the application's database: six groups, to which a bank gives its users and services.

| role | may |
| --- | --- |
| ml_assets_migrate | own and change the tables; the migration Job |
| ml_assets_load | write and withdraw rows, drop old months of predictions, add to the ledgers; batch runs, people |
| ml_assets_score | add and change rows, never delete; the ledger it reads; a service that writes scores |
| ml_assets_read | look; people |
| ml_assets_desk | look, and add to the ledger of feedback; the desk |
| ml_assets_serve | look, end a canary that runs, and say how many answers were lost; the scoring service |

An administrator runs `create_roles_sql` once, since roles belong to the server. Each migration then grants what the
tables of that time need; roles that are made later get it from the next `migrate`, though the tables are the newest.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

MIGRATE: Final = "ml_assets_migrate"
LOAD: Final = "ml_assets_load"
SCORE: Final = "ml_assets_score"
READ: Final = "ml_assets_read"
SERVE: Final = "ml_assets_serve"
DESK: Final = "ml_assets_desk"
ROLES: Final = (MIGRATE, LOAD, SCORE, READ, SERVE, DESK)

# Whether this login may take a role.
MAY_BE: Final = """
    SELECT EXISTS (
        SELECT FROM pg_roles
        WHERE rolname = :role AND pg_has_role(
            session_user, oid,
            CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END
        )
    )
"""

# The roles that exist and may not even see which revision the database is at: they were made after it was migrated.
_WITHOUT_RIGHTS: Final = """
    SELECT rolname FROM pg_roles
    WHERE rolname = ANY(:roles) AND NOT has_table_privilege(oid, to_regclass('alembic_version'), 'SELECT')
    ORDER BY rolname
"""

_RIGHTS: Final = {
    LOAD: "SELECT, INSERT, UPDATE, DELETE",
    SCORE: "SELECT, INSERT, UPDATE",
    READ: "SELECT",
    SERVE: "SELECT",
    DESK: "SELECT",
}
# Each writer makes the month that it writes to; only batch runs take turns, and drop what is past its retention.
_FUNCTIONS: Final = {
    LOAD: (
        "predictions_make_month(timestamptz)",
        "predictions_drop_months(timestamptz)",
        "runs_hold(text, boolean)",
        "past_cases_make_use_case(text)",
    ),
    SCORE: ("predictions_make_month(timestamptz)",),
    DESK: ("feedback_hold(text, date)",),
    SERVE: ("promotions_end_canary(bigint, text)", "answers_lost(text, text, text, bigint)"),
}
# What a writer says of a line of a ledger, and who that is. The rest is the database's own, as is the order of lines.
_LEDGERS: Final = {
    "promotions": (
        LOAD,
        "use_case, action, to_version, mlflow_run_id, model_hash, evidence_hash, actor, is_person, request_id, reason, "
        "share",
    ),
    "alert_events": (
        LOAD,
        "event_id, what, about, use_case, rule, rule_hash, kind, key, severity, message, at, until, sink, message_id, "
        "actor, reason, files",
    ),
    "feedback": (
        DESK,
        "use_case, outcome_date, entity_id, what, value, note, undoes, actor, at, until, request_key, decision_time, "
        "shown_priority, shown_probability, shown_expected_cost, shown_cause, model_version, mlflow_run_id, cut_off_at",
    ),
}
# What only batch runs and people write, beside the ledgers.
_OF_ALERTS: Final = ("alert_outbox", "alert_evaluations")
# Who decides on a champion; and the backup, which must see none decided on: it can read everything.
_HOLD: Final = "promotions_hold(text)"
_READ_ALL: Final = "pg_read_all_data"
_LOCKS: Final = (
    "SELECT oid::regprocedure::text FROM pg_catalog.pg_proc "
    "WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^pg_(try_)?advisory'"
)


def create_roles_sql(database: str, others: tuple[str, ...] = ("dagster", "mlflow", "mlflow_auth")) -> str:
    """Return the SQL that makes the roles, for an administrator who is connected to the database; it may run again.

    PostgreSQL lets everybody connect to each database, make temporary tables, and take any advisory lock. All that is
    taken away. `others` are the platform's other databases: where they exist, only their owners connect, and the
    backup.
    """
    make = "\n".join(
        f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;" for role in ROLES
    )
    names = ", ".join(f"'{name}'" for name in others)
    return f"""{make}
REVOKE ALL ON DATABASE {database} FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {LOAD}, {SCORE}, {MIGRATE};
GRANT CONNECT ON DATABASE {database} TO {READ}, {SERVE}, {DESK}, {_READ_ALL};
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT datname FROM pg_catalog.pg_database WHERE datname IN ({names}) LOOP
        EXECUTE 'REVOKE ALL ON DATABASE ' || quote_ident(name) || ' FROM PUBLIC';
        EXECUTE 'GRANT CONNECT ON DATABASE ' || quote_ident(name) || ' TO {_READ_ALL}';
    END LOOP;
    FOR name IN {_LOCKS} LOOP
        EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || name || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION ' || name || ' TO {MIGRATE}';
    END LOOP;
END $$;
DO $$
BEGIN
    -- Past cases are searched with pgvector, which whoever migrates may not install.
    IF EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'vector') THEN
        CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;
    END IF;
END $$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO {MIGRATE};
GRANT USAGE ON SCHEMA public TO {LOAD}, {SCORE}, {READ}, {SERVE}, {DESK};
"""


def without_rights(connection: Connection) -> list[str]:
    """Return the roles that exist and were granted nothing here yet; none for a database that was never migrated."""
    return list(connection.execute(text(_WITHOUT_RIGHTS), {"roles": list(_RIGHTS)}).scalars())


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
        connection.exec_driver_sql(f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {role}")
        connection.exec_driver_sql(f"GRANT {_RIGHTS[role]} ON ALL TABLES IN SCHEMA public TO {role}")
        for table in ("alembic_version", *_LEDGERS, "use_case_tiers", *(_OF_ALERTS if role != LOAD else ())):
            connection.exec_driver_sql(f"REVOKE INSERT, UPDATE, DELETE ON {table} FROM {role}")
        connection.exec_driver_sql(f"REVOKE ALL ON promotion_holds FROM {role}")
        for function in _FUNCTIONS.get(role, ()):
            connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {function} TO {role}")
    for ledger, (writer, columns) in _LEDGERS.items():
        if writer in present:
            connection.exec_driver_sql(f"GRANT INSERT ({columns}) ON {ledger} TO {writer}")
    connection.exec_driver_sql(
        f"GRANT EXECUTE ON FUNCTION {_HOLD} TO {', '.join([*sorted(present & {LOAD}), _READ_ALL])}"
    )
    return sorted(present)
