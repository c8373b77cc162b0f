"""The HTTP edge of the service: msgspec decodes and encodes bodies, health never waits, and excess load is refused."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from math import ceil
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
import structlog
from fastapi import FastAPI
from opentelemetry.trace import NoOpTracerProvider, TracerProvider, get_current_span
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ml_assets.answers import ServedScore, Stage
from ml_assets.database.promotions import LedgerEntry
from ml_assets.serving.beside import Beside
from ml_assets.serving.bodies import ExplainRequest, ScoreRequest
from ml_assets.serving.gather import Gatherer
from ml_assets.serving.limits import RateLimit
from ml_assets.serving.models import OpenModel
from ml_assets.serving.openapi import document
from ml_assets.serving.parts import Authorise, NoRecorder, Recorder, RefusedError, Verb, let_in
from ml_assets.serving.problems import ProblemError, of_decoding, problem
from ml_assets.serving.scoring import NotServedError, Scoring, WhatIfError, ask_what_if, decode_what_if, explain
from ml_assets.serving.state import State

_MOST_BYTES = 2 * 1024 * 1024
_BODY_SECONDS = 10.0
# More answers than this are recorded in a thread, so that the event loop does not block.
_INLINE = 200
# Probes and Prometheus request these every few seconds.
_UNTRACED = ("/health/", "/metrics")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_T = TypeVar("_T")


class Metrics:
    """The metrics of the service for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of: dict[str, Any] = {"registry": self.registry}
        self._counters: dict[tuple[str, int], Counter] = {}
        self.requests = Counter("scoring_requests", "Requests by verb and status", ["verb", "status"], **of)
        self.seconds = Histogram(
            "scoring_request_seconds", "Seconds to answer", ["verb"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5), **of,
        )  # fmt: skip
        self.open = Gauge("scoring_open_decisions", "Rows of the live table", ["use_case"], **of)
        self.version = Gauge("scoring_model_version", "Version that answers", ["use_case"], **of)
        self.refused = Gauge("scoring_model_refused", "1 while the ledger's champion is refused", ["use_case"], **of)
        self.alerts = Gauge(
            "alerts_last_evaluated_timestamp_seconds", "When a rule of alerts was evaluated last; 0: never", **of
        )
        self.age = Gauge("scoring_newest_event_age_seconds", "Age of the newest event", ["use_case"], **of)
        self.scores = Counter("scoring_scores", "Scores given, by stage", ["use_case", "stage"], **of)
        self.share = Gauge("scoring_canary_share", "Share of entities a canary answers for", ["use_case"], **of)
        self.canary = Gauge(
            "scoring_canary_measured", "What the guard measured, over its limit", ["use_case", "condition"], **of
        )
        self.taken_back = Counter("scoring_canary_taken_back", "Canaries that this pod ended", ["use_case"], **of)
        self._stages: dict[tuple[str, Stage], Counter] = {}
        self._counted: dict[tuple[str, str], int] = {}  # of counts kept elsewhere, the part that has been added

    def count(self, verb: str, status: int) -> None:
        """Count a request that was answered."""
        if (counter := self._counters.get((verb, status))) is None:
            counter = self._counters[verb, status] = self.requests.labels(verb, status)
        counter.inc()

    def told(self, use_case: str, stage: Stage, scores: int) -> None:
        """Count scores that callers received."""
        if (counter := self._stages.get((use_case, stage))) is None:
            counter = self._stages[use_case, stage] = self.scores.labels(use_case, stage)
        counter.inc(scores)

    def exposition(self, scoring: Scoring) -> bytes:
        """Return the text that Prometheus reads."""
        for name, served in scoring.served.items():
            self.refused.labels(name).set(served.state is not None and bool(served.keeper.trouble))
            self._beside(name, served.beside)
            if (state := served.state) is not None:
                self.open.labels(name).set(state.table.rows.num_rows)
                self.version.labels(name).set(state.model.version)
                if state.table.newest_event is not None:
                    self.age.labels(name).set((datetime.now(UTC) - state.table.newest_event).total_seconds())
        looked = scoring.alerts_evaluated_at
        self.alerts.set(looked.timestamp() if looked else 0)
        return generate_latest(self.registry)

    def _beside(self, name: str, beside: Beside) -> None:
        canary = beside.canary
        self.share.labels(name).set((canary.line.share or 0.0) if canary is not None else 0.0)
        for condition in beside.conditions:
            if isinstance(condition.value, float) and isinstance(condition.threshold, float):
                self.canary.labels(name, condition.name).set(condition.value / condition.threshold)
        for what, counter, now in (
            ("shadow", self.scores.labels(name, "shadow"), beside.shadow_scores),
            ("taken back", self.taken_back.labels(name), beside.taken_back),
        ):
            counter.inc(now - self._counted.get((name, what), 0))
            self._counted[name, what] = now


def build_app(
    scoring: Scoring,
    *,
    recorder: Recorder | None = None,
    authorise: Authorise = let_in,
    metrics: Metrics | None = None,
    concurrency: int = 64,
    rate: RateLimit | None = None,
    traces: TracerProvider | None = None,
    run: bool = True,
) -> FastAPI:
    """Return the service. With `run`, the threads that keep `scoring` up to date live as long as the service.

    With `traces`, all requests but those for health and metrics are traced.

    Requests beyond `concurrency` at a time are refused with 503, and requests of a client beyond `rate` with 429.
    Health and metrics are always answered. A client is the subject of its token, or its address without tokens.
    """
    notes = recorder or NoRecorder()
    metrics, log = metrics or Metrics(), structlog.get_logger("ml_assets.serving").bind()
    rate = rate or RateLimit(0)
    tracer = (traces or NoOpTracerProvider()).get_tracer(__name__)
    pool = ThreadPoolExecutor(1, thread_name_prefix="answers")
    noting = ThreadPoolExecutor(1, thread_name_prefix="notes")
    what_ifs = Gatherer(ask_what_if, pool)
    scores, explains = msgspec.json.Decoder(ScoreRequest), msgspec.json.Decoder(ExplainRequest)
    encode = msgspec.json.Encoder().encode
    at_work = 0
    # Ids of answers, and of requests that bring no id, are this process's own and ascending.
    life, requests_made, answers_made = uuid4().hex, count(), count()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if run:
            scoring.start()
        yield
        if run:
            await asyncio.get_running_loop().run_in_executor(None, scoring.stop)
        pool.shutdown(wait=False, cancel_futures=True)
        noting.shutdown()

    def request_id_of(request: Request) -> str:
        given = request.headers.get("x-request-id", "")
        return given if _REQUEST_ID.fullmatch(given) else f"{life[:16]}-{next(requests_made)}"

    def answered(verb: Verb, handler: Callable[[Request, str], Awaitable[bytes]]) -> _Endpoint:
        seconds_of = metrics.seconds.labels(verb)

        async def endpoint(request: Request) -> Response:
            nonlocal at_work
            begun, request_id = time.perf_counter(), request_id_of(request)
            get_current_span().set_attribute("request_id", request_id)
            try:
                if at_work >= concurrency:
                    raise ProblemError(503, "too many requests at a time; try again in a second", retry_after=1)
                at_work += 1
                try:
                    response = Response(await _let_in(request, verb, request_id), media_type="application/json")
                finally:
                    at_work -= 1
            except ProblemError as error:
                response = problem(error, request.url.path, request_id)
            except Exception as error:
                if _lacks_memory(error):
                    log.error("out of memory", verb=verb, request_id=request_id)
                    said = ProblemError(
                        503, "the service has not the memory for this now; ask for fewer at a time, or later",
                        retry_after=5,
                    )  # fmt: skip
                else:
                    log.exception("failed", verb=verb, request_id=request_id)
                    said = ProblemError(500, "the service failed; its log says why")
                response = problem(said, request.url.path, request_id)
            response.headers["x-request-id"] = request_id
            seconds = time.perf_counter() - begun
            metrics.count(verb, response.status_code)
            seconds_of.observe(seconds)
            log.debug(
                "answered", verb=verb, status=response.status_code, seconds=round(seconds, 6), request_id=request_id
            )
            return response

        async def _let_in(request: Request, verb: Verb, request_id: str) -> bytes:
            try:
                client = authorise(request, verb, request.path_params.get("use_case", ""))
            except RefusedError as error:
                raise ProblemError(error.status, str(error)) from None
            if wait := rate.take(client):
                raise ProblemError(
                    429, f"this client sends too many requests; try again in {wait:.1f} seconds", retry_after=ceil(wait)
                )
            return await handler(request, request_id)

        return _Endpoint(endpoint)

    def state_of(request: Request) -> State:
        try:
            return scoring.state(request.path_params["use_case"])
        except NotServedError as error:
            status = 503 if error.known else 404
            raise ProblemError(status, str(error), retry_after=5 if error.known else 0) from None

    def note(state: State, answers: Sequence[Mapping[str, Any]], request_id: str, begun: float, what_if: bool) -> None:
        by_canary = sum(one["stage"] == "canary" for one in answers) if state.canary is not None else 0
        metrics.told(state.usecase.name, "champion", len(answers) - by_canary)
        if by_canary:
            metrics.told(state.usecase.name, "canary", by_canary)
        if isinstance(notes, NoRecorder):
            return
        now, latency = datetime.now(UTC), (time.perf_counter() - begun) * 1000
        stale = bool(scoring.served[state.usecase.name].is_stale())
        for one in answers:
            stage: Stage = one["stage"]
            model = state.models[stage]
            notes.record(
                ServedScore(
                    event_id=f"{life}-{next(answers_made)}", event_time=now,
                    request_id=request_id, use_case=state.usecase.name, entity_id=one["entity_id"], slot=one["slot"],
                    decision_time=one["decision_time"], outcome_date=one["outcome_date"],
                    probability=one["probability"], expected_cost=one["expected_cost"], model_version=model.version,
                    mlflow_run_id=model.run_id, stage=stage, feature_set_hash=state.usecase.feature_set_hash,
                    what_if=what_if, stale=stale, latency_ms=latency,
                )
            )  # fmt: skip

    async def score(request: Request, request_id: str) -> bytes:
        begun, state = time.perf_counter(), state_of(request)
        asked = _decoded(scores, await _body(request))
        said: Sequence[Any]
        if (asked.entity_ids is None) == (asked.what_if is None):
            raise ProblemError(422, "give either entity_ids or what_if, and exactly one of them", "$")
        refused: list[dict[str, str]] = []
        if asked.entity_ids is not None:
            index, rows = state.table.index, []
            for entity in asked.entity_ids:
                if (at := index.get(entity)) is None:
                    refused.append({"entity_id": entity, "reason": "there is no open decision with this id"})
                else:
                    rows.append(at)
            answers, said = [state.answers[at] for at in rows], [state.encoded[at] for at in rows]
        else:
            now = state.table.as_of
            try:
                given = [
                    decode_what_if(state.usecase, one, now, f"$.what_if[{at}]")
                    for at, one in enumerate(asked.what_if or ())
                ]
                with tracer.start_as_current_span("what_if", attributes={"requests": len(given)}):
                    found = await what_ifs.ask(state, given)
            except WhatIfError as error:
                raise ProblemError(422, str(error), error.field) from None
            answers = said = [answer for _, answer in found if answer is not None]
            refused = [
                {"entity_id": entity, "reason": "decisions.sql lists no decision about it at this time"}
                for entity, answer in found
                if answer is None
            ]
        noted = partial(note, state, answers, request_id, begun, asked.what_if is not None)
        if len(answers) > _INLINE:
            noting.submit(noted)
        else:
            noted()
        return encode(_said(scoring, state, said, refused, request_id))

    async def reasons(request: Request, request_id: str) -> bytes:
        begun, state = time.perf_counter(), state_of(request)
        asked = _decoded(explains, await _body(request))
        known = [entity for entity in asked.entity_ids if entity in state.table.index]
        refused = [
            {"entity_id": entity, "reason": "there is no open decision with this id"}
            for entity in asked.entity_ids
            if entity not in state.table.index
        ]
        try:
            with tracer.start_as_current_span("explain", attributes={"entities": len(known)}):
                answers = await asyncio.get_running_loop().run_in_executor(pool, explain, state, known)
        except ValueError as error:
            raise ProblemError(422, str(error)) from None
        note(state, answers, request_id, begun, False)
        return encode(_said(scoring, state, answers, refused, request_id))

    async def models(_: Request, request_id: str) -> bytes:
        return encode({"request_id": request_id, "models": _models(scoring)})

    async def live(_: Request) -> Response:
        return Response(b'{"live":true}', media_type="application/json")

    async def ready(_: Request) -> Response:
        troubles = scoring.ready()
        newest = {
            name: served.state.table.newest_event for name, served in scoring.served.items() if served.state is not None
        }
        refused = {n: s.keeper.trouble for n, s in scoring.served.items() if s.state is not None and s.keeper.trouble}
        said = {"ready": not troubles, "troubles": troubles, "refused_models": refused, "newest_event": newest}
        said["alerts_evaluated_at"] = scoring.alerts_evaluated_at
        return Response(encode(said), 503 if troubles else 200, media_type="application/json")

    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(scoring), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def elsewhere(request: Request, error: Exception) -> Response:
        """Answer a request for an unknown path (404) or with a wrong method (405)."""
        assert isinstance(error, HTTPException)  # noqa: S101 - the handler is registered for it
        response = problem(
            ProblemError(error.status_code, f"{request.method} {request.url.path}: /openapi.json lists all requests"),
            request.url.path,
            request_id_of(request),
        )
        response.headers.update(error.headers or {})
        return response

    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        telemetry={
            "tracer_provider": traces,
            "tracing": traces is not None,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
            "exclude": lambda scope: scope["path"].startswith(_UNTRACED),
        },
        routes=[
            Route("/v1/{use_case}/score", answered("score", score), methods=["POST"]),
            Route("/v1/{use_case}/explain", answered("explain", reasons), methods=["POST"]),
            Route("/models", answered("models", models), methods=["GET"]),
            Route("/health/live", live, methods=["GET"]),
            Route("/health/ready", ready, methods=["GET"]),
            Route("/metrics", exposition, methods=["GET"]),
        ],
        exception_handlers={HTTPException: elsewhere},
        lifespan=lifespan,
    )
    app.openapi = document  # type: ignore[method-assign] # how FastAPI is given a custom document
    return app


def _lacks_memory(error: Exception) -> bool:
    """Return whether there was no memory, also for the stack of a new thread, of which Python says only this."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


class _Endpoint:
    """An ASGI application with one handler. Starlette would wrap a plain function in four more calls."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)


async def _body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        ProblemError: it is too long, or does not arrive in time.
    """

    too_long = ProblemError(413, f"a body may have {_MOST_BYTES:,} bytes at most; send fewer entities at a time")
    given = request.headers.get("content-length", "0")
    if not given.isdecimal() or int(given[:20]) > _MOST_BYTES:
        raise too_long
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > _MOST_BYTES:
                    raise too_long
                parts.append(part)
            return b"".join(parts)
    except TimeoutError:
        raise ProblemError(408, f"the body did not arrive within {_BODY_SECONDS:g} seconds") from None
    except ClientDisconnect:
        raise ProblemError(400, "the connection was closed before the body had arrived") from None


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise of_decoding(error) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(400, f"the body is not readable JSON: {type(error).__name__}") from None


def _said(
    scoring: Scoring, state: State, answers: Sequence[Any], refused: Sequence[Any], request_id: str
) -> dict[str, Any]:
    stale = scoring.served[state.usecase.name].is_stale()
    return {
        "use_case": state.usecase.name,
        "request_id": request_id,
        "as_of": state.table.as_of,
        "newest_event": state.table.newest_event,
        "stale": bool(stale),
        "stale_reason": stale or None,
        "model": {"version": state.model.version, "mlflow_run_id": state.model.run_id, "stage": "champion"},
        "scores": answers,
        "refused": refused,
    }


def _models(scoring: Scoring) -> list[dict[str, Any]]:
    found = []
    for name, served in scoring.served.items():
        beside, line = served.beside, served.beside.canary_line
        canary = ended = None
        if line is not None and line.action == "canary":
            answers = beside.canary is not None and beside.canary.line.id == line.id
            canary = {**_line(line), "share": line.share, "answers": answers}
        elif line is not None:
            ended = {**_line(line), "reason": line.reason}
        challenger = beside.challenger_keeper.model
        troubles = (served.keeper.trouble, beside.canary_keeper.trouble, beside.challenger_keeper.trouble)
        found.append({
            "use_case": name,
            "champion": _opened(served.keeper.model),
            "challenger": _opened(challenger),
            "canary": canary,
            "canary_ended": ended,
            "refused": "; ".join(dict.fromkeys(filter(None, troubles))) or None,
        })  # fmt: skip
    return found


def _opened(model: OpenModel | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {
        "version": model.version, "mlflow_run_id": model.run_id, "model_hash": model.model_hash, "since": model.since,
        "by": model.by,
    }  # fmt: skip


def _line(line: LedgerEntry) -> dict[str, Any]:
    return {
        "version": line.to_version, "mlflow_run_id": line.mlflow_run_id, "model_hash": line.model_hash,
        "since": line.recorded_at, "by": line.actor,
    }  # fmt: skip
