"""Which scores of the live table go to the stream: those that are new, and those that changed by enough. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import NamedTuple

Told = Mapping[str, "Score"]


class Score(NamedTuple):
    """A score of an entity, by which model, for the decision of which date and slot. `probability` is in [0, 1]."""

    probability: float
    decision_date: date
    slot: str
    mlflow_run_id: str


def to_tell(told: Told, now: Told, least_change: float) -> list[str]:
    """Return the entities of `now` whose scores are to be sent, in the order of `now`.

    `told` are the scores sent last, by entity. A score is sent if the entity is not in `told`, if the probability
    differs by more than `least_change`, if another model made it, or if it is for another decision.
    """
    return [entity for entity, score in now.items() if _differs(told.get(entity), score, least_change)]


def remember(told: Told, now: Told, delivered: Iterable[str]) -> dict[str, Score]:
    """Return the scores sent so far, after some of `now` were delivered; entities no longer decided are removed."""
    delivered = set(delivered)
    return {
        entity: now[entity] if entity in delivered else told[entity]
        for entity in now
        if entity in delivered or entity in told
    }


def _differs(before: Score | None, score: Score, least_change: float) -> bool:
    return before is None or before[1:] != score[1:] or abs(before.probability - score.probability) > least_change
