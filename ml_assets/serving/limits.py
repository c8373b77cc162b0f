"""Limits, so that one client does not slow down the others, and background work does not slow down answers."""

import gc
import sys
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_CLIENTS = 10_000
# With CPython's default of 5 ms, each read and write of the event loop waits that long while a live table is made.
_SWITCH_SECONDS = 0.0005
# Allocations between two collections. A live table has thousands of objects without cycles, which need no collection.
_COLLECT_AFTER = 50_000


def answer_first() -> None:
    """Set up a process that answers requests: threads switch more often, and garbage is collected less often."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 100)


class RateLimit:
    """A token bucket per client. It is not thread-safe: only the event loop uses it.

    Args:
        per_second: requests per second that a client may send in the long run; 0 is no limit.
        burst: requests that a client may send at once after a pause; by default those of two seconds.
        now: seconds of a monotonic clock.
    """

    def __init__(
        self, per_second: float, *, burst: float | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = per_second
        self._burst = max(1.0, 2 * per_second if burst is None else burst)
        self._now = now
        # By client, the tokens left and the time of its last request; the client with the newest request is at the end.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token of the client and return 0; if it has none, return the seconds until it has one."""
        if not self._rate:
            return 0.0
        now = self._now()
        tokens, before = self._left.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - before) * self._rate)
        refused = tokens < 1
        self._left[client] = (tokens if refused else tokens - 1, now)
        if len(self._left) > _MOST_CLIENTS:
            # The client that has been quiet the longest is forgotten: its next bucket is full, as it would be by then.
            self._left.popitem(last=False)
        return (1 - tokens) / self._rate if refused else 0.0
