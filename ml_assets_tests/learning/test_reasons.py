"""Reasons sum to the score, are the Shapley values of the causes, and do not depend on the kind of model."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from ml_assets.learning import candidates
from ml_assets.learning.calibration import Calibration, log_odds
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.frames import model_arrays
from ml_assets.learning.reasons import OTHER, Explainer, as_seen_by, main_cause, reason_codes, shapley_weights
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.training_set import part_of
from ml_assets_tests.learning.conftest import CAUSE_OF, explained

KINDS = {
    "rule": candidates.rule("fail_rate_20d", description=""),
    "logistic": candidates.logistic(),
    "lightgbm": candidates.lightgbm(n_estimators=30, num_leaves=15),
    "hist_gradient_boosting": candidates.hist_gradient_boosting(max_iter=20),
}


@pytest.fixture(scope="module")
def grouped(usecase):
    return explained(usecase)


@pytest.fixture(scope="module")
def fitted(grouped, training_set):
    return {kind: fit_candidate(grouped, candidate, training_set) for kind, candidate in KINDS.items()}


@pytest.fixture(scope="module")
def rows(training_set):
    return part_of(training_set, "test").slice(0, 60)


@pytest.mark.parametrize("kind", KINDS)
def test_base_and_contributions_are_the_log_odds_of_the_probability(kind, grouped, fitted, rows):
    scorer = fitted[kind].scorer
    probabilities = scorer.score(rows)
    found = Explainer(grouped, scorer).explain(rows, probabilities)
    assert len({reasons.base for reasons in found}) == 1, "the base is the model's, not the decision's"
    for reasons, probability in zip(found, probabilities, strict=True):
        assert set(reasons.contributions) == {"LACK", "CLAC", "MONY", OTHER}
        total = reasons.base + sum(reasons.contributions.values())
        assert total == pytest.approx(log_odds(probability), abs=1e-5)
        assert reasons.log_odds == pytest.approx(log_odds(probability), abs=1e-6)


@pytest.mark.parametrize("kind", ["logistic", "lightgbm"])
def test_they_are_the_mean_over_all_orders_in_which_causes_arrive(kind, grouped, fitted, rows):
    """The definition of the Shapley value, computed by hand: four causes, 24 orders, each background decision."""
    scorer = fitted[kind].scorer
    names, one = scorer.manifest.features, rows.slice(7, 1)
    (found,) = Explainer(grouped, scorer).explain(one, scorer.score(one))
    numbers, categories = model_arrays(names, one)
    background = scorer.manifest.background
    theirs = (
        np.array([[np.nan if v is None else v for v in background[n]] for n in names.numeric], np.float32).T,
        np.array([background[n] for n in names.categorical], dtype=object).T,
    )
    members = {code: [n for n in names.all if CAUSE_OF.get(n, OTHER) == code] for code in found.contributions}

    def value(coalition):
        own = {name for code in coalition for name in members[code]}
        mixed_numbers, mixed_categories = theirs[0].copy(), theirs[1].copy()
        for i, name in enumerate(names.numeric):
            if name in own:
                mixed_numbers[:, i] = numbers[0, i]
        for i, name in enumerate(names.categorical):
            if name in own:
                mixed_categories[:, i] = categories[0, i]
        return log_odds(scorer.score_arrays(mixed_numbers, mixed_categories)).mean()

    orders = list(itertools.permutations(members))
    gains = dict.fromkeys(members, 0.0)
    for order in orders:
        for position, code in enumerate(order):
            gains[code] += (value(order[: position + 1]) - value(order[:position])) / len(orders)
    assert found.contributions == pytest.approx(gains, abs=2e-5)


def test_a_cause_that_the_model_does_not_use_contributes_nothing(grouped, fitted, rows):
    scorer = fitted["rule"].scorer
    for reasons in Explainer(grouped, scorer).explain(rows, scorer.score(rows)):
        assert [reasons.contributions[code] for code in ("LACK", "MONY", OTHER)] == [0, 0, 0]


def test_a_feature_that_is_a_formula_of_others_leads_to_their_causes(grouped, fitted, rows):
    """Guards: a checklist would say 'other' of everything, though it only counts what has a cause."""
    points = {"fail_rate_20d": lambda columns: np.nan_to_num(columns["scarcity"])}
    features = tuple(
        dataclasses.replace(f, cause="" if f.name in points else f.cause, explained_by=points.get(f.name))
        for f in grouped.features
    )
    usecase = dataclasses.replace(grouped, features=features)
    scorer = fitted["rule"].scorer
    changed = rows.set_column(rows.column_names.index("fail_rate_20d"), "fail_rate_20d", rows["scarcity"])
    background = {**scorer.manifest.background, "fail_rate_20d": scorer.manifest.background["scarcity"]}
    manifest = type(scorer.manifest)(
        **{**{n: getattr(scorer.manifest, n) for n in scorer.manifest.__struct_fields__}, "background": background}
    )
    composed = Scorer(scorer.model, manifest)
    found = Explainer(usecase, composed).explain(changed, composed.score(changed))
    assert max(abs(reasons.contributions["LACK"]) for reasons in found) > 0.1
    for reasons in found:
        assert reasons.contributions[OTHER] == pytest.approx(0, abs=1e-5)
        assert reasons.base + sum(reasons.contributions.values()) == pytest.approx(reasons.log_odds, abs=1e-5)


def test_calibration_is_part_of_what_is_shared_out(grouped, fitted, rows):
    scorer = fitted["logistic"].scorer
    fields = {n: getattr(scorer.manifest, n) for n in scorer.manifest.__struct_fields__}
    plain, steeper = (
        Scorer(scorer.model, type(scorer.manifest)(**{**fields, "calibration": calibration}))
        for calibration in (Calibration(), Calibration("platt", a=2.0, b=-0.5))
    )
    before, after = (Explainer(grouped, s).explain(rows, s.score(rows)) for s in (plain, steeper))
    for one, other in zip(before, after, strict=True):
        assert other.contributions == pytest.approx({c: 2 * v for c, v in one.contributions.items()}, abs=1e-4)
        assert other.base == pytest.approx(2 * one.base - 0.5, abs=1e-4)


def test_the_codes_name_the_main_cause_and_its_action(usecase, grouped, fitted, rows):
    scorer = fitted["logistic"].scorer
    texts = reason_codes(grouped, scorer, rows, scorer.score(rows))
    assert texts == reason_codes(grouped, scorer, rows, scorer.score(rows)), "again the same, to the last digit"
    for text in texts:
        said = json.loads(text)
        raising = {c: v for c, v in said["contributions"].items() if v > 0 and c != OTHER}
        assert said["cause"] == (max(raising, key=raising.get) if raising else None)
        assert said["action"] == {c.code: c.action for c in grouped.causes}.get(said["cause"])
    assert reason_codes(usecase, scorer, rows, scorer.score(rows)) == [None] * 60


def test_a_cause_is_named_as_it_meets_us(grouped, fitted, rows):
    scorer = fitted["logistic"].scorer
    (reasons,) = Explainer(grouped, scorer).explain(rows.slice(0, 1), scorer.score(rows.slice(0, 1)))
    usecase = dataclasses.replace(grouped, cause_for=lambda code, said: said.get(code, code))
    seen = as_seen_by(usecase, reasons, {"LACK": "CLAC"})
    before = reasons.contributions
    assert seen.contributions["CLAC"] == pytest.approx(before["CLAC"] + before["LACK"], abs=1e-6)
    assert "LACK" not in seen.contributions
    assert main_cause((), reasons) is None


def test_a_model_without_background_says_what_to_do(grouped, fitted):
    scorer = fitted["logistic"].scorer
    fields = {n: getattr(scorer.manifest, n) for n in scorer.manifest.__struct_fields__}
    with pytest.raises(ValueError, match=r"without background decisions.*retrain it"):
        Explainer(grouped, Scorer(scorer.model, type(scorer.manifest)(**{**fields, "background": {}})))


def test_the_weights_share_out_all_that_there_is():
    weights = shapley_weights(5)
    values = np.random.default_rng(1).normal(size=32)
    assert (weights @ values).sum() == pytest.approx(values[-1] - values[0])
