"""Performance estimated from probabilities alone, and held against what came out."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.learning.statistics import average_precision
from ml_assets.monitoring.estimate import ESTIMATED, _pr_auc, estimates, expected, reconcile
from ml_assets.spec import MonitoringSpec
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.monitoring.made import outcomes

USECASE = dataclasses.replace(USE_CASE, capacity=40)


def of(rows: list[dict[str, object]], metric: str) -> list[dict[str, object]]:
    return [row for row in rows if row["metric"] == metric]


def test_what_comes_out_of_true_probabilities_is_what_was_expected() -> None:
    """The truth is known here: the band of 95 % must hold about so many days, and no estimate is withdrawn."""
    rows = estimates(USECASE, outcomes(USECASE, days=24)).to_pylist()
    for metric in ESTIMATED:
        days = of(rows, metric)
        held = [row["low"] <= row["realised"] <= row["high"] for row in days]
        assert np.mean(held) >= 0.85, metric
        assert np.mean([row["estimated"] for row in days]) == pytest.approx(
            np.mean([row["realised"] for row in days]), rel=0.08
        )
        assert all(row["published"] for row in days)


def test_estimates_are_withdrawn_while_probabilities_are_wrong() -> None:
    """It cannot see that fails have become half as likely as it says: what came out tells, and it is silent."""
    rows = estimates(USECASE, outcomes(USECASE, days=10, distort=lambda p: np.minimum(1.0, 2 * p), waiting=2))
    found = of(rows.to_pylist(), "base_rate")
    assert {row["published"] for row in found} == {False}
    assert found[-1]["why"].startswith("withdrawn: over 8 complete dates 0.1")
    assert [row["realised"] is None for row in found] == [False] * 8 + [True] * 2


def test_before_anything_has_come_out_an_estimate_is_published_and_says_so() -> None:
    rows = estimates(USECASE, outcomes(USECASE, days=3, waiting=3)).to_pylist()
    assert {row["published"] for row in rows} == {True}
    assert {row["why"] for row in rows} == {"0 complete dates are too few to judge the estimate"}


def test_the_same_outcomes_give_the_same_estimates() -> None:
    made = outcomes(USECASE, days=2, per_day=50)
    assert estimates(USECASE, made).equals(estimates(USECASE, made))
    assert estimates(USECASE, made.slice(0, 0)).num_rows == 0


def test_a_small_error_and_one_that_chance_explains_are_borne() -> None:
    spec = MonitoringSpec(max_estimate_error=0.25)

    def says(estimated: float, half: float, realised: float) -> bool:
        row = {"estimated": estimated, "low": estimated - half, "high": estimated + half, "realised": realised}
        return reconcile(spec, [row] * 9).holds

    assert says(0.12, 0.01, 0.10)
    assert not says(0.13, 0.01, 0.10)
    assert says(0.13, 0.10, 0.10)  # nine days of it: chance explains a third
    assert not says(0.13, 0.08, 0.10)


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), max_size=40), st.integers(0, 3))
def test_estimates_are_shares_within_their_band(probabilities: list[float], every: int) -> None:
    p = np.array(probabilities)
    listed = np.arange(len(p)) % (every + 1) == 0
    for name, found in expected(p, listed).items():
        defined = len(p) > 0 and (name != "pr_auc" or p.sum() > 1e-3)
        if defined and np.isfinite(found.value):
            assert 0 <= found.low <= found.high <= 1, name
            assert 0 <= found.value <= 1, name
        elif not len(p):
            assert np.isnan(found.value), name


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.9]), st.booleans()), min_size=1, max_size=40))
def test_the_area_of_many_draws_at_once_is_that_of_each_also_with_ties(drawn):
    """Guards the estimate against a second definition of PR-AUC: drawn and realised are the same metric."""
    p = np.sort(np.array([p for p, _ in drawn]))[::-1]
    labels = np.array([y for _, y in drawn], dtype=np.float64)
    if labels.any():
        both = _pr_auc(np.stack([labels > 0, np.zeros(len(p), dtype=bool)]), p)
        assert both[0] == pytest.approx(average_precision(labels, p))
        assert np.isnan(both[1]), "a draw without a fail has none"
