"""The simulated market: its events in the order in which they become known, its reference files and its truth."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from ml_assets.local.simulation.dirt import disorder, soil
from ml_assets.local.simulation.events import (
    HOUR,
    TOPICS,
    Stream,
    encode,
    milliseconds,
    settled_instead,
    streams,
    tells_of_fail,
)
from ml_assets.local.simulation.messages import Message
from ml_assets.local.simulation.outcomes import Instructions, draw_instructions
from ml_assets.local.simulation.reference_files import write_reference_files
from ml_assets.local.simulation.truth import truth_table
from ml_assets.local.simulation.world import Change, MarketConfig, World, make_world

__all__ = ["Change", "Market", "MarketConfig", "simulate"]


def simulate(config: MarketConfig) -> "Market":
    """Return the market of a configuration; the same configuration gives the same market."""
    rng = np.random.default_rng(config.seed)
    world = make_world(config, rng)
    return Market(config, world, draw_instructions(world, rng))


@dataclass(frozen=True)
class Market:
    """A simulated market. Nothing but `write_truth` tells the probabilities."""

    config: MarketConfig
    world: World
    instructions: Instructions

    topics = TOPICS

    @property
    def message_count(self) -> int:
        """The number of messages without dirt, which adds a few."""
        return sum(len(stream.times) for stream in self._streams)

    def messages(self) -> Iterator[Message]:
        """Yield the messages in the order in which the broker gets them, a business day at a time.

        The last day ends at midnight; what would be late beyond that never comes.
        """
        rng = np.random.default_rng([self.config.seed, 1])
        late: list[Message] = []
        for day in range(self.config.days):
            first, end = self._span(day)
            clean = [message for stream in self._streams for message in encode(stream, first, end, rng)]
            due = [*late, *soil(clean, self.config.dirty, rng)]
            late = [message for message in due if message.timestamp_ms >= end]
            today = sorted((m for m in due if m.timestamp_ms < end), key=lambda message: message.timestamp_ms)
            yield from disorder(today, self.config.dirty, rng)

    def between(self, first: datetime, end: datetime, saved: Collection[str] = ()) -> list[Message]:
        """Return the messages of a span of time in order, without dirt: for who acts in the course of the market.

        Instructions that were `saved` do not fail: they settle in time. What is saved must be told before the
        settlement date's first confirmation, 08:00 UTC, and at each later call too.
        """
        low, high = (int(at.timestamp() * 1000) for at in (first, end))
        ids, found = list(saved), list[Message]()
        for number, stream in enumerate([*self._streams, self._saved]):
            happens = None
            if stream is self._saved or tells_of_fail(stream):
                is_saved = np.isin(stream.columns["instruction_id"], ids)
                happens = is_saved if stream is self._saved else ~is_saved
            # Each stream by itself: what is saved of one leaves the times of the others as they are.
            rng = np.random.default_rng([self.config.seed, 4, low // 1000, number])
            found += encode(stream, low, high, rng, happens)
        return sorted(found, key=lambda message: message.timestamp_ms)

    def write_reference(self, root: str | Path) -> None:
        """Write the reference files to `<root>/settlement_fails/<reference>/<date of publication>.csv`."""
        write_reference_files(self.world, f"{str(root).rstrip('/')}/settlement_fails")

    def write_truth(self, path: Path) -> None:
        """Write the true probability of a fail of each decision, and the outcome, as Parquet: see `truth_table`."""
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(truth_table(self.world, self.instructions), path)

    @cached_property
    def _streams(self) -> list[Stream]:
        """All events; those after the end of the last day have not happened."""
        _, end = self._span(self.config.days - 1)
        happening = streams(self.world, self.instructions, np.random.default_rng([self.config.seed, 2]))
        return [stream.until(end) for stream in happening]

    @cached_property
    def _saved(self) -> Stream:
        """What happens instead of each fail if somebody acts on it in time."""
        _, end = self._span(self.config.days - 1)
        return settled_instead(self.world, self.instructions, np.random.default_rng([self.config.seed, 3])).until(end)

    def _span(self, day: int) -> tuple[int, int]:
        """Return first and end of a business day, in ms since 1970 UTC; a weekend belongs to the day before."""
        first = milliseconds(self.world.calendar[day])
        is_last = day + 1 == self.config.days
        return first, first + 24 * HOUR if is_last else milliseconds(self.world.calendar[day + 1])
