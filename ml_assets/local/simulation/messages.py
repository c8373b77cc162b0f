"""What the simulator and the replay give to the broker."""

from typing import NamedTuple


class Message(NamedTuple):
    """One Kafka record; `timestamp_ms` is its time, milliseconds since 1970 UTC."""

    topic: str
    key: bytes
    value: bytes
    timestamp_ms: int
