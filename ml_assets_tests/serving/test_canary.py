"""A canary's share and its guard: what must hold for any entities, scores and shares."""

import math
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from ml_assets.database.connect import connect
from ml_assets.database.promotions import (
    declare_tiers,
    last_change,
    record,
    running_canary,
    was_taken_back,
    writing,
)
from ml_assets.learning.calibration import Calibration
from ml_assets.learning.scorer import Scorer
from ml_assets.serving import beside, models
from ml_assets.serving.canary import Canary, Guard, Seen, judge_canary, log_odds_difference, place
from ml_assets.serving.state import make_state, score_rows
from ml_assets.spec import CanarySpec
from ml_assets_tests.serving.bench import Bench
from ml_assets_tests.serving.filled import MARKET as SMALL_MARKET
from ml_assets_tests.serving.filled import NAME, RUN, SMALL, files_of, identity_of

MARKET = SMALL_MARKET
SPEC = CanarySpec(min_scores=50)
NONE = np.array([])
shares = st.floats(0.01, 0.99)


@given(st.text(max_size=20), st.text(max_size=20), shares)
@settings(max_examples=25)
def test_a_share_is_that_of_the_entities(use_case: str, run: str, share: float) -> None:
    """Guards the promise of a tenth: it lies within five standard deviations of the binomial, whatever the names."""
    n = 2000
    answered = sum(place(use_case, run, f"SI-{entity}") < share for entity in range(n))
    assert abs(answered - n * share) <= 5 * (n * share * (1 - share)) ** 0.5 + 1


@given(st.text(), st.text(), st.text(), shares, shares)
def test_an_entity_stays_where_it_is_and_a_wider_canary_keeps_it(
    use_case: str, run: str, entity: str, one: float, other: float
) -> None:
    at = place(use_case, run, entity)
    assert 0 <= at <= 1
    assert place(use_case, run, entity) == at
    assert (at < min(one, other)) <= (at < max(one, other))


def test_the_place_is_the_one_that_is_documented() -> None:
    """Guards pods of two releases side by side, which must send an entity to one model: the number is for ever."""
    assert place("settlement_fails", "run1", "SI-1") == int.from_bytes(bytes.fromhex("560f801c904a6256"), "big") / 2**64


def seen(**changes: object) -> Seen:
    nothing = dict.fromkeys(("champion", "canary", "champion_seconds", "canary_seconds"), NONE)
    return Seen(**({"tried": 0, "failed": 0} | nothing | changes))


probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=200).map(np.array)


@given(probabilities, st.integers(0, 1000))
def test_like_models_break_no_limit_however_much_is_seen(scores: np.ndarray, tried: int) -> None:
    times = scores + 0.001
    verdict = judge_canary(SPEC, seen(tried=tried, champion=scores, canary=scores.copy(), champion_seconds=times,
                                      canary_seconds=times.copy()))  # fmt: skip
    assert verdict.passed
    assert (len(scores) >= 50) == ("log_odds" in {condition.name for condition in verdict.conditions})


@given(probabilities, probabilities)
def test_a_difference_is_a_distance(one: np.ndarray, other: np.ndarray) -> None:
    n = min(len(one), len(other))
    one, other = one[:n], other[:n]
    assert 0 <= log_odds_difference(one, other) <= 2 * np.log(999) + 1e-9
    assert log_odds_difference(one, other) == pytest.approx(log_odds_difference(other, one))
    assert log_odds_difference(one, one) == 0


EVEN = np.linspace(0.01, 0.99, 60)


@pytest.mark.parametrize(
    ("what", "broken"),
    [
        ({"tried": 49, "failed": 49}, set()),
        ({"tried": 50, "failed": 1}, {"errors"}),
        ({"tried": 1000, "failed": 10}, set()),
        ({"champion": EVEN[:49], "canary": 1 - EVEN[:49]}, set()),
        ({"champion": EVEN, "canary": 1 - EVEN}, {"log_odds"}),
        ({"champion": EVEN, "canary": np.full(60, 0.5)}, {"log_odds", "score_psi"}),
        ({"champion": EVEN, "canary": EVEN * 0.95}, set()),
        ({"champion_seconds": EVEN, "canary_seconds": EVEN * 2.9}, set()),
        ({"champion_seconds": EVEN, "canary_seconds": EVEN * 3.1}, {"latency_ratio"}),
    ],
)
def test_each_limit_is_judged_once_enough_was_seen(what: dict, broken: set[str]) -> None:
    verdict = judge_canary(SPEC, seen(**what))
    assert {condition.name for condition in verdict.failures} == broken


def test_a_guard_compares_a_decision_by_its_newest_scores() -> None:
    guard = Guard(CanarySpec(min_scores=2))
    guard.compared(["a", "b"], np.array([0.1, 0.2]), np.array([0.9, 0.9]))
    assert not guard.judge().passed
    guard.compared(["a", "b"], np.array([0.1, 0.2]), np.array([0.1, 0.2]))
    assert guard.judge().passed


def canary_of(bench: Bench, scorer: Scorer) -> Canary:
    """A canary of half of the entities, whose model is the champion's but for the scorer."""
    line = last_change(bench.url, NAME)
    line = replace(line, action="canary", share=0.5)
    return Canary(line, replace(bench.scoring.state(NAME).model, scorer=scorer), Guard(SMALL.gate.canary))


def test_where_a_canary_fails_the_champion_answers_and_the_guard_counts(bench: Bench) -> None:
    """A model that wants a feature which the rows do not have, and one whose calibration gives no probability."""
    state = bench.scoring.state(NAME)
    good = state.model.scorer
    features = msgspec.structs.replace(good.manifest.features, numeric=(*good.manifest.features.numeric, "unheard_of"))
    lacking = msgspec.structs.replace(good.manifest, features=features)
    strange = msgspec.structs.replace(good.manifest, calibration=Calibration("platt", a=math.nan))
    for manifest in (lacking, strange):
        canary = canary_of(bench, Scorer(good.model, manifest))
        scored = score_rows(SMALL, state.table.rows, state.model, canary)
        assert {answer["stage"] for answer in scored.answers} == {"champion"}
        assert [one["probability"] for one in scored.answers] == [one["probability"] for one in state.answers]
        (errors,) = canary.guard.judge().failures
        assert (errors.name, errors.value) == ("errors", 1.0)
    canary = canary_of(bench, good)
    assert {one["stage"] for one in score_rows(SMALL, state.table.rows, state.model, canary).answers} == {
        "champion", "canary",
    }  # fmt: skip
    assert canary.guard.judge().passed


def test_without_the_database_a_canary_is_taken_back_here_and_the_ledger_told_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards callers while the database is away: the guard does not wait for it, and does not forget."""
    monkeypatch.setattr(beside, "_WRITE_AGAIN", 0.0)
    state = bench.scoring.state(NAME)
    engine = connect(bench.url)
    away = [True]

    def database() -> Engine:
        if away:
            raise OperationalError("SELECT", {}, Exception("the server has closed the connection"))
        return engine

    watched = beside.Beside(SMALL, database, lambda run, _: files_of(bench.models.parent, run), lambda: None)
    other = replace(SMALL, name="elsewhere")
    declare_tiers(bench.url, {other.name: "low"})
    lines = ((1, "registered", None), (2, "registered", None), (1, "promoted", None), (2, "canary", 0.5))
    with writing(bench.url, other.name) as ledger:
        for version, action, share in lines:
            model = identity_of(bench.models.parent, version)
            line = record(ledger, other.name, action, model=model, actor=RUN, reason="x", share=share)
    assert not watched.follow(line, None)
    assert watched.turn(state), "it has begun"
    answering = make_state(SMALL, state.table, state.model, watched.canary)
    assert {one["stage"] for one in answering.answers} == {"champion", "canary"}
    assert watched.turn(answering), "it has ended"
    assert watched.canary is None
    assert not watched.follow(line, None)
    assert not watched.turn(state), "and does not begin again, though the ledger says so"
    assert running_canary(bench.url, other.name) == line
    away.clear()
    watched.turn(state)
    assert running_canary(bench.url, other.name) is None
    assert was_taken_back(bench.url, other.name, "run2")
    engine.dispose()


def test_a_model_beside_the_champion_that_is_refused_is_none_and_is_tried_ever_more_seldom(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the processor: a predecessor of another feature set is refused for ever, and was opened twice a second."""
    now, fetched = [1000.0], []
    monkeypatch.setattr(models, "time", SimpleNamespace(monotonic=lambda: now[0]))
    line = last_change(bench.url, NAME)

    def fetch(run: str, _: str) -> models.ModelFiles:
        fetched.append(run)
        return files_of(bench.models.parent, run)

    keeper = models.SideKeeper(SMALL, fetch, tuple)
    keeper.follow(line)
    assert keeper.model is not None
    keeper.follow(swapped := replace(line, model_hash="0" * 64))
    assert (keeper.model, "not those that were approved" in keeper.trouble) == (None, True)
    tries = []
    for _ in range(600):
        keeper.follow(swapped)
        tries.append(len(fetched))
        now[0] += 1.0
    assert tries[-1] - tries[0] <= 9
    keeper.follow(None)
    assert (keeper.model, keeper.trouble) == (None, "")
    keeper.follow(line)
    assert keeper.model is not None, "another line is tried at once"
    again = models.SideKeeper(SMALL, fetch, lambda: (None, keeper.model))
    before = len(fetched)
    again.follow(line)
    assert (again.model, len(fetched)) == (keeper.model, before), "what is open already is not opened twice"
