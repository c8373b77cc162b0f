"""Scores of the live table go to Kafka as they come or change: of each entity what consumers do not have yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial

from ml_assets.contracts import Event
from ml_assets.predictions.changed import Score, remember, to_tell
from ml_assets.serving.recorder import Recorder


class ScoreStream:
    """Tells the scores of one use case that consumers do not have yet.

    A score counts as told once the broker has it. What was dropped on the way is told with the next table, and after a
    restart all scores are told again, with the ids that they had.

    Args:
        recorder: produces them.
        topic: where to.
        least_change: by how much, in probability, a score must differ from the one told before.
    """

    def __init__(self, recorder: Recorder, topic: str, *, least_change: float = 0.01) -> None:
        self._recorder = recorder
        self._topic = topic
        self._least_change = least_change
        self._lock = threading.Lock()
        self._told: dict[str, Score] = {}
        self._on_the_way: dict[str, Score] = {}

    def tell(
        self, now: Mapping[str, Score], event_of: Callable[[str, Score], Event], *, most: int | None = None
    ) -> int:
        """Produce the event of each score of a table that is to be told, by entity; return how many that is.

        With `most`, not more than so many: the others are told when this is called again.
        """
        with self._lock:
            self._told = remember(self._told, now, ())
            self._on_the_way = {entity: score for entity, score in self._on_the_way.items() if entity in now}
            chosen = to_tell({**self._told, **self._on_the_way}, now, self._least_change)[:most]
            self._on_the_way |= {entity: now[entity] for entity in chosen}
        for entity in chosen:
            score = now[entity]
            self._recorder.record(self._topic, entity, event_of(entity, score), partial(self._settled, entity, score))
        return len(chosen)

    def _settled(self, entity: str, score: Score, arrived: bool) -> None:
        with self._lock:
            if self._on_the_way.get(entity) is score:
                del self._on_the_way[entity]
            if arrived:
                self._told[entity] = score
