"""The stream of scores to Kafka: new and changed scores of the live table that consumers do not have yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial

from ml_assets.contracts import Event
from ml_assets.predictions.changed import Score, remember, to_tell
from ml_assets.serving.recorder import Recorder


class ScoreStream:
    """Produces the scores of one use case that consumers do not have yet.

    A score counts as sent once the broker has it. A score that was dropped is sent with the next table. After a restart
    all scores are sent again, with the same ids.

    Args:
        recorder: produces the events.
        topic: the topic to produce to.
        least_change: the least difference, in probability, from the score that was sent before.
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
        """Produce an event for each score in `now`, by entity, that consumers do not have; return the number of events.

        With `most`, at most that many events are produced; the others are produced in the next call.
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
