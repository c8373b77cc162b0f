"""What the platform itself writes to Kafka: answers of the scoring service, changed scores, and what the desk was told.

Answers are landed like the events of a use case, by the same lander into `landing/served_scores`. The stream
`predictions` is for consumers and is not landed: each of its scores follows from what is in the lake. What people say
at the desk is sent for the use cases that have `desk_feedback` among their events, and is an event like all others.
"""

import hashlib
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Final, Literal

from ml_assets.contracts import Event
from ml_assets.errors import InputError
from ml_assets.predictions.feedback import What
from ml_assets.spec import EventSpec, UseCase

Stage = Literal["champion", "canary", "shadow"]


class ServedScore(Event, frozen=True, kw_only=True):
    """One entity of one answer of the scoring service; `event_time` is when it was answered.

    `decision_time` is the time of the decision, `slot` the slot that applies then. `expected_cost` is in the currency
    of the use case, `latency_ms` the milliseconds from request to answer. `stale` says that the live table was behind.

    The stage `shadow` answers nobody: the challenger's score of an open decision, when it is new or has changed.
    `request_id` is then `shadow`, `latency_ms` the milliseconds in which all open decisions were scored.
    """

    request_id: str
    use_case: str
    entity_id: str
    slot: str
    decision_time: datetime
    outcome_date: date
    probability: float
    expected_cost: float
    model_version: int
    mlflow_run_id: str
    stage: Stage
    feature_set_hash: str
    what_if: bool
    stale: bool
    latency_ms: float


class ChangedScore(Event, frozen=True, kw_only=True):
    """A score of the live table that is new, or differs from the one told before; `event_time` is its `as_of`.

    The id is that of the content, without times: the same score told again has the same id.
    """

    use_case: str
    entity_id: str
    decision_date: date
    slot: str
    model_version: int
    mlflow_run_id: str
    feature_set_hash: str
    probability: float
    expected_cost: float

    @staticmethod
    def id_of(use_case: str, entity_id: str, decision_date: date, slot: str, run: str, probability: float) -> str:
        """Return 32 hex digits that tell this score from any other."""
        said = (use_case, entity_id, decision_date.isoformat(), slot, run, probability.hex())
        return hashlib.sha256("\0".join(said).encode()).hexdigest()[:32]


class DeskFeedback(Event, frozen=True, kw_only=True):
    """One thing that somebody said at the desk of a row of a list; `event_time` is when. Names and notes stay there.

    `what` and `value` are those of `predictions.feedback`, `undoes` is the id of the event that this one takes back.
    `decision_time`, `shown_priority`, `shown_probability` and `shown_cause` are what the person was shown; null if it
    was hidden. `in_time` says whether the cut-off was still to come.
    """

    outcome_date: date
    entity_id: str
    what: What
    value: str | None
    undoes: str | None
    decision_time: datetime
    shown_priority: int
    shown_probability: float | None
    shown_cause: str | None
    in_time: bool


def desk_feedback(use_case: str, history: timedelta = timedelta(days=90)) -> EventSpec:
    """Return the event by which the SQL of a use case reads what people said at the desk, once it was known."""
    return EventSpec(
        "desk_feedback", f"{use_case}_desk_feedback", DeskFeedback, "What people said at the desk.",
        history=history, silence=timedelta(days=14),
    )  # fmt: skip


SERVED_SCORES: Final = EventSpec(
    "served_scores", "served_scores", ServedScore, "Answers of the scoring service, one for each entity and stage."
)
CHANGED_SCORES: Final = EventSpec(
    "predictions", "predictions", ChangedScore, "Scores of open decisions, as they come or change."
)
# Landed beside the events of the use cases.
LANDED: Final = (SERVED_SCORES,)


def landed_events(usecases: Iterable[UseCase]) -> tuple[EventSpec, ...]:
    """Return every event that is landed, one for each topic: those of the use cases and the platform's own.

    Raises:
        ValueError: a use case names a topic of the platform.
    """
    found = {event.topic: event for usecase in usecases for event in usecase.events}
    if taken := sorted(found.keys() & {SERVED_SCORES.topic, CHANGED_SCORES.topic}):
        raise InputError(f"a use case reads the topic {taken[0]}, which the platform itself writes; name another one")
    return (*found.values(), *LANDED)
