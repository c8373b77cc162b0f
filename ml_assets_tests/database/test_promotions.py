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
    champion_before,
    declare_tiers,
    former_champions,
    history,
    in_force,
    last_change,
    open_request,
    record,
    registered,
    was_rolled_back,
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
