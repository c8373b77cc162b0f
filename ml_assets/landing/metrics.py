"""What the lander says of itself: metrics for Prometheus, and whether it lives and is ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# The loop of a lander turns several times a second; one that has not turned for so long hangs.
_HANGS_AFTER = 60.0


class LanderMetrics:
    """Counters and gauges by topic, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of: dict[str, Any] = {"registry": self.registry}
        self.rows = Counter("lander_rows", "Events landed", ["topic"], **of)
        self.bytes = Counter("lander_bytes", "Bytes of messages landed, dead letters included", ["topic"], **of)
        self.dead_letters = Counter("lander_dead_letters", "Messages that break their contract", ["topic"], **of)
        self.not_understood = Counter(
            "lander_not_understood",
            "Dead letters by an error that nobody foresaw: a defect, see the log",
            ["topic"],
            **of,
        )
        self.gaps = Counter("lander_gap_offsets", "Offsets that held no message", ["topic"], **of)
        self.fenced = Counter("lander_fenced", "Batches dropped since another lander was faster", ["topic"], **of)
        self.store_errors = Counter("lander_store_errors", "Commits that failed and were tried again", ["topic"], **of)
        self.flush_seconds = Histogram(
            "lander_flush_seconds", "Seconds to decode and commit a batch", ["topic"], buckets=_SECONDS, **of
        )
        self.last_commit = Gauge("lander_last_commit_timestamp_seconds", "Time of the last commit", ["topic"], **of)
        self.lag = Gauge("lander_lag_messages", "Offsets not landed yet", ["topic", "partition"], **of)
        self.lost = Gauge(
            "lander_lost_offsets", "Offsets deleted by the broker before they were landed", ["topic", "partition"], **of
        )
        self.standing = Gauge(
            "lander_standing_seconds",
            "Seconds for which a partition has not advanced although the broker has more",
            ["topic", "partition"],
            **of,
        )
        self.rebuilt = Counter("lander_consumers_rebuilt", "Consumers made anew since a partition stood still", **of)
        self.buffered = Gauge("lander_buffered_bytes", "Bytes of messages in memory", **of)


@dataclass
class Health:
    """Whether the lander lives (its loop turns) and is ready (broker and store do what they should)."""

    clock: Callable[[], float] = time.monotonic
    _beat: float = field(default=float("-inf"), init=False)
    _troubles: dict[str, str] = field(default_factory=dict, init=False)
    _started: bool = field(default=False, init=False)

    def beat(self) -> None:
        """Note that the loop turns."""
        self._beat = self.clock()

    def started(self) -> None:
        """Note that the broker has answered and partitions are known."""
        self._started = True

    def trouble(self, what: str, why: str = "") -> None:
        """Note that something is wrong, or with no `why` that it is right again."""
        if why:
            self._troubles[what] = why
        else:
            self._troubles.pop(what, None)

    def live(self) -> tuple[bool, str]:
        """Return whether the loop turns, and a word on it."""
        silent = self.clock() - self._beat
        return silent < _HANGS_AFTER, "turning" if silent < _HANGS_AFTER else f"no turn for {silent:.0f} s"

    def ready(self) -> tuple[bool, str]:
        """Return whether messages are being landed as they should, and what is wrong if not."""
        alive, why = self.live()
        if not alive:
            return False, why
        if not self._started:
            return False, "the broker has not answered yet"
        troubles = dict(self._troubles)
        return not troubles, "; ".join(f"{what}: {why}" for what, why in sorted(troubles.items())) or "landing"
