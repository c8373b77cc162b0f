"""The promotion ledger: what its functions say. Who may write what to it is in `hostile/test_ledger.py`."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ml_assets.database.connect import begin
from ml_assets.database.promotions import (
    Actor,
    LedgerError,
    ModelIdentity,
    canary_of,
    champion_before,
    declare_tiers,
    former_champions,
    history,
    in_force,
    judged_beside,
    last_change,
    newest_of_canaries,
    open_request,
    record,
    registered,
    running_canary,
    take_back,
    was_rolled_back,
    was_taken_back,
    writing,
)

RUN, ANN = Actor.run("4711"), Actor.person("ann")


def model(version: int) -> ModelIdentity:
    return ModelIdentity(version, f"run{version}", f"{version:064d}", "e" * 64)


@pytest.fixture
def url(application_url: str) -> str:
    """A database whose ledger knows three models of a use case of tier low."""
    declare_tiers(application_url, {"fails": "low"})
    for version in (1, 2, 3):
        add(application_url, "registered", version)
    return application_url


def add(url, action, version, *, actor=RUN, **said):
    with writing(url, "fails") as ledger:
        return record(ledger, "fails", action, model=model(version), actor=actor, **({"reason": "x"} | said))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE promotions SET actor = 'nobody'", "DELETE FROM promotions", "TRUNCATE promotions"],
)
def test_the_database_itself_refuses_to_change_what_is_written(url, statement):
    with pytest.raises(DBAPIError, match="append-only"), begin(url) as connection:
        connection.execute(text(statement))
    assert len(history(url, "fails")) == 3


def test_what_the_database_knows_itself_is_its_own(url):
    add(url, "promoted", 1)
    line = add(url, "promoted", 2)
    assert (line.from_version, line.from_run_id, line.database_user) == (1, "run1", "postgres")
    assert abs(line.recorded_at - datetime.now(UTC)) < timedelta(minutes=5)
    with pytest.raises(LedgerError, match="ck_promotions_said"):
        add(url, "promoted", 3, reason="")


def test_the_tier_in_the_database_decides_who_must_approve(url):
    """Guards: a run said itself whether its promotion needed approval."""
    assert not add(url, "promoted", 1).needs_approval
    declare_tiers(url, {"fails": "high"})
    with pytest.raises(LedgerError, match="ck_promotions_approved"):
        add(url, "promoted", 2)
    assert add(url, "requested", 2).needs_approval


def test_the_ledger_tells_champion_predecessor_and_what_is_open(url):
    assert last_change(url, "fails") is None
    first = add(url, "promoted", 1)
    second = add(url, "promoted", 2)
    assert champion_before(url, "fails", second) == first
    assert champion_before(url, "fails", first) is None
    assert [line.to_version for line in former_champions(url, "fails")] == [2, 1]
    add(url, "requested", 3)
    add(url, "registered", 3)
    assert open_request(url, "fails").to_version == 3
    back = add(url, "rolled_back", 1, actor=ANN)
    assert open_request(url, "fails") is None, "its evidence compares with another champion"
    assert last_change(url, "fails") == back
    assert was_rolled_back(url, "fails", "run2")
    assert not was_rolled_back(url, "fails", "run1")
    assert registered(url, "fails", "run9") is None
    assert last_change(url, "other") is None


def test_the_promotion_in_force_is_that_of_the_moment(url):
    """Guards lineage: a prediction showed the newest promotion of its version, not the one under which it scored."""
    first = add(url, "promoted", 1)
    second = add(url, "promoted", 2)
    again = add(url, "rolled_back", 1, actor=ANN)
    for moment, run_id, line in (
        (first.recorded_at, "run1", first),
        (second.recorded_at, "run2", second),
        (second.recorded_at, "run1", None),
        (again.recorded_at, "run1", again),
        (first.recorded_at - timedelta(seconds=1), "run1", None),
    ):
        assert in_force(url, "fails", run_id, moment) == line


def test_the_newest_line_says_whether_a_canary_runs(url):
    assert running_canary(url, "fails") is None
    champion = add(url, "promoted", 1)
    first = add(url, "canary", 2, share=0.1)
    assert (running_canary(url, "fails"), first.from_version, first.share) == (first, 1, 0.1)
    wider = add(url, "canary", 2, share=0.5)
    assert running_canary(url, "fails") == wider
    assert last_change(url, "fails") == champion
    assert canary_of(url, "fails", "run2", first.recorded_at) == first
    assert canary_of(url, "fails", "run3", wider.recorded_at) is None
    ended = add(url, "canary_ended", 2, actor=ANN)
    assert (running_canary(url, "fails"), newest_of_canaries(url, "fails")) == (None, ended)
    add(url, "canary", 3, share=0.2)
    add(url, "promoted", 3)
    assert running_canary(url, "fails") is None, "the next champion ends a canary"
    assert newest_of_canaries(url, "fails") is None


def test_the_guard_ends_the_canary_that_it_means_once(url):
    """Guards against a pod that judges late: it must not end the canary that a person has begun since."""
    add(url, "promoted", 1)
    first = add(url, "canary", 2, share=0.1)
    assert take_back(url, first, "PSI 0.9, limit 0.5")
    assert not take_back(url, first, "PSI 0.9, limit 0.5")
    line = newest_of_canaries(url, "fails")
    assert (line.action, line.actor, line.is_person, line.reason) == (
        "canary_ended", "canary guard", False, "PSI 0.9, limit 0.5",
    )  # fmt: skip
    assert was_taken_back(url, "fails", "run2")
    with pytest.raises(LedgerError, match="only a person promotes it"):
        add(url, "promoted", 2)
    again = add(url, "canary", 2, share=0.1, actor=ANN)
    assert not take_back(url, first, "late")
    assert running_canary(url, "fails") == again
    assert not was_taken_back(url, "fails", "run2")


def test_a_canary_hides_no_request(url):
    add(url, "promoted", 1)
    asked = add(url, "requested", 2)
    add(url, "canary", 3, share=0.1)
    add(url, "canary_ended", 3, actor=ANN)
    assert open_request(url, "fails") == asked
    as_canary = add(url, "requested", 2, share=0.1)
    assert open_request(url, "fails") == as_canary
    add(url, "canary", 2, share=0.1, request_id=as_canary.id, actor=ANN)
    assert open_request(url, "fails") is None


def test_the_challenger_is_the_newest_that_was_judged_and_after_a_promotion_the_predecessor(url):
    first = add(url, "promoted", 1)
    assert judged_beside(url, "fails", first) is None, "what was only registered was refused by the gate"
    asked = add(url, "requested", 3)
    assert judged_beside(url, "fails", first) == asked
    add(url, "canary", 2, share=0.1)
    third = add(url, "promoted", 3)
    assert judged_beside(url, "fails", third) == first
    assert judged_beside(url, "fails", add(url, "rolled_back", 1, actor=ANN)) == third
