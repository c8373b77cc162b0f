"""Checks of predictions."""

from collections.abc import Sequence

import dagster as dg

from ml_assets.governance.conditions import sentence
from ml_assets.learning.score_checks import DateVerdict

SCORE_DISTRIBUTION = "score_distribution"


def score_check(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check of the scores, which is judged before they are published."""
    return dg.AssetCheckSpec(
        SCORE_DISTRIBUTION,
        asset=asset,
        blocking=True,
        description=(
            "Scores, categories and missing values are about as in the model's calibration window. Judged before "
            "anything is published: what does not hold is refused."
        ),
    )


def judge_scores(judged: Sequence[DateVerdict], asset: dg.AssetKey, despite: str = "") -> dg.AssetCheckResult:
    """Return whether the scores of every date pass; a warning if they fail and are published `despite` that."""
    failures = [f"{one.decision_date}: {sentence(c)}" for one in judged for c in one.verdict.failures]
    unjudged = [f"{one.decision_date}: {one.why}" for one in judged if one.why]
    return dg.AssetCheckResult(
        check_name=SCORE_DISTRIBUTION,
        asset_key=asset,
        passed=not failures,
        severity=dg.AssetCheckSeverity.WARN if despite else dg.AssetCheckSeverity.ERROR,
        metadata={
            "rows": sum(one.rows for one in judged),
            "what does not hold": "\n".join(failures) or "nothing",
            "not judged": "\n".join(unjudged) or "none",
            **({"published despite that": despite} if despite else {}),
        },
    )
