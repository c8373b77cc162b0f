from types import SimpleNamespace

import numpy as np
import pytest

from ml_assets.governance.model_report import Trained, model_report, touched
from ml_assets.learning.gate import Condition, Verdict
from ml_assets.learning.window import Window
from ml_assets.spec import FREE_ACTION

KNOWN = ["cns_fails", "settlement_fails"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (["ml_assets/usecases/cns_fails/features/balances.sql"], ["cns_fails"]),
        (["ml_assets/usecases/cns_fails_too/usecase.py", "README.md", "ml_assets/landing/lander.py"], []),
        (["ml_assets/learning/fit.py"], KNOWN),
        (["ml_assets/spec.py"], KNOWN),
        ([], []),
    ],
)
def test_what_a_change_touches(changed, expected):
    assert touched(changed, KNOWN) == expected


def window(rng, n=400, days=8):
    times = np.datetime64("2026-01-05T16:00") + np.arange(n) % days * np.timedelta64(1, "D")
    nothing = np.full(n, np.nan)
    return Window(
        np.array([f"i{k}" for k in range(n)], dtype=object), times, times.astype("datetime64[D]"),
        np.array(["16:00"] * n, dtype=object), (rng.random(n) < 0.3).astype(np.int8), rng.random(n) * 100,
        times.astype("datetime64[D]"), nothing,
    )  # fmt: skip


def verdict(*, passed):
    condition = Condition(name="min_lift", value=0.01, comparison=">=", threshold=0.02, passed=passed, why="it helps")
    return Verdict(passed=passed, conditions=(condition,))


@pytest.fixture
def usecase():
    gate = SimpleNamespace(confidence=0.95)
    return SimpleNamespace(title="Late payments", capacity=5, action=FREE_ACTION, gate=gate, seed=1)


@pytest.fixture
def before():
    rng = np.random.default_rng(3)
    seen = window(rng)
    return Trained("a" * 40, "logistic", seen, np.clip(0.3 + rng.normal(0, 0.1, len(seen)), 0, 1), verdict(passed=True))


def row(report, metric):
    (line,) = (line for line in report.splitlines() if line.startswith(f"| {metric} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_better_model_is_seen_with_its_interval(usecase, before):
    """The rows come in another order, as another run of the lifecycle may leave them."""
    other = np.random.default_rng(4).permutation(len(before.window))
    better = np.clip(before.window.labels * 0.6 + before.probabilities / 3, 0, 1)
    after = Trained("b" * 40, "lightgbm", before.window.take(other), better[other], verdict(passed=True))
    report = model_report(usecase, before, after, sample="40 days")
    _, old, new, difference, interval = row(report, "pr_auc")
    assert float(new) == 1.0
    assert float(difference) == pytest.approx(1 - float(old), abs=1e-3)
    low, high = (float(end) for end in interval.split(" to "))
    assert 0 < low < float(difference) < high
    assert "before (logistic, aaaaaaaaa)" in report
    assert "all 1 conditions hold" in report


def test_a_model_that_the_gate_refuses_names_the_condition(usecase, before):
    after = Trained("b" * 40, "lightgbm", before.window, before.probabilities, verdict(passed=False))
    report = model_report(usecase, before, after, sample="40 days")
    assert "The gate says **no**" in report
    assert "| min_lift | 0.01 | >= 0.02 | it helps |" in report


def test_other_decisions_are_told_and_not_paired(usecase, before):
    after = Trained(
        "b" * 40, "logistic", before.window.take(np.arange(300)), before.probabilities[:300], verdict(passed=True)
    )
    report = model_report(usecase, before, after, sample="40 days")
    assert "not tested on the same decisions" in report
    assert row(report, "pr_auc")[-1] == ""


def test_a_new_use_case_has_nothing_to_compare_with(usecase, before):
    report = model_report(usecase, None, before, sample="40 days")
    assert "before" not in report
    assert "difference" not in report
