"""The state that requests are answered from: a live table, scored by the model that answers for each entity."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.answers import Stage
from ml_assets.features.tables import KEYS_SCHEMA
from ml_assets.serving.canary import Canary, are_probabilities
from ml_assets.serving.models import OpenModel
from ml_assets.serving.table import LiveTable
from ml_assets.spec import UseCase

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """Scored rows: the champion's `probabilities` (n,), the canary's `by_canary` (n,), and the `answers`.

    The canary's score is the answer for the entities in its share. `by_canary` is None without a canary, or if it
    failed: then the champion answers for all.
    """

    probabilities: NDArray[np.float64]
    by_canary: NDArray[np.float64] | None
    answers: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class State:
    """The table, models and scores of one moment. A state is never changed, only replaced. `model` is the champion."""

    usecase: UseCase
    table: LiveTable
    model: OpenModel
    scored: Scored
    canary: Canary | None = None

    @property
    def answers(self) -> Sequence[dict[str, Any]]:
        """The answer for each row of the table."""
        return self.scored.answers

    @cached_property
    def models(self) -> Mapping[Stage, OpenModel]:
        """The models that answer, by stage."""
        return {"champion": self.model, **({"canary": self.canary.model} if self.canary else {})}

    @cached_property
    def encoded(self) -> Sequence[msgspec.Raw]:
        """Each answer as JSON, encoded once and sent many times."""
        encode = msgspec.json.Encoder().encode
        return [msgspec.Raw(encode(answer)) for answer in self.answers]


def make_state(usecase: UseCase, table: LiveTable, champion: OpenModel, canary: Canary | None) -> State:
    """Return the state of a table, with everything made that a request would otherwise wait for."""
    state = State(usecase, table, champion, score_rows(usecase, table.rows, champion, canary), canary)
    _ = state.encoded, table.index
    return state


def score_rows(usecase: UseCase, rows: pa.Table, champion: OpenModel, canary: Canary | None) -> Scored:
    """Return the scored rows. If the canary fails, its guard counts that."""
    probabilities = champion.scorer.score(rows)
    by_canary = _by_canary(rows, canary) if canary is not None else None
    answers: list[dict[str, Any]] = rows.select(KEYS_SCHEMA.names).to_pylist()
    for at, answer in enumerate(answers):
        model, stage, probability = champion, "champion", float(probabilities[at])
        if canary is not None and by_canary is not None and canary.answers_for(answer["entity_id"]):
            model, stage, probability = canary.model, "canary", float(by_canary[at])
        answer["probability"] = probability
        answer["expected_cost"] = probability * answer["cost_if_fail"]
        answer["currency"] = usecase.currency
        answer["attributes"] = json.loads(answer["attributes"] or "{}")
        answer["stage"], answer["model_version"] = stage, model.version
    return Scored(probabilities, by_canary, answers)


def _by_canary(rows: pa.Table, canary: Canary) -> NDArray[np.float64] | None:
    try:
        scores = canary.model.scorer.score(rows)
        failed = "" if are_probabilities(scores) else "a score is not a probability"
    except Exception as error:  # a model can make the runtime raise anything: the champion answers, the guard counts
        failed = str(error)
    canary.guard.tried(rows.num_rows, rows.num_rows if failed else 0)
    if failed:
        _LOG.warning(
            "use case %s: the canary, version %d, failed: %s", canary.line.use_case, canary.model.version, failed
        )
        return None
    return scores
