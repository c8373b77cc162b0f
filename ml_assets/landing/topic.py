"""One topic that is being landed, as the two halves of a run share it."""

from __future__ import annotations

from dataclasses import dataclass, field

from confluent_kafka import Message

from ml_assets.lake import Appender
from ml_assets.landing.batch import Gap
from ml_assets.landing.decode import Decoder
from ml_assets.spec import EventSpec


@dataclass(slots=True)
class LandedTopic:
    """A topic that is being landed: what was taken from it and not yet handed to the writer."""

    event: EventSpec
    decoder: Decoder
    appender: Appender
    epoch: str = ""
    generation: int = 0
    expected: dict[int, int] = field(default_factory=dict)  # by partition, the next offset to take
    flushed: dict[int, int] = field(default_factory=dict)  # what was handed to the writer so far
    committed: dict[int, int] = field(default_factory=dict)  # what the table has
    messages: list[Message] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    bytes: int = 0
    since: float = 0.0
    in_flight: int = 0

    def drop(self) -> None:
        """Forget what was taken; it is read again."""
        self.generation += 1
        self.expected, self.flushed, self.committed = {}, {}, {}
        self.messages, self.gaps, self.bytes = [], [], 0
