"""The promotion ledger is append-only because the database says so, and knows who may approve."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ml_assets.database.connect import begin
from ml_assets.database.promotions import (
    Actor,
    LedgerError,
    history,
    last_change,
    open_request,
    record,
    replaced_by,
    was_rolled_back,
    writing,
)

RUN, ANN, BOB = Actor.run("4711"), Actor.person("ann"), Actor.person("bob")


def add(url, action, to_version, *, actor=RUN, **changes):
    given = {"from_version": None, "reason": "the gate passed", "evidence_hash": "e" * 64}
    with writing(url, "fails") as ledger:
        return record(ledger, "fails", action, to_version=to_version, actor=actor, **(given | changes))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE promotions SET actor = 'nobody'", "DELETE FROM promotions", "TRUNCATE promotions"],
)
def test_the_database_itself_refuses_to_change_what_is_written(application_url, statement):
    add(application_url, "promoted", 1)
    with pytest.raises(DBAPIError, match="append-only"), begin(application_url) as connection:
        connection.execute(text(statement))
    assert [line.actor for line in history(application_url, "fails")] == ["dagster run 4711"]


def test_time_and_login_are_the_database_s_own(application_url):
    with begin(application_url) as connection:
        connection.execute(
            text(
                "INSERT INTO promotions (use_case, action, to_version, actor, is_person, needs_approval, reason, "
                "evidence_hash, recorded_at, database_user) "
                "VALUES ('fails', 'promoted', 1, 'ann', true, false, 'x', 'h', '1999-01-01', 'somebody')"
            )
        )
    (line,) = history(application_url, "fails")
    assert line.recorded_at.year > 2000
    assert line.database_user == "postgres"


def test_a_promotion_that_needs_approval_is_approved_by_another_person(application_url):
    request = add(application_url, "requested", 2, actor=ANN, needs_approval=True)
    for wrong, actor in (("another person approves it", ANN), ("ck_promotions_approved", RUN)):
        with pytest.raises(LedgerError, match=wrong):
            add(application_url, "promoted", 2, actor=actor, needs_approval=True, request_id=request.id)
    with pytest.raises(LedgerError, match="no request to promote version 3"):
        add(application_url, "promoted", 3, actor=BOB, needs_approval=True, request_id=request.id)
    with pytest.raises(LedgerError, match="ck_promotions_approved"):
        add(application_url, "promoted", 2, actor=BOB, needs_approval=True)
    assert add(application_url, "promoted", 2, actor=BOB, needs_approval=True, request_id=request.id).actor == "bob"
    with pytest.raises(LedgerError, match="uq_promotions_request_id"):
        add(application_url, "promoted", 2, actor=BOB, needs_approval=True, request_id=request.id)


def test_what_is_not_said_is_refused(application_url):
    with pytest.raises(LedgerError, match="ck_promotions_said"):
        add(application_url, "promoted", 1, reason="")
    with pytest.raises(LedgerError, match="ck_promotions_evidence"):
        add(application_url, "promoted", 1, evidence_hash=None)


def test_the_ledger_tells_champion_predecessor_and_what_is_open(application_url):
    assert last_change(application_url, "fails") is None
    add(application_url, "promoted", 1)
    add(application_url, "promoted", 2, from_version=1)
    assert replaced_by(application_url, "fails", 2) == 1
    add(application_url, "requested", 3, needs_approval=True)
    assert open_request(application_url, "fails").to_version == 3
    add(application_url, "rolled_back", 1, from_version=2, evidence_hash=None)
    assert open_request(application_url, "fails") is None, "its evidence compares with another champion"
    assert last_change(application_url, "fails").to_version == 1
    assert was_rolled_back(application_url, "fails", 2)
    assert not was_rolled_back(application_url, "fails", 1)
    assert last_change(application_url, "other") is None
