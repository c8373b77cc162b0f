import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.learning.calibration import Calibration, brier, choose_calibration, with_level
from ml_assets.learning.metrics import reliability


def _draw(n: int, seed: int, distort: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return distorted probabilities and outcomes of the true ones."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2, 1.2, n)
    y = rng.random(n) < 1 / (1 + np.exp(-logit))
    return 1 / (1 + np.exp(-(distort * logit + shift))), y.astype(float)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 4000),
    seed=st.integers(0, 1000),
    distort=st.floats(0.2, 4),
    shift=st.floats(-3, 3),
)
def test_calibrated_probabilities_keep_order_and_bounds(n: int, seed: int, distort: float, shift: float) -> None:
    p, y = _draw(n, seed, distort, shift)
    calibration, _ = choose_calibration(p, y)
    grid = np.linspace(0, 1, 2001)
    out = calibration.apply(grid)
    assert (out >= 0).all()
    assert (out <= 1).all()
    assert (np.diff(out) >= 0).all()
    if n > 1:  # no two probabilities that the model told apart become one
        assert (np.diff(calibration.apply(np.unique(p.clip(1e-9, 1 - 1e-6)))) > 0).all()
    assert Calibration.from_json(calibration.to_json()) == calibration
    assert np.array_equal(Calibration.from_json(calibration.to_json()).apply(grid), out)


@pytest.mark.parametrize(("distort", "shift"), [(2.5, 1.0), (0.4, -1.0)])
def test_distorted_probabilities_are_repaired(distort: float, shift: float) -> None:
    p, y = _draw(20_000, 1, distort, shift)
    fresh, outcomes = _draw(20_000, 2, distort, shift)
    calibration, _ = choose_calibration(p, y)
    assert calibration.method != "none"
    assert brier(calibration.apply(fresh), outcomes) < brier(fresh, outcomes)
    table = reliability(outcomes, calibration.apply(fresh))
    assert (table["mean_probability"] - table["observed_rate"]).abs().mean() < 0.02


def test_a_step_is_for_isotonic_not_platt() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(30_000)
    y = (rng.random(30_000) < np.where(p < 0.5, 0.05, 0.3)).astype(float)
    calibration, _ = choose_calibration(p, y)
    assert calibration.method == "isotonic"
    assert abs(calibration.apply([0.25])[0] - 0.05) < 0.02


@pytest.mark.parametrize("labels", [np.zeros(500), np.ones(500), np.array([])])
def test_one_outcome_only_stays_uncalibrated(labels: np.ndarray) -> None:
    """Guards the quiet week: no fail in the calibration window must not give a curve."""
    assert choose_calibration(np.linspace(0.01, 0.5, len(labels)), labels)[0] == Calibration()


def test_constant_probabilities_do_not_break() -> None:
    y = (np.arange(2000) % 5 == 0).astype(float)
    out = choose_calibration(np.full(2000, 0.4), y)[0].apply([0.4])
    assert 0 <= out[0] <= 1


def test_a_model_that_ranks_backwards_is_not_turned_around() -> None:
    p, y = _draw(5000, 3, 1, 0)
    out = choose_calibration(1 - p, y)[0].apply(np.linspace(0, 1, 101))
    assert (np.diff(out) >= 0).all()


def test_rounding_differences_stay_rounding_differences() -> None:
    """Guards the proof of the export: many equal probabilities once gave knots 1e-17 apart, a slope of 1e4."""
    rng = np.random.default_rng(0)
    p = np.where(rng.random(60_000) < 0.3, 0.1, rng.beta(1, 9, 60_000))
    y = (rng.random(60_000) < np.where(p < 0.15, 0.02, 0.4)).astype(float)
    calibration, _ = choose_calibration(p, y)
    assert calibration.method == "isotonic"
    assert np.abs(calibration.apply(p + 1e-8) - calibration.apply(p)).max() < 1e-6


@pytest.mark.parametrize(
    "shape",
    [Calibration(), Calibration("platt", a=0.7, b=1.5), Calibration("isotonic", x=(0.0, 0.2, 1.0), y=(0.0, 0.4, 0.9))],
)
def test_the_level_is_moved_and_the_order_kept(shape: Calibration) -> None:
    """Guards calibration in the large: the mean is the share that failed, whatever gave the shape."""
    p, y = _draw(20_000, 4, 1, 1.2)
    moved = with_level(shape, p, y)
    assert moved.apply(p).mean() == pytest.approx(y.mean(), abs=1e-9)
    grid = moved.apply(np.linspace(0, 1, 500))
    assert (np.diff(grid) > 0).all()
    assert 0 <= grid.min() < grid.max() <= 1
    assert Calibration.from_json(moved.to_json()) == moved
    if shape.method != "isotonic":
        assert moved.a == shape.a


@pytest.mark.parametrize("labels", [np.zeros(50), np.ones(50), np.array([])])
def test_one_outcome_only_gives_no_level(labels: np.ndarray) -> None:
    shape = Calibration("platt", a=0.7, b=1.5)
    assert with_level(shape, np.linspace(0.01, 0.5, len(labels)), labels) == shape
