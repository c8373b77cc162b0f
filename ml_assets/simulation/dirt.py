"""Dirt, as real feeds have it: duplicates, late and disordered messages, and ones that break their contract."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from ml_assets.simulation.messages import Message

# A late message comes within these hours; a label waits longer than that for confirmations.
_LATE_HOURS = (1.0, 6.0)
_HOUR = 3_600_000


@dataclass(frozen=True)
class Soiled:
    """The messages of a day with their dirt, and those that only come the next day."""

    today: list[Message]
    later: list[Message]
    disordered: float

    def disorder(self, count: int, rng: np.random.Generator) -> Iterator[int]:
        """Yield places 0 to count-1 in order, but for a few that come a little later."""
        places = np.arange(count, dtype=np.float64)
        moved = rng.random(count) < self.disordered
        places[moved] += rng.integers(2, 200, int(moved.sum())) + 0.5
        yield from np.argsort(places, kind="stable").tolist()


def soil(clean: list[Message], dirty: float, rng: np.random.Generator, end_ms: int) -> Soiled:
    """Return the messages of a day, of which a share of about `dirty` is duplicated, late, disordered or malformed.

    Malformed messages are copies beside the good ones: what happened in the market stays the same. Late ones keep
    their event time and get a later time of the broker.
    """
    kind = rng.random(len(clean)) / (dirty / 4) if dirty else np.full(len(clean), np.inf)
    delay = (rng.uniform(*_LATE_HOURS, len(clean)) * _HOUR).astype(np.int64)
    found: list[Message] = []
    for message, drawn, late_by in zip(clean, kind.tolist(), delay.tolist(), strict=True):
        if drawn < 1:
            found += [message, message._replace(timestamp_ms=message.timestamp_ms + late_by // 8)]
        elif drawn < 2:
            found.append(message._replace(timestamp_ms=message.timestamp_ms + late_by))
        elif drawn < 3:
            found += [message, message._replace(value=_malform(message.value, int(late_by)))]
        else:
            found.append(message)
    return Soiled(
        today=[message for message in found if message.timestamp_ms < end_ms],
        later=[message for message in found if message.timestamp_ms >= end_ms],
        disordered=dirty / 4,
    )


def _malform(value: bytes, choice: int) -> bytes:
    """Return a message that its contract, or a rule, refuses."""
    if choice % 4 == 0:
        return value[: len(value) // 2]
    payload = msgspec.json.decode(value)
    payload["event_id"] = f"{payload['event_id']}-bad"
    if choice % 4 == 1:
        del payload["event_time"]
    elif choice % 4 == 2 and "status" in payload:
        payload["status"] = "UNKN"
    elif choice % 4 == 2 and "quantity" in payload:
        payload["quantity"] = -payload["quantity"]
    else:
        payload["event_time"] = re.sub("^20", "yy", payload["event_time"])
    return msgspec.json.encode(payload)
