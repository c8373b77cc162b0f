from collections.abc import Callable

import numpy as np
import pytest

from ml_assets.learning import plots

RNG = np.random.default_rng(0)
P = RNG.beta(1, 8, 20_000)
Y = (RNG.random(20_000) < P).astype(np.int8)
CONFUSION = {"tp": 120, "fp": 380, "fn": 60, "tn": 12_400}
CASES: dict[str, Callable[[], bytes]] = {
    "reliability": lambda: plots.reliability_plot(Y, P),
    "precision_recall": lambda: plots.precision_recall_plot(
        Y,
        {"lightgbm": P * RNG.uniform(0.5, 1, len(P)), "rule": RNG.random(len(P))},
        best_reachable=P,
    ),
    "confusion": lambda: plots.confusion_plot(CONFUSION),
    "importances": lambda: plots.importance_plot({f"feature_{i}": 0.1 / (i + 1) for i in range(30)}),
    "no_rows": lambda: plots.reliability_plot([], []),
    "no_fails": lambda: plots.precision_recall_plot(np.zeros(10), {"a": np.linspace(0, 1, 10)}),
    "unknown_importances": lambda: plots.importance_plot({"a": float("nan")}),
}


@pytest.mark.parametrize("name", CASES)
def test_plot_is_a_small_png(name: str) -> None:
    png = CASES[name]()
    assert png.startswith(b"\x89PNG")
    assert len(png) < 40_000


def test_plots_leave_no_state() -> None:
    """Guards a long-running code server: pyplot keeps every figure that it made."""
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    CASES["confusion"]()
    assert plt.get_fignums() == before
