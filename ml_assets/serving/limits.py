"""Whose turn it is: one client that loops does not take the others', and work in the background not that of answers."""

import gc
import sys
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_CLIENTS = 10_000
# CPython's default, 5 ms, is what each read and write of the event loop waits for while a live table is being made.
_SWITCH_SECONDS = 0.0005
# Allocations between two collections. A table is thousands of objects without cycles, which go without a collection.
_COLLECT_AFTER = 50_000


def answer_first() -> None:
    """Let threads take turns more often, and the collector of cycles rest longer: for a process that answers."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 100)


class RateLimit:
    """A token bucket per client. It is not thread-safe: the event loop alone asks it.

    Args:
        per_second: requests a second that a client may send in the long run; 0: as many as it likes.
        burst: requests that a client which has been quiet may send at once; by default those of two seconds.
        now: seconds of a clock that does not go back.
    """

    def __init__(
        self, per_second: float, *, burst: float | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = per_second
        self._burst = max(1.0, 2 * per_second if burst is None else burst)
        self._now = now
        # Tokens left and when, by client; the client that asked last is at the end.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token of the client: return 0, or, where there is none, the seconds until there is one."""
        if not self._rate:
            return 0.0
        now = self._now()
        tokens, before = self._left.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - before) * self._rate)
        refused = tokens < 1
        self._left[client] = (tokens if refused else tokens - 1, now)
        if len(self._left) > _MOST_CLIENTS:
            # Whoever has been quiet the longest begins anew with a full bucket, which by then is what it would have.
            self._left.popitem(last=False)
        return (1 - tokens) / self._rate if refused else 0.0
