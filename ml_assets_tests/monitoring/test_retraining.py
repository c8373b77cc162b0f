"""The rule that retrains out of turn, and its brakes."""

import dataclasses
import itertools
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.monitoring.estimate import estimates
from ml_assets.monitoring.retraining import Decision, Facts, JudgedDate, Past, breaches, broken, decide, with_drift
from ml_assets.spec import MonitoringSpec, SinceChangeSpec
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.monitoring.made import CALENDAR, FIRST, outcomes

SPEC = MonitoringSpec(breaches=3, windows=5, min_new_labels=100, min_gap=timedelta(days=3), max_per_week=2)


def dates(*breached: bool, first: date = FIRST) -> list[JudgedDate]:
    return [JudgedDate(CALENDAR.add(first, n), was, "base_rate 0.2, expected 0.1") for n, was in enumerate(breached)]


def facts(judged: list[JudgedDate], **changes: Any) -> Facts:
    newest = judged[-1].day
    made = Facts(newest, newest, judged, champion=1, trained=FIRST - timedelta(days=30), new_labels=500)
    return dataclasses.replace(made, **changes)


BAD = dates(False, True, False, True, True)


def test_it_retrains_after_enough_breaches_and_says_on_what() -> None:
    made = decide(SPEC, facts(BAD))
    assert made.outcome == "retrain"
    assert made.reason.startswith("3 of the last 5 complete outcome dates breach, the newest with base_rate 0.2")
    assert made.numbers["breaches"] == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"red": ["event trades of 2026-01-07: has landed"]}, "an input is incomplete or broken"),
        ({"trained": FIRST + timedelta(days=3)}, "less than 3 days ago"),
        ({"past": [Past(FIRST + timedelta(days=2), "retrain", 0)]}, "less than 3 days ago"),
        ({"past": [Past(FIRST + timedelta(days=n), "retrain", 0) for n in (-2, 0)]}, "in seven days, and no more"),
        ({"new_labels": 99}, "there are 99 outcomes since the last training, and 100 are needed"),
        ({"champion": None}, "there is no champion"),
    ],
)
def test_each_brake_holds_by_itself_and_says_so(changes: dict[str, Any], says: str) -> None:
    made = decide(SPEC, facts(BAD, **changes))
    assert made.outcome == "wait"
    assert says in made.reason


def drift_row(day: date, kind: str, measure: str = "psi", *, drifted: bool = True) -> dict[str, Any]:
    said = {"breached": drifted, "drifted": drifted, "value": 0.2, "why": "so far"}
    return {"decision_date": day, "kind": kind, "name": "x", "measure": measure, **said}


def test_drift_of_what_moves_the_log_odds_is_a_breach_and_what_is_broken_holds_it_back() -> None:
    quiet = dates(False, False, False, False, False)
    days = [one.day for one in quiet]
    after = CALENDAR.next(days[-1])
    moved = [drift_row(days[2], "cause"), drift_row(days[3], "prediction"), drift_row(after, "group")]
    judged = with_drift(quiet, moved)
    assert [one.breached for one in judged] == [False, False, True, True, True], "what is newer counts for the newest"
    assert decide(SPEC, facts(judged)).outcome == "retrain"
    assert "drift of group x (so far)" in decide(SPEC, facts(judged)).reason
    for no_reason in ("feature", "volume", "feed", "slice"):
        assert with_drift(quiet, [drift_row(day, no_reason) for day in days]) == quiet
    assert with_drift(quiet, [drift_row(day, "cause", drifted=False) for day in days]) == quiet
    lost = broken(
        [drift_row(days[1], "feature", "missing"), drift_row(days[4], "feed", "events"), *moved], days[2], 1.0
    )
    assert lost == [f"feed x of {days[4]}: so far"]
    made = decide(SPEC, facts(judged, red=lost))
    assert made.outcome == "wait"
    assert "an input is incomplete or broken" in made.reason


def test_a_feature_that_has_changed_its_unit_is_broken_and_one_that_has_changed_is_not() -> None:
    """Guards a rehearsal in which a model learned fees in percent, was promoted, and met basis points again."""
    day = FIRST
    unit = {**drift_row(day, "feature", "psi", drifted=False), "breached": True, "value": 4.2}
    market = {**drift_row(day, "feature", "psi"), "value": 0.4}
    scores = {**drift_row(day, "prediction", "psi"), "value": 4.2}
    assert broken([unit], day, 1.0) == [f"feature x of {day}: so far"]
    assert broken([market, scores], day, 1.0) == []


def test_what_has_passed_is_not_trained_on() -> None:
    made = decide(SPEC, facts(dates(True, True, True, True, False)))
    assert made.outcome == "wait"
    assert "does not: the change has passed" in made.reason


SINCE = dataclasses.replace(SPEC, since_change=SinceChangeSpec(train_days=3, calibration_days=1, test_days=3))


@pytest.mark.parametrize(
    ("breached", "since", "there"),
    [
        ("....xxx", 4, 3),
        ("x...x.x..x", 4, 6),  # three dates without a breach end the run before
        ("x..x..x..x", 0, 10),
        ("..xx.xxxx.x", 2, 9),
    ],
)
def test_a_change_begins_with_the_first_of_the_newest_run_of_breaches(breached: str, since: int, there: int) -> None:
    judged = dates(*(one == "x" for one in breached))
    made = decide(SINCE, facts(judged))
    assert made.numbers["since"] == judged[since].day.isoformat()
    assert made.numbers["dates since"] == there


def test_it_waits_until_there_are_dates_to_learn_from_since_the_change() -> None:
    """Guards a retraining whose training dates are all older than the change: it would be in vain."""
    change = [False, False, *[True] * 6]
    early, enough = (decide(SINCE, facts(dates(*change, *more))) for more in ([], [True]))
    assert early.outcome == "wait"
    began = dates(*change)[2].day
    assert f"of the 7 dates to learn from there are 6 complete dates since {began}" in early.reason
    assert enough.outcome == "retrain"
    assert f"learning from the 7 complete dates since {began}, when it began" in enough.reason
    without = decide(SPEC, facts(dates(*change)))
    assert without.outcome == "retrain", "a use case that does not say how retrains at once"
    assert "since" not in without.numbers


def test_two_retrainings_without_gain_ask_a_person_and_a_new_champion_starts_anew() -> None:
    past = [Past(FIRST - timedelta(days=days), "retrain", 1) for days in (20, 10)]
    assert decide(SPEC, facts(BAD, past=past)).outcome == "ask a person"
    assert decide(SPEC, facts(BAD, past=past, champion=2)).outcome == "retrain"


def test_nothing_is_judged_across_a_gap_and_the_gap_is_said() -> None:
    """Guards a storm of retrainings over months for which the SEC's files are missing."""
    early, late = dates(True, True, True), dates(True, True, first=FIRST + timedelta(days=60))
    made = decide(SPEC, facts([*early, *late]))
    assert made.outcome == "wait"
    assert "2 of the last 2" in made.reason
    assert "No outcome date from 2026-01-07 to 2026-03-06 is complete" in made.reason
    later = FIRST + timedelta(days=40)
    silent = decide(SPEC, facts(BAD, day=later, due=later))
    assert silent.outcome == "wait"
    assert "No outcome date since 2026-01-09 is complete, and those up to 2026-02-14 are due" in silent.reason
    nothing = facts(BAD, day=later, due=later, trained=FIRST)
    assert "No outcome date since 2026-01-05 is complete" in decide(SPEC, dataclasses.replace(nothing, dates=[])).reason


def test_outcomes_that_are_not_due_yet_are_no_gap() -> None:
    """Guards a use case whose outcomes are published weeks later: it was never retrained out of turn."""
    published = facts(BAD, day=FIRST + timedelta(days=26), due=BAD[-1].day)
    assert decide(SPEC, published).outcome == "retrain"


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 300)), min_size=5, max_size=60))
def test_the_brakes_hold_whatever_happens(days: list[tuple[bool, bool, int]]) -> None:
    """Any run of days: too many retrainings, too near each other, or one too many in vain, never happen."""
    judged = dates(*(breached for breached, _, _ in days))
    past: list[Past] = []
    champion = 1
    made: list[Decision] = []
    for one, (_, gains, labels) in zip(judged, days, strict=True):
        decision = decide(
            SPEC, facts(judged, day=one.day, due=one.day, champion=champion, new_labels=labels, past=past, trained=None)
        )
        past.append(Past(one.day, decision.outcome, champion))
        made.append(decision)
        champion += decision.outcome == "retrain" and gains
    retrained = [decision.day for decision in made if decision.outcome == "retrain"]
    breached = {one.day for one in judged if one.breached}
    assert set(retrained) <= breached
    for first, second in itertools.pairwise(retrained):
        assert second - first >= SPEC.min_gap
    for start in retrained:
        assert sum(start <= day < start + timedelta(days=7) for day in retrained) <= SPEC.max_per_week
    champions = [one.champion for one in past if one.outcome == "retrain"]
    assert max((champions.count(version) for version in champions), default=0) <= SPEC.max_in_vain
    assert all(decision.reason for decision in made)


@pytest.mark.parametrize("seed", range(2))
def test_a_changed_outcome_is_found_in_three_days_and_true_probabilities_are_left_alone(seed: int) -> None:
    usecase = dataclasses.replace(USE_CASE, capacity=40)
    quiet = breaches(usecase.monitoring, estimates(usecase, outcomes(usecase, days=12, seed=seed)).to_pylist())
    assert {decide(SPEC, facts(quiet[: n + 1])).outcome for n in range(len(quiet))} == {"wait"}
    changed = outcomes(usecase, days=3, seed=seed, distort=lambda p: p / 3)
    found = breaches(usecase.monitoring, estimates(usecase, changed).to_pylist())
    assert decide(SPEC, facts(found)).outcome == "retrain"
