"""Implementations of the interfaces in `serving.parts`: answers are recorded to Kafka, and tokens authorise callers."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request

from ml_assets.answers import CHANGED_SCORES, SERVED_SCORES, ChangedScore, ServedScore
from ml_assets.predictions.changed import Score
from ml_assets.serving.auth import Authoriser, ForbiddenError, UnauthorisedError
from ml_assets.serving.beside import ShadowScores
from ml_assets.serving.parts import Authorise, RefusedError, Verb
from ml_assets.serving.recorder import Recorder
from ml_assets.serving.state import State
from ml_assets.serving.stream import ScoreStream

# Shadow scores may take at most a fourth of the free room in the queue.
_OF_ROOM = 4


class AnswerRecorder:
    """Records each answer to the topic of served scores."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def record(self, answer: ServedScore) -> None:
        """Record an answer; if the queue has no room, it is dropped and counted."""
        self._recorder.record(SERVED_SCORES.topic, answer.entity_id, answer)


class ChangesTold:
    """Produces new and changed scores to the topic `predictions` whenever a live table has been made."""

    def __init__(self, recorder: Recorder, *, least_change: float) -> None:
        self._recorder, self._least_change = recorder, least_change
        self._streams: dict[str, ScoreStream] = {}

    def __call__(self, state: State) -> None:
        """Produce those scores of a state that consumers do not have yet."""
        usecase, models = state.usecase, state.models
        answers = {answer["entity_id"]: answer for answer in state.answers}
        scores = {
            entity: Score(
                answer["probability"], answer["decision_date"], answer["slot"], models[answer["stage"]].run_id
            )
            for entity, answer in answers.items()
        }

        def event_of(entity: str, score: Score) -> ChangedScore:
            answer = answers[entity]
            return ChangedScore(
                event_id=_id(usecase.name, entity, score), event_time=state.table.as_of, use_case=usecase.name,
                entity_id=entity, decision_date=score.decision_date, slot=score.slot,
                model_version=answer["model_version"], mlflow_run_id=score.mlflow_run_id,
                feature_set_hash=usecase.feature_set_hash, probability=score.probability,
                expected_cost=answer["expected_cost"],
            )  # fmt: skip

        stream = self._streams.get(usecase.name)
        if stream is None:
            stream = ScoreStream(self._recorder, CHANGED_SCORES.topic, least_change=self._least_change)
            self._streams[usecase.name] = stream
        stream.tell(scores, event_of)


class ShadowTold:
    """Records new and changed shadow scores of challengers; answers take precedence over them."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._streams: dict[str, ScoreStream] = {}

    def __call__(self, shadow: ShadowScores) -> bool:
        """Produce scores that are not recorded yet while the queue has room to spare; return whether all were."""
        state, model, now = shadow.state, shadow.model, datetime.now(UTC)
        usecase = state.usecase
        answers = {
            answer["entity_id"]: (answer, probability)
            for answer, probability in zip(state.answers, shadow.probabilities.tolist(), strict=True)
        }
        scores = {
            entity: Score(probability, answer["decision_date"], answer["slot"], model.run_id)
            for entity, (answer, probability) in answers.items()
        }

        def event_of(entity: str, score: Score) -> ServedScore:
            answer, probability = answers[entity]
            return ServedScore(
                event_id=f"shadow-{_id(usecase.name, entity, score)}", event_time=now, request_id="shadow",
                use_case=usecase.name, entity_id=entity, slot=score.slot, decision_time=answer["decision_time"],
                outcome_date=answer["outcome_date"], probability=probability,
                expected_cost=probability * answer["cost_if_fail"], model_version=model.version,
                mlflow_run_id=model.run_id, stage="shadow", feature_set_hash=usecase.feature_set_hash, what_if=False,
                stale=shadow.stale, latency_ms=shadow.milliseconds,
            )  # fmt: skip

        stream = self._streams.get(usecase.name)
        if stream is None:
            stream = self._streams[usecase.name] = ScoreStream(self._recorder, SERVED_SCORES.topic, least_change=0.0)
        most = self._recorder.room // _OF_ROOM
        return stream.tell(scores, event_of, most=most) < most


def _id(use_case: str, entity: str, score: Score) -> str:
    return ChangedScore.id_of(use_case, entity, score.decision_date, score.slot, score.mlflow_run_id, score.probability)


def bearer(authoriser: Authoriser) -> Authorise:
    """Return the check of a request's token: 401 if it is not valid, 403 if its scopes do not allow the request."""

    def let_in(request: Request, verb: Verb, use_case: str) -> str:
        try:
            caller = authoriser.caller(request.headers.get("authorization"))
            if verb == "models":
                caller.require("models", "read")
            else:
                caller.require(use_case, verb)
        except (UnauthorisedError, ForbiddenError) as error:
            raise RefusedError(error.status, str(error)) from None
        return caller.subject

    return let_in
