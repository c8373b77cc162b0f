"""Each role may do its work in the database, and nothing else; a server refuses the rest."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import InternalError, ProgrammingError

from ml_assets.database.alerts import EventRow, say
from ml_assets.database.connect import begin, connect_to_read
from ml_assets.database.feedback import write_feedback
from ml_assets.database.migrate import migrate, require_newest
from ml_assets.database.models import PastCase
from ml_assets.database.monitoring import replace_dates
from ml_assets.database.newest import is_newest
from ml_assets.database.predictions import retire_predictions, upsert_predictions
from ml_assets.database.reports import Asked, report_rows
from ml_assets.database.roles import DESK, LOAD, MIGRATE, READ, ROLES, SCORE, create_roles_sql
from ml_assets.database.similar import make_room
from ml_assets.database.turn import in_turn
from ml_assets.errors import StateError
from ml_assets.predictions.feedback import Said, Shown
from ml_assets_tests.database.factories import prediction, predictions, scored
from ml_assets_tests.database.test_similar import DAY, asked, cases, drawn


@pytest.fixture
def as_role(database_url: str) -> Iterator[object]:
    """A function that gives an engine on a migrated database, each of whose connections has a role."""
    name = make_url(database_url).database
    assert name is not None
    with begin(database_url) as connection:
        for _ in range(2):  # it may run again
            connection.exec_driver_sql(create_roles_sql(name))
    engines: list[Engine] = []

    def connect(role: str) -> Engine:
        engine = create_engine(make_url(database_url))
        event.listen(engine, "connect", lambda raw, _: raw.execute(f"SET ROLE {role}") and raw.commit())
        engines.append(engine)
        return engine

    migrate(connect(MIGRATE))
    yield connect
    for engine in engines:
        engine.dispose()


def refuses(engine: Engine, statement: str) -> bool:
    try:
        with engine.begin() as connection:
            connection.execute(text(statement))
    except ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        return True
    return False


def test_batch_runs_write_and_withdraw(as_role) -> None:
    load = as_role(LOAD)
    assert upsert_predictions(load, predictions(prediction("A"), prediction("B"))).inserted == 2
    assert upsert_predictions(load, predictions(prediction("A")), scored=[scored()]).deleted == 1
    assert retire_predictions(load, months=1, now=datetime(2026, 3, 1, tzinfo=UTC)) == ["predictions_2026_01"]


def test_who_writes_takes_turns_and_no_other_lock(as_role) -> None:
    """Guards runs that a bank's own users start: the locks of PostgreSQL are taken from them all."""
    load = as_role(LOAD)
    with in_turn(load, "cns_fails", lambda: pytest.fail("nobody holds it")):
        pass
    assert refuses(load, "SELECT pg_try_advisory_lock(1)")
    assert refuses(as_role(READ), "SELECT runs_hold('cns_fails', false)")


def test_the_scoring_service_writes_and_never_deletes(as_role) -> None:
    score = as_role(SCORE)
    assert upsert_predictions(score, predictions(prediction("A"))).inserted == 1
    for statement in (
        "DELETE FROM predictions",
        "SELECT predictions_drop_months(now())",
        "DROP TABLE predictions_2026_01",
    ):
        assert refuses(score, statement), statement


def test_readers_look(as_role) -> None:
    upsert_predictions(as_role(LOAD), predictions(prediction("A")))
    read = as_role(READ)
    assert not refuses(read, "SELECT * FROM work_list")
    for statement in ("DELETE FROM predictions", "UPDATE predictions SET rank = 1", "CREATE TABLE mine (n int)"):
        assert refuses(read, statement), statement


def test_past_cases_are_kept_by_batch_runs_and_searched_by_readers(as_role) -> None:
    """Guards an index on a table that its writers do not own, of an extension that only an administrator installs."""
    load, read = as_role(LOAD), as_role(READ)
    assert make_room(load, "fails")
    vectors = drawn(3)
    replace_dates(load, PastCase, "fails", [DAY], cases(vectors))
    assert len(asked(read, vectors[0])) == 3
    for statement in ("SELECT past_cases_make_use_case('mine')", "DELETE FROM past_cases"):
        assert refuses(read, statement), statement


def test_who_only_asks_reads_as_the_reader_and_cannot_write(as_role, database_url: str) -> None:
    """Guards the MCP server, started by a login that may more than read."""
    upsert_predictions(as_role(LOAD), predictions(prediction("A")))
    engine = connect_to_read(database_url)
    try:
        with begin(engine) as connection:
            assert connection.exec_driver_sql("SELECT current_user").scalar() == READ
            assert connection.exec_driver_sql("SELECT count(*) FROM predictions").scalar() == 1
        assert is_newest(engine)
        with pytest.raises(InternalError, match="read-only transaction"), begin(engine) as connection:
            connection.exec_driver_sql("DELETE FROM predictions")
        assert refuses(engine, "SET TRANSACTION READ WRITE; DELETE FROM predictions")
    finally:
        engine.dispose()


def test_reports_and_rules_read_as_the_reader_where_the_login_may_be_it(as_role, database_url: str) -> None:
    """Guards the SQL of a team that runs with the rights of whoever runs it."""
    as_role(READ)
    asked = Asked("fails", date(2026, 1, 5), datetime(2026, 1, 5, tzinfo=UTC), "EUR", 1, 1)
    rows = report_rows(database_url, "SELECT current_user::text AS who, 1 FROM predictions", asked, {}, file="a.sql")
    assert rows == []
    assert report_rows(database_url, "SELECT current_user::text AS who", asked, {}, file="a.sql") == [{"who": READ}]


def test_the_ledger_of_alerts_is_added_to_by_batch_runs_and_people_alone(as_role) -> None:
    line = EventRow(
        what="opened", use_case="fails", rule="r", rule_hash="", kind="firing", key="", severity="info", message="m",
        at=datetime(2026, 1, 5, tzinfo=UTC), event_id="e1",
    )  # fmt: skip
    load = as_role(LOAD)
    say(load, line)
    for statement in (
        "UPDATE alert_events SET message = 'x'",
        "DELETE FROM alert_events",
        "INSERT INTO alert_events (recorded_at) VALUES (now())",
    ):
        assert refuses(load, statement), statement
    for role in (SCORE, READ):
        with pytest.raises(StateError, match="members of the role ml_assets_load may"):
            say(as_role(role), line)
        for table in ("alert_outbox", "alert_evaluations"):
            assert refuses(as_role(role), f"DELETE FROM {table}"), table
            assert not refuses(as_role(role), f"SELECT * FROM {table}"), table


def test_the_desk_adds_what_people_said_and_nobody_else_does(as_role) -> None:
    shown = Shown(
        decision_time=datetime(2026, 1, 5, tzinfo=UTC), priority=1, probability=0.5, expected_cost=1.0, cause=None,
        model_version=1, mlflow_run_id="run", cut_off_at=datetime(2026, 1, 6, tzinfo=UTC),
    )  # fmt: skip
    said = Said(entity_id="A", what="claimed", actor="ana", request_key="k")

    def write(role: str):
        of_list = ("fails", date(2026, 1, 6), [(said, shown)])
        now = datetime(2026, 1, 5, 9, tzinfo=UTC)
        return write_feedback(as_role(role), *of_list, now=now, lease_length=timedelta(hours=1), causes=())

    assert list(write(DESK).saved) == ["A"]
    for statement in (
        "UPDATE feedback SET note = 'x'",
        "DELETE FROM feedback",
        "INSERT INTO feedback (recorded_at) VALUES (now())",
        "INSERT INTO alert_events (what) VALUES ('silenced')",
        "INSERT INTO predictions (use_case) VALUES ('fails')",
    ):
        assert refuses(as_role(DESK), statement), statement
    for role in (LOAD, SCORE, READ):
        with pytest.raises(StateError, match="members of the role ml_assets_desk may"):
            write(role)
        assert not refuses(as_role(role), "SELECT * FROM acted_on")


@pytest.mark.parametrize("role", [role for role in ROLES if role != MIGRATE])
def test_only_the_migration_changes_the_schema(as_role, role: str) -> None:
    engine = as_role(role)
    for statement in (
        "CREATE TABLE mine (n int)",
        "ALTER TABLE predictions DROP COLUMN rank",
        "UPDATE alembic_version SET version_num = '0000'",
        "UPDATE promotions SET use_case = 'other'",
    ):
        assert refuses(engine, statement), statement
    require_newest(engine)


def test_a_role_made_after_the_last_migration_gets_its_rights_from_the_next(as_role, database_url: str) -> None:
    """Guards a server on which the tables came first: who reads as `ml_assets_read` could read nothing, for ever."""
    owner = as_role(MIGRATE)
    with begin(owner) as connection:
        connection.exec_driver_sql(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {READ}")
    reader = as_role(READ)
    for engine in (owner, reader):
        assert not is_newest(engine)
        with pytest.raises(StateError, match=f"{READ} may read nothing in this database.*ml-assets migrate"):
            require_newest(engine)
    assert migrate(owner)
    assert not migrate(owner)
    require_newest(reader)
    with begin(reader) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM work_list").scalar() == 0


def test_code_that_is_newer_than_the_database_says_what_to_do(database_url: str) -> None:
    with pytest.raises(RuntimeError, match="ml-assets migrate"):
        require_newest(database_url)
