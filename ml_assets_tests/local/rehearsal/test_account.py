"""What a rehearsed year is judged by, on mornings and decisions that are made up."""

from dataclasses import replace
from datetime import date, datetime, time, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.learning.gate import Verdict
from ml_assets.local.rehearsal.account import (
    NEVER,
    NOBODY,
    ORACLE,
    RULE,
    TEAM,
    Cost,
    Decisions,
    Flagged,
    alarms,
    brakes,
    costs,
    false_alarms,
    flagged,
    goals,
    lift_share,
    limits,
    recoveries,
)
from ml_assets.local.rehearsal.mornings import BY_SCHEDULE, Morning, Training
from ml_assets.local.rehearsal.plan import COUNTERPARTY, FEED, HISTORY, Plan, with_bad_challenger
from ml_assets.local.rehearsal.play import chase
from ml_assets.local.simulation.market import Change
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

PLAN = Plan(days=100, changes=(Change(COUNTERPARTY, 40), Change(FEED, 70, 75)))
DAYS = 60


def mornings(**drifted):
    """A hundred mornings; `d40=["a"]` drifts on day 40."""
    at = {int(day[1:]): dict.fromkeys(names, "why") for day, names in drifted.items()}
    return [Morning(n, date(2025, 1, 2) + timedelta(days=n), 1, drifted=at.get(n, {})) for n in range(PLAN.days)]


def decided(seed=0):
    """Decisions of sixty days: the oracle knows, the rule guesses, the old model is blind in the second half."""
    rng = np.random.default_rng(seed)
    per_day, first = 200, date(2025, 1, 2)
    true = rng.beta(0.4, 4, DAYS * per_day)
    day = np.repeat(np.arange(DAYS), per_day)
    due = [first + timedelta(days=int(n)) for n in day]
    noise = rng.permutation(true)
    rows = pa.table(
        {
            "entity_id": [f"I{n}" for n in range(len(true))],
            "decision_time": pa.array([datetime.combine(one, time(7)) for one in due], pa.timestamp("us", "UTC")),
            "slot": ["isd_morning"] * len(true),
            "outcome_date": pa.array(due, pa.date32()),
        }
    )
    blind = np.where(day < 22, true, noise)
    return Decisions(
        rows, rng.random(len(true)) < true, rng.uniform(50, 150, len(true)),
        {RULE: 0.5 * true + 0.5 * noise, NEVER: blind, TEAM: true, ORACLE: true},
    )  # fmt: skip


def test_an_alarm_is_what_drifts_and_did_not_on_the_day_before():
    raised = alarms(mornings(d40=["a"], d41=["a", "b"], d42=["a"], d44=["a"]))
    assert raised == {40: ["a"], 41: ["b"], 44: ["a"]}


def test_a_change_is_flagged_by_the_first_alarm_from_the_day_that_shows_it():
    found = flagged(PLAN, mornings(d39=["before"], d43=["group C0"], d90=["late"]))
    assert found == [Flagged(PLAN.changes[0], 42, 1, "group C0"), Flagged(PLAN.changes[1], 70, 20, "late")]
    assert flagged(PLAN, mornings())[0].after is None


def test_quiet_days_are_those_of_no_change_nor_its_aftermath_nor_of_going_live():
    count, days = false_alarms(PLAN, mornings(d5=["live"], d61=["x"], d45=["own"], d72=["own"], d97=["x"]))
    assert days == 10 + 5, "60 to 69 and 95 to 99"
    assert count == 2


def test_every_list_has_the_same_capacity_and_the_oracle_saves_most():
    usecase = replace(USE_CASE, capacity=20)
    decisions = decided()
    acted = {row["entity_id"] for row in decisions.rows.slice(0, 30).to_pylist()}
    found = costs(usecase, decisions, acted, 30)
    assert found[NOBODY].penalty == pytest.approx(decisions.cost[decisions.failed].sum())
    assert found[RULE].acts == found[ORACLE].acts == 20 * DAYS
    assert found[ORACLE].penalty < found[RULE].penalty < found[NOBODY].penalty
    saved = decisions.failed[:30] @ decisions.cost[:30]
    assert found[TEAM].penalty == pytest.approx(found[NOBODY].penalty - saved)
    assert sum(found[RULE].by_month.values()) == pytest.approx(found[RULE].penalty)
    assert found[RULE].acting == 20 * DAYS * usecase.action.cost


def test_no_list_is_better_than_the_oracles_and_a_larger_share_that_settles_makes_the_most_of_it():
    """Guards a goal that nobody can reach, held against a model."""
    found = limits(replace(USE_CASE, capacity=20), decided())
    assert [(one.capacity, one.effectiveness) for one in found] == [(c, e) for e in (0.5, 0.8) for c in (10, 20, 40)]
    assert all(one.model == pytest.approx(one.oracle) for one in found), "here the models know the truth"
    assert all(b.oracle > a.oracle > 0 for a, b in zip(found[:3], found[3:], strict=True))


def test_what_a_model_that_is_never_retrained_has_lost_is_what_can_be_recovered():
    decisions = decided()
    plan = replace(PLAN, days=DAYS, changes=(Change(COUNTERPARTY, 20),))
    year = SimpleNamespace(plan=plan, usecase=USE_CASE, mornings=mornings()[:DAYS])
    (found,) = recoveries(year, decisions)
    assert found.before == pytest.approx(1.0)
    assert found.never < 0.2
    assert found.lost.value == pytest.approx(found.before - found.never)
    assert found.lost.low < found.lost.value < found.lost.high
    assert found.lost.low > 0.5
    assert found.share == pytest.approx(1.0)
    assert lift_share(decisions, ORACLE, np.ones(len(decisions.failed), dtype=bool)) == 1.0
    year.plan = replace(plan, changes=(Change(COUNTERPARTY, 20, 25),))
    assert recoveries(year, decisions) == [], "what is over by then is not to be recovered from"


def test_a_loss_that_chance_explains_is_nothing_to_recover():
    """Guards a goal that was missed by chance: twenty days of another luck looked like a loss of 4 %."""
    decisions = decided()
    luck = np.exp(np.random.default_rng(1).normal(0, 0.5, len(decisions.failed)))
    as_ever = replace(
        decisions, probabilities={**decisions.probabilities, NEVER: decisions.probabilities[ORACLE] * luck}
    )
    plan = replace(PLAN, days=DAYS, changes=(Change(COUNTERPARTY, 20),))
    year = SimpleNamespace(plan=plan, usecase=USE_CASE, mornings=mornings()[:DAYS])
    (found,) = recoveries(year, as_ever)
    assert found.lost.low < 0 < found.lost.high
    assert np.isnan(found.share)
    lists = {name: Cost(1.0 + n, 0, 0.0, {}) for n, name in enumerate((ORACLE, TEAM, NEVER, RULE, NOBODY))}
    goal = next(one for one in goals(lists, [], (0, 60), [found]) if one.what.startswith("lift recovered"))
    assert goal.reached is None
    assert goal.came.endswith("of the best lift: nothing to recover")


def test_goals_are_missed_where_they_are():
    lists = {name: Cost(penalty, 0, 0.0, {}) for name, penalty in
             ((NOBODY, 100.0), (RULE, 60.0), (NEVER, 50.0), (TEAM, 44.0), (ORACLE, 40.0))}  # fmt: skip
    flags = [Flagged(PLAN.changes[0], 42, 3, "a"), Flagged(PLAN.changes[1], 70, None, "")]
    found = goals(lists, flags, (1, 60), [])
    assert [one.reached for one in found] == [True, False, True, True, True]
    assert not any(one.beyond for one in found), "the oracle's list is a third below the rule's"
    lists[TEAM] = Cost(50.0, 0, 0.0, {})
    assert [one.reached for one in goals(lists, flags, (2, 60), [])] == [True, False, False, False, False]
    lists[ORACLE] = Cost(46.0, 0, 0.0, {})
    assert [one.what for one in goals(lists, flags, (2, 60), []) if one.beyond] == [
        "penalties below the rule's, at equal capacity"
    ]


def test_a_bad_model_that_passes_and_one_that_learns_a_broken_feed_are_said():
    """Guards a rehearsal in which a model learned fees in percent, and nobody was told."""

    def trained(day, why, outcome):
        return Training(day, why, day, "run", Verdict(passed=outcome != "refused", conditions=()), outcome)

    year, plan = mornings(), replace(PLAN, bad_challenger=20)
    assert [one.reached for one in brakes(plan, year)] == [False, True], "it was not trained at all"
    year[20].trainings.append(trained(20, "a data scientist's model", "refused"))
    year[71].trainings.append(trained(71, BY_SCHEDULE, "awaiting approval"))
    assert [one.reached for one in brakes(plan, year)] == [True, True]
    year[72].trainings.append(trained(72, "3 of the last 5", "refused"))
    assert [(one.reached, one.came) for one in brakes(plan, year)] == [(True, "refused"), (False, "1, by version 72")]


def test_a_plan_is_a_market_whose_changes_come_after_its_history():
    config = PLAN.market(USE_CASE)
    assert config.days == HISTORY + 100
    assert USE_CASE.calendar.add(config.start, HISTORY) == PLAN.start
    assert [(one.first, one.end) for one in config.changes] == [(100, None), (130, 135)]
    half = Plan.of_days(125)
    assert [one.first for one in half.changes] == [one.first // 2 for one in Plan().changes]
    assert [one.end and one.end - one.first for one in half.changes] == [None, None, 7, 10, None]
    assert Plan.of_days(250) == Plan()


def test_chasing_helps_as_often_as_the_use_case_says_and_the_same_one_for_everybody():
    asked = [chase(USE_CASE, f"I{n}", "isd_morning") for n in range(4000)]
    assert abs(np.mean(asked) - USE_CASE.action.effectiveness) < 0.03
    assert asked[:50] == [chase(USE_CASE, f"I{n}", "isd_morning") for n in range(50)]


def test_the_bad_challenger_differs_in_its_features_alone():
    usecase = PLAN.usecase(USE_CASE)
    bad = with_bad_challenger(usecase)
    assert [one.name for one in bad.candidates] == [one.name for one in usecase.candidates]
    assert bad.feature_set_hash == usecase.feature_set_hash
    assert usecase.action.taken
