"""The ledger against those who may write to it: each attack by a login of the real roles, refused by the database.

The lifecycle's own code is not between them and the table: whoever has a login has psql.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy import make_url

from ml_assets.database.connect import begin
from ml_assets.database.migrate import migrate
from ml_assets.database.promotions import declare_tiers
from ml_assets.database.roles import LOAD, READ, SCORE, SERVE, create_roles_sql

pytestmark = pytest.mark.hostile

A, B, EVIDENCE, OTHER = "a" * 64, "b" * 64, "e" * 64, "f" * 64
LOGINS = {
    "hostile_scorer": LOAD, "hostile_ann": LOAD, "hostile_service": SCORE, "hostile_reader": READ,
    "hostile_serving": SERVE,
}  # fmt: skip


@dataclass
class Server:
    """A migrated database with logins of the roles, and a use case of each tier."""

    url: str

    def connect(self, login: str, database: str | None = None) -> psycopg.Connection:
        """Return a connection of a login, in autocommit."""
        url = make_url(self.url).set(drivername="postgresql", username=login, password="x")
        if database:
            url = url.set(database=database)
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)

    def add(self, login: str, action: str, **changes: object) -> int:
        """Add a line as a login, and return its id."""
        given = {
            "use_case": "careful", "action": action, "to_version": 1, "mlflow_run_id": "run1", "model_hash": A,
            "evidence_hash": EVIDENCE, "actor": "dagster run 1", "is_person": False, "reason": "said",
        } | changes  # fmt: skip
        overriding = "OVERRIDING SYSTEM VALUE" if "id" in given else ""
        marks = ", ".join(["%s"] * len(given))
        with self.connect(login) as connection:
            (number,) = connection.execute(
                f"INSERT INTO public.promotions ({', '.join(given)}) {overriding} VALUES ({marks}) RETURNING id",
                list(given.values()),
            ).fetchone()
        return number


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    name = make_url(database_url).database
    assert name is not None
    with begin(database_url) as connection:
        connection.exec_driver_sql(create_roles_sql(name))
        for login, role in LOGINS.items():
            connection.exec_driver_sql(f"DROP ROLE IF EXISTS {login}")
            connection.exec_driver_sql(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE {role}")
    migrate(database_url)
    declare_tiers(database_url, {"careful": "high", "easy": "low"})
    made = Server(database_url)
    for use_case in ("careful", "easy"):
        made.add("hostile_scorer", "registered", use_case=use_case)
        made.add("hostile_scorer", "registered", use_case=use_case, to_version=2, mlflow_run_id="run2", model_hash=B)
    yield made
    with begin(database_url) as connection:
        for login in LOGINS:
            connection.exec_driver_sql(f"DROP ROLE {login}")


def refused(act: Callable[[], object], *says: str) -> None:
    with pytest.raises((psycopg.errors.IntegrityError, psycopg.errors.InsufficientPrivilege)) as error:
        act()
    assert any(word in str(error.value) for word in says), str(error.value)


def asked(server: Server, **changes: object) -> int:
    return server.add("hostile_scorer", "requested", **changes)


def approve(server: Server, request: int, login: str = "hostile_ann", **changes: object) -> int:
    given = {"actor": "ann", "is_person": True, "request_id": request} | changes
    return server.add(login, "promoted", **given)


def test_the_way_that_is_meant_works(server: Server) -> None:
    """Guards the tests below: a ledger that refused everything would pass them."""
    first = approve(server, asked(server))
    assert approve(server, asked(server, to_version=2, mlflow_run_id="run2", model_hash=B), to_version=2,
                   mlflow_run_id="run2", model_hash=B) > first  # fmt: skip
    server.add("hostile_ann", "rolled_back", actor="ann", is_person=True)
    assert server.add("hostile_scorer", "promoted", use_case="easy")


def test_a_temporary_table_does_not_deceive_the_trigger(server: Server) -> None:
    """Guards: PostgreSQL looks into a session's temporary schema first, so a forged `promotions` was believed."""
    request = asked(server, actor="ann", is_person=True)
    with server.connect("hostile_ann") as connection:
        connection.execute("CREATE TEMP TABLE promotions AS SELECT * FROM public.promotions")
        connection.execute("UPDATE pg_temp.promotions SET actor = 'somebody', database_user = 'somebody'")
        connection.execute("CREATE TEMP TABLE use_case_tiers AS SELECT 'careful' AS use_case, 'low' AS tier")
        connection.execute("SET search_path = pg_temp, public")
        for values in (f"'promoted', true, {request}", "'promoted', false, NULL"):
            refused(
                lambda values=values: connection.execute(
                    "INSERT INTO public.promotions (use_case, to_version, mlflow_run_id, model_hash, evidence_hash, "
                    "actor, reason, action, is_person, request_id) "
                    f"VALUES ('careful', 1, 'run1', '{A}', '{EVIDENCE}', 'ann', 'said', {values})"
                ),
                "another person approves", "ck_promotions_approved",
            )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"needs_approval": False}, "permission denied"),
        ({}, "ck_promotions_approved"),
        ({"actor": "ann", "is_person": True}, "ck_promotions_approved"),
        ({"use_case": "unheard_of"}, "is not declared"),
        ({"use_case": "Careful"}, "is not declared"),
    ],
)
def test_nobody_promotes_without_approval_in_the_tier_high(server: Server, changes: dict, says: str) -> None:
    refused(lambda: server.add("hostile_scorer", "promoted", **changes), says)


@pytest.mark.parametrize("action", ["rolled_back", "restored"])
@pytest.mark.parametrize("person", [True, False])
def test_nobody_goes_back_to_what_was_never_approved(server: Server, action: str, person: bool) -> None:
    """Guards: a rollback needs one person, since it leads to an approved model; that it does was believed."""
    approve(server, asked(server))
    who = {"actor": "ann" if person else "dagster run 1", "is_person": person}
    model = {"to_version": 2, "mlflow_run_id": "run2", "model_hash": B}
    stranger = {"to_version": 1, "mlflow_run_id": "run9", "model_hash": A}
    swapped = {"to_version": 1, "mlflow_run_id": "run1", "model_hash": B}
    for target in (model, stranger, swapped):
        refused(
            lambda target=target: server.add("hostile_scorer", action, **who, **target), "never been", "for a person"
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 9_223_372_036_854_775_807},
        {"recorded_at": "2099-01-01"},
        {"database_user": "somebody"},
        {"from_version": 7},
        {"from_run_id": "run7"},
    ],
)
def test_what_the_database_gives_is_not_given_to_it(server: Server, changes: dict) -> None:
    """Guards the order of lines: one with the largest id would be the newest for ever."""
    refused(lambda: server.add("hostile_scorer", "promoted", use_case="easy", **changes), "permission denied")


@pytest.mark.parametrize(
    "changes",
    [
        {"evidence_hash": OTHER},
        {"evidence_hash": None},
        {"model_hash": B},
        {"model_hash": None},
        {"model_hash": "short"},
        {"mlflow_run_id": "run2", "model_hash": B},
        {"mlflow_run_id": None},
        {"to_version": 2},
        {"use_case": "easy"},
    ],
)
def test_an_approval_is_of_what_was_asked_for(server: Server, changes: dict) -> None:
    request = asked(server)
    with pytest.raises(psycopg.errors.IntegrityError):
        approve(server, request, **changes)


@pytest.mark.parametrize(
    "name", ["ann", "Ann", " ann ", "ANN", "\uff41nn", "a.n.n", "\u0430nn", "an\u200bn", "", "dagster run 1"]
)
def test_nobody_approves_themselves_by_another_spelling(server: Server, name: str) -> None:
    """Guards four eyes against upper case, full-width, Cyrillic and invisible letters."""
    request = asked(server, actor="ann", is_person=True)
    refused(
        lambda: approve(server, request, actor=name),
        "another person approves", "no name of a person", "ck_promotions_said",
    )  # fmt: skip


def test_a_login_does_not_approve_what_it_has_asked_for(server: Server) -> None:
    """Guards: a run that can write lines can also write that it is a person."""
    request = asked(server)
    refused(lambda: approve(server, request, login="hostile_scorer", actor="bob"), "login of their own")
    refused(lambda: approve(server, request, is_person=False), "ck_promotions_approved")


def test_a_request_is_answered_once_and_only_while_it_is_open(server: Server) -> None:
    declined = asked(server)
    refused(lambda: server.add("hostile_scorer", "declined", request_id=declined), "for a person")
    server.add("hostile_ann", "declined", actor="ann", is_person=True, request_id=declined)
    refused(lambda: approve(server, declined), "no open request")
    overtaken, newer = asked(server), asked(server)
    refused(lambda: approve(server, overtaken), "no open request")
    approve(server, newer)
    refused(lambda: approve(server, newer), "no open request")


def test_a_transaction_with_an_older_view_does_not_judge_by_it(server: Server) -> None:
    """Guards: under REPEATABLE READ a trigger sees the ledger as it was when the transaction began."""
    request = asked(server)
    with server.connect("hostile_ann") as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM promotions")
        asked(server)
        with pytest.raises(psycopg.errors.SerializationFailure):
            old.execute(
                "INSERT INTO promotions (use_case, action, to_version, mlflow_run_id, model_hash, evidence_hash, "
                f"actor, is_person, request_id, reason) VALUES ('careful', 'promoted', 1, 'run1', '{A}', '{EVIDENCE}', "
                f"'ann', true, {request}, 'said')"
            )


def test_a_model_that_changes_is_not_registered_again(server: Server) -> None:
    refused(lambda: server.add("hostile_scorer", "registered", model_hash=B), "has changed since")


def test_a_run_does_not_promote_again_what_a_person_took_away(server: Server) -> None:
    easy = {"use_case": "easy"}
    second = {"to_version": 2, "mlflow_run_id": "run2", "model_hash": B}
    server.add("hostile_scorer", "promoted", **easy)
    server.add("hostile_scorer", "promoted", **easy, **second)
    server.add("hostile_ann", "rolled_back", **easy, actor="ann", is_person=True)
    refused(lambda: server.add("hostile_scorer", "promoted", **easy, **second), "was rolled back")


@pytest.mark.parametrize("login", ["hostile_scorer", "hostile_service", "hostile_reader"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE promotions SET actor = 'nobody'",
        "DELETE FROM promotions",
        "TRUNCATE promotions",
        "MERGE INTO promotions USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE",
        "ALTER TABLE promotions DISABLE TRIGGER ALL",
        "ALTER TABLE promotions DISABLE TRIGGER promotions_judged",
        "DROP TRIGGER promotions_judged ON promotions",
        "SET session_replication_role = replica",
        "CREATE OR REPLACE FUNCTION public.promotions_person(text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
        "CREATE RULE mine AS ON INSERT TO promotions DO INSTEAD NOTHING",
        "CREATE VIEW public.mine AS SELECT 1",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "UPDATE use_case_tiers SET tier = 'low'",
        "INSERT INTO use_case_tiers VALUES ('new', 'low')",
        "DELETE FROM use_case_tiers",
        "SELECT * FROM promotion_holds FOR UPDATE",
        "SELECT setval('promotions_id_seq', 1)",
        "SELECT nextval('promotions_id_seq')",
        "BEGIN; LOCK TABLE promotions IN ACCESS EXCLUSIVE MODE",
        "SET ROLE ml_assets_migrate",
    ],
)
def test_what_is_written_stays_and_so_do_the_rules(server: Server, login: str, statement: str) -> None:
    with server.connect(login) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


@pytest.mark.parametrize("login", ["hostile_service", "hostile_reader", "hostile_serving"])
def test_the_scoring_service_and_readers_write_no_line(server: Server, login: str) -> None:
    for action in ("registered", "requested", "promoted", "rolled_back", "restored", "canary", "canary_ended"):
        refused(lambda action=action: server.add(login, action, use_case="easy"), "permission denied")


SECOND = {"to_version": 2, "mlflow_run_id": "run2", "model_hash": B}


def test_a_canary_of_the_tier_high_is_approved_as_it_was_asked_for(server: Server) -> None:
    """Guards four eyes: a canary answers callers, so nobody starts one alone, nor a wider one than was asked for."""
    ann = {"actor": "ann", "is_person": True, **SECOND}
    refused(lambda: asked(server, **SECOND, share=0.1), "no champion beside which")
    approve(server, asked(server))
    refused(lambda: server.add("hostile_ann", "canary", **ann, share=0.1), "ck_promotions_approved")
    promotion = asked(server, **SECOND)
    refused(lambda: server.add("hostile_ann", "canary", **ann, share=0.1, request_id=promotion), "and no canary")
    request = asked(server, **SECOND, share=0.1)
    refused(lambda: approve(server, request, **SECOND), "asks for a canary with the share 0.1")
    refused(lambda: server.add("hostile_ann", "canary", **ann, share=0.2, request_id=request), "the share 0.1")
    refused(lambda: server.add("hostile_scorer", "canary", **ann, share=0.1, request_id=request), "login of their own")
    refused(
        lambda: server.add("hostile_ann", "canary", **ann | {"model_hash": A}, share=0.1, request_id=request),
        "has changed since",
    )
    assert server.add("hostile_ann", "canary", **ann, share=0.1, request_id=request)
    refused(lambda: server.add("hostile_ann", "canary", **ann, share=0.1, request_id=request), "no open request")


@pytest.mark.parametrize("share", [None, 0.0, 1.0, -0.1, float("nan"), float("inf")])
def test_a_canary_has_a_share_and_nothing_else_has(server: Server, share: float | None) -> None:
    server.add("hostile_scorer", "promoted", use_case="easy")
    refused(lambda: server.add("hostile_scorer", "canary", use_case="easy", **SECOND, share=share), "promotions_share")
    refused(lambda: server.add("hostile_scorer", "canary", use_case="easy", share=0.1), "is champion")
    refused(lambda: server.add("hostile_scorer", "promoted", use_case="easy", **SECOND, share=0.1), "promotions_share")


def test_the_service_ends_a_canary_and_can_do_nothing_else_by_it(server: Server) -> None:
    easy = {"use_case": "easy"}
    server.add("hostile_scorer", "promoted", **easy)
    refused(lambda: server.add("hostile_scorer", "canary_ended", **easy, **SECOND), "is in no canary")
    canary = server.add("hostile_scorer", "canary", **easy, **SECOND, share=0.1)
    refused(lambda: server.add("hostile_scorer", "canary_ended", **easy), "is in no canary")
    call = "SELECT public.promotions_end_canary(%s, %s)"
    for login in ("hostile_reader", "hostile_service"):
        with server.connect(login) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(call, [canary, "said"])
    with server.connect("hostile_serving") as serving:
        assert serving.execute(call, [canary - 1, "said"]).fetchone() == (None,), "the champion stays"
        (ended,) = serving.execute(call, [canary, "errors 0.2, limit 0.01"]).fetchone()
        assert ended > canary
        assert serving.execute(call, [canary, "said"]).fetchone() == (None,)
        said = serving.execute("SELECT database_user, actor, is_person FROM promotions WHERE id = %s", [ended])
        assert said.fetchone() == ("hostile_serving", "canary guard", False)


@pytest.mark.parametrize("login", ["hostile_service", "hostile_reader", "hostile_serving"])
def test_readers_and_the_service_hold_nobody_up(server: Server, login: str) -> None:
    """Guards: everybody may take advisory locks unless told otherwise, so a reader could stop each promotion."""
    for call in (
        "promotions_hold('careful')",
        "pg_advisory_lock(1)",
        "pg_try_advisory_lock(1)",
        "pg_advisory_xact_lock(1, 2)",
        "pg_advisory_lock_shared(1)",
    ):
        with server.connect(login) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT {call}")


def test_the_defaults_of_public_are_taken_away(server: Server, postgres_server) -> None:
    """Guards: PostgreSQL lets everybody connect to each database and make temporary tables there."""
    postgres_server.create_databases("mlflow")
    with begin(server.url) as connection:
        connection.exec_driver_sql(create_roles_sql(make_url(server.url).database or ""))
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        server.connect("hostile_reader", "mlflow")
    with server.connect("hostile_reader") as reader, pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("CREATE TEMP TABLE mine (n int)")
    with begin(server.url) as connection:
        connection.exec_driver_sql("CREATE ROLE hostile_nobody LOGIN")
    try:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            server.connect("hostile_nobody")
    finally:
        with begin(server.url) as connection:
            connection.exec_driver_sql("DROP ROLE hostile_nobody")
