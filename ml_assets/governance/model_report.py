"""What a change does to the models: each trained on a sample by the code before and by the code after, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ml_assets.governance.pack import markdown_table
from ml_assets.learning.bootstrap import paired_interval
from ml_assets.learning.gate import Verdict
from ml_assets.learning.metrics import evaluate
from ml_assets.learning.statistics import METRICS
from ml_assets.learning.window import Window
from ml_assets.spec import UseCase

USECASES = PurePosixPath("ml_assets/usecases")
# A change here can change every model.
SHARED = tuple(PurePosixPath("ml_assets", part) for part in ("features", "learning", "lifecycle", "spec.py"))
_SHOWN = (
    "base_rate", "pr_auc", "per_day_pr_auc", "roc_auc", "brier", "brier_skill", "calibration_error",
    "recall_at_capacity", "cost_captured_at_capacity", "saved_per_day",
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """The challenger that one state of the code trained on the sample: its test window, and (n,) probabilities."""

    commit: str
    candidate: str
    window: Window
    probabilities: NDArray[np.float64]
    verdict: Verdict


def touched(changed: Iterable[str], usecases: Sequence[str]) -> list[str]:
    """Return which use cases the changed files, paths within the repository, can change the model of."""
    paths = [PurePosixPath(path) for path in changed]
    if any(path == shared or shared in path.parents for path in paths for shared in SHARED):
        return list(usecases)
    return [name for name in usecases if any(USECASES / name in path.parents for path in paths)]


def model_report(usecase: UseCase, before: Trained | None, after: Trained, *, sample: str) -> str:
    """Return the comparison as Markdown. `before` is None for a use case that is new.

    Differences have the interval of the gate (days resampled in pairs) where both models were judged on the same
    decisions; a change of the label or of what is decided leaves nothing to pair.
    """
    paired = before is not None and before.window.hash == after.window.hash
    lines = [
        f"## {usecase.title}",
        f"Trained on a sample, {sample}; tested on {len(after.window):,} unseen decisions. What holds of a sample need "
        "not hold of production's data: there the gate judges again.",
        markdown_table(_metrics(usecase, before, after, paired=paired)),
    ]
    if before is not None and not paired:
        lines.append("**The two were not tested on the same decisions**: entities, decision times or labels differ.")
    failed = after.verdict.failures
    lines.append(
        f"The gate says **{'yes' if after.verdict.passed else 'no'}** to the model of this change"
        + (":" if failed else f": all {len(after.verdict.conditions)} conditions hold.")
    )
    if failed:
        lines.append(
            markdown_table(
                [
                    {"condition": c.name, "value": c.value, "must be": f"{c.comparison} {c.threshold}", "why": c.why}
                    for c in failed
                ]
            )
        )
    return "\n\n".join(lines) + "\n"


def _metrics(usecase: UseCase, before: Trained | None, after: Trained, *, paired: bool) -> list[dict[str, object]]:
    def measured(model: Trained) -> dict[str, float]:
        return evaluate(model.window, model.probabilities, capacity=usecase.capacity, action=usecase.action)

    new, old = measured(after), measured(before) if before else None
    named = f"this change ({after.candidate}, {after.commit[:9]})"
    rows: list[dict[str, object]] = []
    for name in _SHOWN:
        row: dict[str, object] = {"metric": name}
        if before is not None and old is not None:
            row[f"before ({before.candidate}, {before.commit[:9]})"] = old[name]
        row[named] = new[name]
        if before is not None and old is not None:
            row["difference"] = new[name] - old[name]
            row["interval"] = _interval(usecase, before, after, name) if paired and name in METRICS else ""
        rows.append(row)
    return rows


def _interval(usecase: UseCase, before: Trained, after: Trained, metric: str) -> str:
    """Return the ends of the interval of a difference; the rows of both are brought into one order first."""
    old, new = _order(before.window), _order(after.window)
    found = paired_interval(
        after.window.take(new), after.probabilities[new], before.probabilities[old],
        metric=metric, confidence=usecase.gate.confidence, seed=usecase.seed,
    )  # fmt: skip
    return f"{found.low:+.4f} to {found.high:+.4f}"


def _order(window: Window) -> NDArray[np.int64]:
    return np.lexsort((window.entity_ids.astype(str), window.decision_times))
