"""The population stability index."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.learning.stability import population_stability


def test_scores_that_move_are_unstable() -> None:
    rng = np.random.default_rng(0)
    before = rng.beta(1, 9, 20_000)
    assert population_stability(before, rng.beta(1, 9, 20_000)) < 0.01
    assert population_stability(before, rng.beta(2, 9, 20_000)) > 0.25
    assert math.isnan(population_stability(before, []))
    assert math.isfinite(population_stability(np.full(10, 0.1), np.full(10, 0.9))), "an empty group is not infinite"


@given(st.lists(st.floats(0, 1), min_size=20, max_size=200), st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_stability_is_zero_of_itself_and_never_negative(before: list[float], after: list[float]) -> None:
    assert population_stability(before, before) == 0
    assert population_stability(before, after) >= 0
