"""What stands around the core, as its seams (`serving.parts`) take it: answers go to Kafka, tokens let callers in."""

from __future__ import annotations

from starlette.requests import Request

from ml_assets.answers import SERVED_SCORES, ServedScore
from ml_assets.predictions.changed import Score
from ml_assets.serving.auth import Authoriser, ForbiddenError, UnauthorisedError
from ml_assets.serving.parts import Authorise, RefusedError, Verb
from ml_assets.serving.recorder import Recorder
from ml_assets.serving.scoring import State
from ml_assets.serving.stream import ScoreStream


class AnswerRecorder:
    """Has each answer recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def record(self, answer: ServedScore) -> None:
        """Note an answer; what finds no room is dropped and counted."""
        self._recorder.record(SERVED_SCORES.topic, answer.entity_id, answer)


class ChangesTold:
    """Tells the stream `predictions` which scores are new or have changed, whenever a live table has been made."""

    def __init__(self, recorder: Recorder, *, least_change: float) -> None:
        self._recorder, self._least_change = recorder, least_change
        self._streams: dict[str, ScoreStream] = {}

    def __call__(self, state: State) -> None:
        """Produce what consumers do not have yet of the scores of a state."""
        name, model, rows = state.usecase.name, state.model, state.table.rows
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = ScoreStream(self._recorder, name, least_change=self._least_change)
        decided = zip(rows["decision_date"].to_pylist(), state.answers, strict=True)
        scores = {
            answer["entity_id"]: Score(answer["probability"], day, answer["slot"], model.run_id)
            for day, answer in decided
        }
        stream.tell(
            scores,
            {answer["entity_id"]: answer["expected_cost"] for answer in state.answers},
            as_of=state.table.as_of,
            model_version=model.version,
            feature_set_hash=state.usecase.feature_set_hash,
        )


def bearer(authoriser: Authoriser) -> Authorise:
    """Return the check of a request's token: 401 if it is not good, 403 if its scopes are for something else."""

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
