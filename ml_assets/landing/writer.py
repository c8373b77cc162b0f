"""The lander's writing half: batches to Delta, in order, in a thread of its own: consuming goes on meanwhile."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from deltalake.exceptions import DeltaError

from ml_assets.lake import Appender, PositionMovedError
from ml_assets.landing.batch import Clock, Gap, LandingRows, RawMessage, landing_rows, portions
from ml_assets.landing.decode import Decoder
from ml_assets.landing.kafka import Cluster, KafkaUnreachableError, by_app
from ml_assets.landing.metrics import Health, LanderMetrics
from ml_assets.spec import EventSpec

_LOG = logging.getLogger(__name__)
# What a store, broker or schema registry that does not do its work raises. Waiting helps; nothing is given up.
OUTAGES = (OSError, DeltaError, KafkaUnreachableError)
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages and gaps of one life of a topic, from the positions `start` up to `end` of the partitions it moves.

    Batches of one `generation` follow one another: when one cannot be committed, those after it are void too. A batch
    of very many dates is committed in parts; all but its last part are followed by more (`has_more`).
    """

    event: EventSpec
    decoder: Decoder
    appender: Appender
    epoch: str
    generation: int
    messages: Sequence[RawMessage]
    gaps: Sequence[Gap]
    start: Mapping[int, int]
    end: Mapping[int, int]
    bytes: int
    has_more: bool = False

    @property
    def topic(self) -> str:
        """The topic."""
        return self.event.topic


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch. `fenced`: somebody else landed it, or the topic is another one now."""

    batch: Batch
    state: Literal["committed", "fenced", "dropped", "failed"]
    rows: LandingRows | None = None
    error: BaseException | None = None


@dataclass
class Writer:
    """Commits batches one after the other; what became of each is in `outcomes`.

    A store that fails is tried again, ever more slowly, until it works, `give_up` is set, or `patience` seconds are
    over: then the batch has failed.
    """

    cluster: Cluster
    metrics: LanderMetrics
    health: Health
    clock: Clock
    at_step: Callable[[str], None]
    patience: float = float("inf")
    give_up: threading.Event = field(default_factory=threading.Event)
    outcomes: queue.SimpleQueue[Outcome] = field(default_factory=queue.SimpleQueue)
    _inbox: queue.SimpleQueue[Batch | None] = field(default_factory=queue.SimpleQueue)
    _void: dict[str, int] = field(default_factory=dict)

    def start(self) -> None:
        """Begin. The thread does not keep the process alive."""
        threading.Thread(target=self._run, name="lander-writer", daemon=True).start()

    def submit(self, batch: Batch) -> None:
        """Hand over a batch; it is committed after those before it."""
        self._inbox.put(batch)

    def end(self) -> None:
        """End after what has been submitted."""
        self._inbox.put(None)

    def _run(self) -> None:
        while (submitted := self._inbox.get()) is not None:
            pending = [submitted]
            while pending:
                batch = pending.pop(0)
                if batch.generation <= self._void.get(batch.topic, -1) or self.give_up.is_set():
                    self.outcomes.put(Outcome(batch, "dropped"))
                    continue
                try:
                    outcome = self._commit(batch)
                except BaseException as error:  # handed to the thread that runs the lander
                    outcome = Outcome(batch, "failed", error=error)
                if isinstance(outcome, list):
                    pending[:0] = outcome
                    continue
                if outcome.state != "committed":
                    self._void[batch.topic] = batch.generation
                self.outcomes.put(outcome)

    def _commit(self, batch: Batch) -> Outcome | list[Batch]:
        """Return what became of a batch; or the parts that it must be committed in, which are to be handed in again."""
        started = time.perf_counter()
        rows: LandingRows | None = None
        wait = _FIRST_WAIT
        while True:
            try:
                if rows is None:
                    rows = landing_rows(
                        batch.event, batch.decoder, batch.epoch, batch.messages, batch.gaps, clock=self.clock
                    )
                    parts = _parts(batch, rows)
                    if len(parts) > 1:
                        return parts
                # A topic's id never comes back: if it is the batch's now, it was so when every message was read.
                if self.cluster.epoch(batch.topic) != batch.epoch:
                    _LOG.warning("topic %s was deleted or made anew; its new life is read from the start", batch.topic)
                    return Outcome(batch, "fenced")
                self.at_step("before_write")
                is_ours = batch.appender.append(
                    rows.rows,
                    by_app(batch.topic, batch.epoch, batch.start),
                    by_app(batch.topic, batch.epoch, batch.end),
                )
                self.at_step("after_commit")
            except PositionMovedError as error:
                _LOG.info("%s; its position is taken up", error)
                self.metrics.fenced.labels(batch.topic).inc()
                return Outcome(batch, "fenced")
            except OUTAGES as error:
                _LOG.warning("topic %s: a commit failed and is tried again in %.1f s: %s", batch.topic, wait, error)
                self.metrics.store_errors.labels(batch.topic).inc()
                self.health.trouble(f"topic {batch.topic}", f"cannot be committed: {error}")
                if time.perf_counter() - started > self.patience:
                    return Outcome(batch, "failed", error=error)
                if self.give_up.wait(wait):
                    return Outcome(batch, "dropped")
                wait = min(wait * 2, _LONGEST_WAIT)
            else:
                self._measure(batch, rows if is_ours else None, time.perf_counter() - started)
                return Outcome(batch, "committed", rows)

    def _measure(self, batch: Batch, rows: LandingRows | None, seconds: float) -> None:
        """Count what a commit landed; `rows` is None if another lander made the very same one, and counts it."""
        self.health.trouble(f"topic {batch.topic}")
        self.metrics.last_commit.labels(batch.topic).set_to_current_time()
        if rows is None:
            return
        self.metrics.rows.labels(batch.topic).inc(rows.events)
        self.metrics.dead_letters.labels(batch.topic).inc(rows.dead_letters)
        self.metrics.not_understood.labels(batch.topic).inc(rows.not_understood)
        self.metrics.gaps.labels(batch.topic).inc(sum(gap.until - gap.first for gap in batch.gaps))
        self.metrics.bytes.labels(batch.topic).inc(batch.bytes)
        self.metrics.flush_seconds.labels(batch.topic).observe(seconds)


def _parts(batch: Batch, rows: LandingRows) -> list[Batch]:
    """Return a batch in parts, each from where the one before it ends, of no more dates than a commit may have."""
    found: list[Batch] = []
    start, left = dict(batch.start), batch.bytes
    pieces = portions(batch.messages, batch.gaps, rows.rows)
    for number, (messages, gaps) in enumerate(pieces, start=1):
        is_last = number == len(pieces)
        end = dict(batch.end) if is_last else _ends(messages)
        size = left if is_last else batch.bytes * len(messages) // len(batch.messages)
        found.append(
            replace(
                batch, messages=messages, gaps=gaps, start={p: start[p] for p in end}, end=end, bytes=size,
                has_more=batch.has_more or not is_last,
            )
        )  # fmt: skip
        start |= end
        left -= size
    return found


def _ends(messages: Sequence[RawMessage]) -> dict[int, int]:
    """Return the offset behind the last message of each partition."""
    at = ((message.partition(), message.offset()) for message in messages)
    return {partition: offset + 1 for partition, offset in at if partition is not None and offset is not None}
