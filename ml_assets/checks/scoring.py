"""Checks of predictions."""

import dagster as dg
import numpy as np
from numpy.typing import NDArray

SCORE_DISTRIBUTION = "score_distribution"
# Below this many rows the spread of the scores says nothing.
_ENOUGH = 100


def score_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check that the scores are spread as those of a working model are."""
    return dg.AssetCheckSpec(
        SCORE_DISTRIBUTION,
        asset=asset,
        description="Scores differ from each other, and do not call most decisions a fail: else an input is broken.",
    )


def judge_scores(probabilities: NDArray[np.float64]) -> dg.AssetCheckResult:
    """Return whether the scores are neither all alike nor mostly fails."""
    if len(probabilities) < _ENOUGH:
        return dg.AssetCheckResult(
            check_name=SCORE_DISTRIBUTION, passed=True, metadata={"rows": len(probabilities), "judged": False}
        )
    low, median, high = (float(q) for q in np.quantile(probabilities, [0.05, 0.5, 0.95]))
    return dg.AssetCheckResult(
        check_name=SCORE_DISTRIBUTION,
        passed=high > low and median < 0.5,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"rows": len(probabilities), "5 %": low, "median": median, "95 %": high},
    )
