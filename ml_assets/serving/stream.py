"""The stream `predictions`: scores of the live table that are new or have changed, for who does not want to ask."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime
from functools import partial

from ml_assets.answers import CHANGED_SCORES, ChangedScore
from ml_assets.predictions.changed import Score, remember, to_tell
from ml_assets.serving.recorder import Recorder


class ScoreStream:
    """Tells the scores of one use case that consumers do not have yet.

    A score counts as told once the broker has it. What was dropped on the way is told with the next table, and after a
    restart all scores are told again, with the ids that they had.

    Args:
        recorder: produces them.
        use_case: name of the use case.
        least_change: by how much, in probability, a score must differ from the one told before.
    """

    def __init__(self, recorder: Recorder, use_case: str, *, least_change: float = 0.01) -> None:
        self._recorder = recorder
        self._use_case = use_case
        self._least_change = least_change
        self._lock = threading.Lock()
        self._told: dict[str, Score] = {}
        self._on_the_way: dict[str, Score] = {}

    def tell(
        self, now: Mapping[str, Score], expected_costs: Mapping[str, float], *,
        as_of: datetime, model_version: int, feature_set_hash: str,
    ) -> int:  # fmt: skip
        """Produce what is to be told of the scores of a table, by entity, and return how many scores that is.

        `expected_costs` are in the currency of the use case, `as_of` the time at which the table's features were known.
        """
        with self._lock:
            self._told = remember(self._told, now, ())
            self._on_the_way = {entity: score for entity, score in self._on_the_way.items() if entity in now}
            chosen = to_tell({**self._told, **self._on_the_way}, now, self._least_change)
            self._on_the_way |= {entity: now[entity] for entity in chosen}
        for entity in chosen:
            score = now[entity]
            event = ChangedScore(
                event_id=ChangedScore.id_of(
                    self._use_case, entity, score.decision_date, score.slot, score.mlflow_run_id, score.probability
                ),
                event_time=as_of, use_case=self._use_case, entity_id=entity, decision_date=score.decision_date,
                slot=score.slot, model_version=model_version, mlflow_run_id=score.mlflow_run_id,
                feature_set_hash=feature_set_hash, probability=score.probability,
                expected_cost=expected_costs[entity],
            )  # fmt: skip
            self._recorder.record(CHANGED_SCORES.topic, entity, event, partial(self._settled, entity, score))
        return len(chosen)

    def _settled(self, entity: str, score: Score, arrived: bool) -> None:
        with self._lock:
            if self._on_the_way.get(entity) is score:
                del self._on_the_way[entity]
            if arrived:
                self._told[entity] = score
