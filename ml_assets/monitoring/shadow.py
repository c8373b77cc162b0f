"""The verdict on a shadow model: it and the champion on the same live decisions with known outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.learning.bootstrap import Interval, metric_value, paired_interval
from ml_assets.learning.metrics import worklist
from ml_assets.learning.statistics import decision_statistics
from ml_assets.learning.window import Window
from ml_assets.monitoring.outcomes import BATCH
from ml_assets.spec import UseCase

SHADOW = "shadow"
Says = Literal["better", "worse", "no difference", "too early"]
# With fewer decision dates there is no verdict, because the bootstrap draws days.
_LEAST_DAYS = 5
_KEYS = ["entity_id", "decision_time"]


@dataclass(frozen=True, slots=True)
class Trained:
    """A model: its version, its MLflow run, and the time `until` which it has learned from outcomes."""

    version: int
    run_id: str
    until: datetime


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """The comparison of the shadow model with the champion on the same decisions.

    `gain` is the shadow's metric less the champion's, with its interval over days. `saved` is how much more acting on
    the shadow's lists would have saved per decision date, in the use case's currency.
    """

    champion: Trained
    shadow: Trained
    metric: str
    of_champion: float
    of_shadow: float
    gain: Interval
    saved: float
    n: int
    positives: int
    days: int
    says: Says

    @property
    def sentence(self) -> str:
        """The verdict as a sentence for people."""
        on = f"on {self.n:,} decisions of {self.days} dates with {self.positives:,} fails"
        if self.says == "too early":
            return f"too early to judge version {self.shadow.version} in the shadow {on}"
        return (
            f"version {self.shadow.version} in the shadow: {self.says} than champion {self.champion.version} "
            if self.says != "no difference"
            else f"version {self.shadow.version} in the shadow: no difference to champion {self.champion.version} "
        ) + (
            f"{on}: {self.metric} {self.of_shadow:.3f} against {self.of_champion:.3f}, gain {self.gain.value:+.3f} "
            f"({self.gain.low:+.3f} to {self.gain.high:+.3f}); saves {self.saved:+,.0f} a day"
        )


def judge_shadow(usecase: UseCase, rows: pa.Table, champion: Trained, shadow: Trained) -> ShadowVerdict:
    """Return the verdict on decisions that both models have scored and neither had learned from.

    `rows` are judged predictions (`outcomes.judged_rows`) of the stages batch and shadow. Only decisions that both
    stages scored count. The verdict is better or worse if the interval of the gain, by the gate's paired bootstrap over
    days, excludes 0. With fewer than `MonitoringSpec.min_positives` fails or five days it is too early.
    """
    pairs = _pairs(rows, champion, shadow)
    window = Window.of(pairs)
    ours, theirs = (pairs[name].to_numpy().astype(np.float64) for name in ("probability", "in_shadow"))
    gate, days, positives = usecase.gate, len(np.unique(window.dates)), int(window.labels.sum())
    if days < _LEAST_DAYS or positives < usecase.monitoring.min_positives:
        nothing = float("nan")
        empty = Interval(nothing, nothing, nothing)
        return ShadowVerdict(
            champion, shadow, gate.metric, nothing, nothing, empty, nothing, len(window), positives, days, "too early"
        )
    gain = paired_interval(
        window, theirs, ours, metric=gate.metric, confidence=gate.confidence, resamples=gate.resamples,
        seed=usecase.seed,
    )  # fmt: skip
    says: Says = "better" if gain.low > 0 else "worse" if gain.high < 0 else "no difference"
    of_champion, of_shadow = (metric_value(window, p, gate.metric) for p in (ours, theirs))
    saved = _saved(usecase, window, theirs) - _saved(usecase, window, ours)
    return ShadowVerdict(
        champion, shadow, gate.metric, of_champion, of_shadow, gain, saved, len(window), positives, days, says
    )


def _pairs(rows: pa.Table, champion: Trained, shadow: Trained) -> pa.Table:
    """Return the champion's rows with the shadow's probability of the same decision, in order."""

    def of(stage: str, model: Trained) -> pa.Table:
        mine = pc.and_(pc.equal(rows["stage"], stage), pc.equal(rows["mlflow_run_id"], model.run_id))
        unseen = pc.greater_equal(rows["decision_time"], pa.scalar(max(champion.until, shadow.until)))
        return rows.filter(pc.and_(mine, unseen))

    other = of(SHADOW, shadow).select([*_KEYS, "probability"]).rename_columns([*_KEYS, "in_shadow"])
    pairs = of(BATCH, champion).join(other, keys=_KEYS, join_type="inner")
    return pairs.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])


def _saved(usecase: UseCase, window: Window, p: np.ndarray) -> float:
    chosen = worklist(window, p, capacity=usecase.capacity, action=usecase.action)
    return decision_statistics(window, chosen, usecase.action)["saved_per_day"].value()
