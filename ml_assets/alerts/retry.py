"""When a message is tried again that a sink did not take, and when it is given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

_FIRST: Final = timedelta(seconds=30)
_LONGEST: Final = timedelta(hours=1)
# About a day: 30 s, 1, 2, 4, 8, 16, 32 minutes, then hourly.
ATTEMPTS: Final = 30


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a sink said of a message: `sent`, `refused` for good, or neither; `after` is how long it asked to wait."""

    sent: bool
    refused: bool = False
    why: str = ""
    after: timedelta | None = None


def next_try(outcome: Outcome, attempts: int) -> timedelta | None:
    """Return after how long a message is tried again that has been tried `attempts` times; None: it is given up."""
    if outcome.refused or attempts >= ATTEMPTS:
        return None
    backoff = min(_FIRST * (1 << min(attempts - 1, 10)), _LONGEST)
    return max(backoff, min(outcome.after or timedelta(), _LONGEST))
