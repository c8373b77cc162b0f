"""Dirt, as real feeds have it: duplicates, late and disordered messages, and ones that break their contract."""

import re
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from ml_assets.local.simulation.messages import Message

# A quarter of the dirt each: duplicates, late, malformed, out of order.
_KINDS = 4
_HOUR = 3_600_000  # milliseconds
# A late message comes after one hour or more. What decides an outcome comes within six, as a label waits longer than
# that; the rest may take days, and changes dates that were made long ago.
_LATEST_HOURS = {"trades": 60.0, "securities_lending": 60.0, "inventory_positions": 30.0}
_LATEST = 6.0


def soil(clean: Sequence[Message], dirty: float, rng: np.random.Generator) -> Iterator[Message]:
    """Yield the messages, of which a share of about 3/4 `dirty` is duplicated, late or malformed.

    Malformed messages are copies beside the good ones: what happened in the market stays the same. Late ones keep
    their event time and get a later time of the broker.
    """
    if not dirty:
        yield from clean
        return
    kinds = rng.random(len(clean)) / (dirty / _KINDS)
    shares = rng.random(len(clean))
    for message, kind, share in zip(clean, kinds.tolist(), shares.tolist(), strict=True):
        if kind < 1:
            yield message
            yield _delayed(message, share / 2)  # hours
        elif kind < 2:
            yield _delayed(message, 1 + share * (_LATEST_HOURS.get(message.topic, _LATEST) - 1))
        else:
            yield message
            if kind < 3:
                yield message._replace(value=_malformed(message.value, int(share * 4)))


def disorder(messages: Sequence[Message], dirty: float, rng: np.random.Generator) -> Iterator[Message]:
    """Yield the messages in their order, but for a share of `dirty` / 4 that come up to 200 places later."""
    places = np.arange(len(messages), dtype=np.float64)
    moved = rng.random(len(messages)) < dirty / _KINDS
    places[moved] += rng.integers(2, 200, int(moved.sum())) + 0.5
    for place in np.argsort(places, kind="stable").tolist():
        yield messages[place]


def _delayed(message: Message, hours: float) -> Message:
    return message._replace(timestamp_ms=message.timestamp_ms + int(hours * _HOUR))


def _malformed(value: bytes, way: int) -> bytes:
    """Return a message that its contract, or a rule, refuses.

    It is cut off (0), lacks a field (1), has a number as status or a negative quantity if it has such a field (2), or
    tells a time that is none (3).
    """
    if way == 0:
        return value[: len(value) // 2]
    payload = msgspec.json.decode(value)
    payload["event_id"] = f"{payload['event_id']}-bad"
    if way == 1:
        del payload["event_time"]
    elif way == 2 and "status" in payload:
        payload["status"] = 0
    elif way == 2 and "quantity" in payload:
        payload["quantity"] = -payload["quantity"]
    else:
        payload["event_time"] = re.sub("^20", "yy", payload["event_time"])
    return msgspec.json.encode(payload)
