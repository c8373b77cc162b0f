"""Some weeks of the rehearsal, through the real stages: a counterparty degrades, a bad model is registered."""

import tempfile
from pathlib import Path

import pytest

from ml_assets.local.rehearsal.account import NOBODY, ORACLE, TEAM, costs, flagged
from ml_assets.local.rehearsal.plan import COUNTERPARTY, Plan
from ml_assets.local.rehearsal.run import decisions_of, played
from ml_assets.local.simulation.market import Change
from ml_assets.settings import Settings
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

pytestmark = pytest.mark.rehearsal

PLAN = Plan(
    days=16, changes=(Change(COUNTERPARTY, 8),), bad_challenger=5, retrain_every=14,
    instructions_per_day=400, counterparties=20, securities=60, capacity=40,
)  # fmt: skip


@pytest.fixture(scope="module")
def played_weeks():
    """The weeks, and their decisions with the probabilities of each list.

    The home is not below pytest's own folder, which the user that PostgreSQL runs as cannot enter.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ml_assets_") as home,
        played(Settings(home=Path(home), threads=1), PLAN, USE_CASE, print) as (year, platform),
    ):
        yield year, decisions_of(year, platform)


def test_nothing_is_called_drift_of_outcomes_because_the_team_acts(played_weeks):
    """Guards a rule that retrains in the first week, since what the team prevents looks like false alarms."""
    year, _ = played_weeks
    quiet = year.mornings[: PLAN.first_shown(PLAN.changes[0])]
    assert [name for one in quiet for name in one.drifted if name.startswith("group")] == []
    assert {one.decision.outcome for one in quiet} == {"wait"}
    assert all(one.acted > 0 for one in year.mornings)


def test_the_bad_challenger_is_refused_and_the_good_one_is_approved_the_morning_after(played_weeks):
    year, _ = played_weeks
    trainings = {one.day: one for morning in year.mornings for one in morning.trainings}
    bad = trainings[PLAN.bad_challenger]
    assert (bad.outcome, bad.verdict.passed) == ("refused", False)
    assert "pr_auc_against_champion" in {one.name for one in bad.verdict.failures}
    assert {one.champion for one in year.mornings[: PLAN.bad_challenger + 3]} == {1}
    for training in trainings.values():
        if training.outcome == "awaiting approval" and training.day + 1 < PLAN.days:
            after = year.mornings[training.day + 1]
            assert after.approved == after.champion == training.version


def test_the_counterparty_that_degrades_is_named_within_three_business_days(played_weeks):
    year, _ = played_weeks
    (found,) = flagged(PLAN, year.mornings)
    assert found.after is not None
    assert found.after <= 3
    after = [name for one in year.mornings[found.shown :] for name in one.drifted]
    assert "group counterparty Counterparty 0" in after


def test_what_was_saved_has_settled_and_the_account_adds_up(played_weeks):
    year, decisions = played_weeks
    found = costs(year.usecase, decisions, year.saved, year.acts)
    assert found[ORACLE].penalty < found[TEAM].penalty < found[NOBODY].penalty
    assert found[TEAM].acts == sum(one.acted for one in year.mornings)
