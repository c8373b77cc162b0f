"""A canary: the entities that it answers for, and the guard that takes it back. Nothing here reads or writes."""

import threading
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml_assets.database.promotions import LedgerEntry
from ml_assets.learning.gate import Condition, Verdict, require
from ml_assets.learning.stability import population_stability
from ml_assets.lot import lot
from ml_assets.serving.models import OpenModel
from ml_assets.spec import CanarySpec

Floats = NDArray[np.float64]
# Probabilities are cut to this range: log-odds beyond it do not show how models differ.
_LEAST, _MOST = 0.001, 0.999
# The guard judges the newest scores and times, up to these numbers.
_MOST_SCORES, _MOST_TIMED = 50_000, 1_000


def place(use_case: str, run_id: str, entity: str) -> float:
    """Return the place of an entity in [0, 1]; a canary answers for the entities whose place is below its share.

    The place depends on the entity and the model only, so every pod gives the same answer, and the canary of another
    model has other entities.
    """
    return lot(use_case, run_id, entity)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of a canary: how many scores were tried, how many failed, and pairs of scores and of times.

    `champion` and `canary` (n,) are the models' probabilities of the same decisions. `champion_seconds` and
    `canary_seconds` (m,) are the processor times in which each model scored the same single decision.
    """

    tried: int
    failed: int
    champion: Floats
    canary: Floats
    champion_seconds: Floats
    canary_seconds: Floats


def judge_canary(spec: CanarySpec, seen: Seen) -> Verdict:
    """Return the verdict on a canary; a limit has no condition until `min_scores` of its measurements are there."""
    conditions = tuple(_conditions(spec, seen))
    return Verdict(passed=all(condition.passed for condition in conditions), conditions=conditions)


def _conditions(spec: CanarySpec, seen: Seen) -> Iterator[Condition]:
    if seen.tried >= spec.min_scores:
        yield require(
            "errors", seen.failed / seen.tried, "<=", spec.max_errors, f"share of {seen.tried:,} scores that it gives"
        )
    if len(seen.canary_seconds) >= spec.min_scores:
        ratio = float(np.quantile(seen.canary_seconds, 0.99) / np.quantile(seen.champion_seconds, 0.99))
        why = f"p99 of {len(seen.canary_seconds):,} scores, over the champion's"
        yield require("latency_ratio", ratio, "<=", spec.max_latency_ratio, why)
    if len(seen.canary) >= spec.min_scores:
        why = f"mean absolute difference from the champion's on {len(seen.canary):,} decisions"
        yield require("log_odds", log_odds_difference(seen.champion, seen.canary), "<=", spec.max_log_odds, why)
        psi = population_stability(seen.champion, seen.canary)
        yield require("score_psi", psi, "<=", spec.max_psi, "its scores are distributed like the champion's")


def log_odds_difference(one: Floats, other: Floats) -> float:
    """Return the mean absolute difference of the log-odds of probabilities (n,), each within [0.001, 0.999]."""
    return float(np.abs(_log_odds(one) - _log_odds(other)).mean())


def _log_odds(probabilities: Floats) -> Floats:
    clipped = np.clip(probabilities, _LEAST, _MOST)
    return np.asarray(np.log(clipped / (1 - clipped)))


def are_probabilities(scores: Floats) -> bool:
    """Return whether all scores are in [0, 1]; NaN is not."""
    return bool(np.all((scores >= 0) & (scores <= 1)))


class Guard:
    """Collects the measurements of one canary from all threads and judges them; each canary's ledger line has one."""

    def __init__(self, spec: CanarySpec) -> None:
        self._spec = spec
        self._tried, self._failed = 0, 0
        self._scores: dict[Hashable, tuple[float, float]] = {}
        self._seconds: deque[tuple[float, float]] = deque(maxlen=_MOST_TIMED)
        self._lock = threading.Lock()

    def tried(self, scores: int, failed: int) -> None:
        """Add the number of scores that were requested from the canary, and how many of them it failed to give."""
        with self._lock:
            self._tried += scores
            self._failed += failed

    def compared(self, decisions: Iterable[Hashable], champion: Floats, canary: Floats) -> None:
        """Add both models' scores of decisions; newer scores of the same decision replace the older ones."""
        with self._lock:
            self._scores.update(zip(decisions, zip(champion.tolist(), canary.tolist(), strict=True), strict=True))
            while len(self._scores) > _MOST_SCORES:
                del self._scores[next(iter(self._scores))]

    def timed(self, seconds: Sequence[tuple[float, float]]) -> None:
        """Add the seconds in which champion and canary scored one decision, one pair per decision."""
        with self._lock:
            self._seconds.extend(seconds)

    def judge(self) -> Verdict:
        """Return the verdict on all measurements so far."""
        with self._lock:
            scores = np.array(list(self._scores.values()), dtype=np.float64).reshape(-1, 2)
            seconds = np.array(self._seconds, dtype=np.float64).reshape(-1, 2)
            tried, failed = self._tried, self._failed
        return judge_canary(self._spec, Seen(tried, failed, *scores.T, *seconds.T))


@dataclass(frozen=True)
class Canary:
    """A canary that answers: the line of the ledger that began it, its model, and its guard."""

    line: LedgerEntry
    model: OpenModel
    guard: Guard

    def answers_for(self, entity: str) -> bool:
        """Return whether the entity is in its share."""
        return place(self.line.use_case, self.model.run_id, entity) < (self.line.share or 0)
