"""What people said at the desk, from its ledger in PostgreSQL to Kafka, for the use cases whose SQL reads it.

The ledger is the outbox: what has not landed yet is sent, and sent again if it does not land. So nothing is lost with
the process that sends. What lands twice has the same event id, and curation keeps one (`EventSpec.key`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any, Final

import msgspec
import pyarrow.dataset as ds
from sqlalchemy import Engine

from ml_assets.answers import DeskFeedback, desk_feedback
from ml_assets.database.feedback import ledger_after
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.files import FileMessage
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.produce import produce
from ml_assets.landing.schemas import EVENT
from ml_assets.spec import UseCase

# What was sent and has not landed for so long is sent again.
_PATIENCE_SECONDS: Final = 600.0
# A line is committed after a later one at most so many lines later: writers hold a list for one form each.
_OVERTAKEN: Final = 10_000
_encode = msgspec.json.Encoder().encode


def reads_feedback(usecase: UseCase) -> bool:
    """Return whether what people say at the desk is among the events of a use case."""
    return any(event.topic == desk_feedback(usecase.name).topic for event in usecase.events)


class FeedbackOutbox:
    """Sends the ledger of feedback of one use case. One thread uses it; what two processes send twice counts once."""

    def __init__(self, usecase: UseCase, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.topic = desk_feedback(usecase.name).topic
        self._usecase, self._clock = usecase, clock
        self._landed: set[str] = set()
        self._sent: dict[str, float] = {}
        self._newest = 0

    def send(self, lake: Lake, engine: Engine | str, kafka: KafkaConnection) -> int:
        """Send what has not landed and was not sent in the last minutes; return how many lines.

        Raises:
            StateError: the broker did not take them; they are sent again.
        """
        rows = ledger_after(engine, self._usecase.name, max(0, self._newest - _OVERTAKEN))
        waiting = {event_id(row["id"]): row for row in rows}
        if waiting.keys() <= self._landed:
            return 0
        self._landed |= _landed(lake, self.topic)
        for one in self._landed & self._sent.keys():
            del self._sent[one]
        self._newest = max((row["id"] for one, row in waiting.items() if one in self._landed), default=self._newest)
        now = self._clock()
        due = [
            one
            for one in waiting
            if one not in self._landed and now - self._sent.get(one, -_PATIENCE_SECONDS) >= _PATIENCE_SECONDS
        ]
        if due:
            produce(kafka, [_message(self.topic, waiting[one]) for one in due])
            self._sent |= dict.fromkeys(due, now)
        return len(due)


def event_id(line: int) -> str:
    """Return the id of the event of a line of the ledger."""
    return f"feedback-{line}"


def event_of(row: Mapping[str, Any]) -> DeskFeedback:
    """Return the event of a line of the ledger, given as its columns."""
    at = row["at"].astimezone(UTC)
    return DeskFeedback(
        event_id=event_id(row["id"]),
        event_time=at,
        outcome_date=row["outcome_date"],
        entity_id=row["entity_id"],
        what=row["what"],
        value=row["value"],
        undoes=None if row["undoes"] is None else event_id(row["undoes"]),
        decision_time=row["decision_time"].astimezone(UTC),
        shown_priority=row["shown_priority"],
        shown_probability=row["shown_probability"],
        shown_cause=row["shown_cause"],
        in_time=at < row["cut_off_at"],
    )


def _message(topic: str, row: Mapping[str, Any]) -> FileMessage:
    # Published when it was said; never before, as whole milliseconds would be.
    event = event_of(row)
    return FileMessage(topic, event.entity_id.encode(), _encode(event), math.ceil(event.event_time.timestamp() * 1000))


def _landed(lake: Lake, topic: str) -> set[str]:
    dataset = lake.dataset(landing_table(topic))
    if dataset is None:
        return set()
    return set(dataset.to_table(columns=["event_id"], filter=ds.field("kind") == EVENT)["event_id"].to_pylist())
