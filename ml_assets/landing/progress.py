"""Whether each partition advances while the broker has more of it: what readiness, a metric and a remedy ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping

Partition = tuple[str, int]


class Progress:
    """Since when each partition that is behind has stood where it stands.

    A partition `stands` once that is `patience` seconds.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._since: dict[Partition, tuple[Hashable, float]] = {}

    def look(self, behind: Mapping[Partition, Hashable]) -> None:
        """Note the partitions that are behind, each with where it stands; those not named have caught up."""
        now = self._clock()
        self._since = {
            part: self._since[part] if part in self._since and self._since[part][0] == at else (at, now)
            for part, at in behind.items()
        }

    def forget(self) -> None:
        """Start again, after a time in which no partition could have advanced."""
        self._since = {}

    def standing(self) -> dict[Partition, float]:
        """Return for how many seconds those stand that stand for too long."""
        now = self._clock()
        return {part: now - since for part, (_, since) in self._since.items() if now - since >= self._patience}
