"""The MCP server: its tools as the SDK serves them, on stdio or over HTTP behind the scoring service's tokens."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

import msgspec
from anyio import CapacityLimiter, fail_after, to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ml_assets.errors import ActionableError
from ml_assets.mcp_server.marking import MEANING, mark
from ml_assets.mcp_server.tools import Answer, Tools
from ml_assets.serving.auth import Authoriser, Caller, ForbiddenError, UnauthorisedError
from ml_assets.serving.problems import ProblemError, problem

PATH: Final = "/mcp"
LIVE, READY = "/health/live", "/health/ready"
# A database that says nothing for so long does not answer.
_READY_SECONDS: Final = 5.0
# Calls that work at a time, each in a thread: an explanation holds a day's features in memory. Others wait.
_AT_ONCE: Final = 4
# A call is some names and numbers.
_LARGEST_REQUEST: Final = 64 * 1024
_INSTRUCTIONS: Final = (
    "Machine-learning predictions of a bank's Markets Operations, and what is known about them. All tools only read. "
    "Begin with model_status for the use cases, or work_list for what to act on; explain and similar_cases say more "
    f"about one row of it. Probabilities are calibrated; times are UTC. {MEANING}"
)
_LOG = logging.getLogger(__name__)
# Who asks, in the context of a request; nobody in particular on stdio.
_CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


def build_server(tools: Tools) -> MCPServer[Any]:
    """Return the server of these tools."""
    limiter = CapacityLimiter(_AT_ONCE)
    return MCPServer(
        "ml_assets", title="ml_assets", instructions=_INSTRUCTIONS, subscriptions=False, log_level="WARNING",
        tools=[_tool(tool, limiter) for tool in tools.all],
    )  # fmt: skip


def caller() -> Caller | None:
    """Return who asks; None on stdio, and over HTTP without tokens, where only this machine can ask."""
    return _CALLER.get()


def http_app(server: MCPServer[Any], authoriser: Authoriser | None, reader: Engine) -> ASGIApp:
    """Return the server as an ASGI application at `PATH`. It keeps no session, so any replica answers any request.

    `LIVE` and `READY` ask nobody for a token; it is ready if `reader`, the database that its tools read, answers.
    Without `authoriser` it answers for this machine alone, and refuses what a web page sends by way of a host name that
    leads here (DNS rebinding).
    """
    # With tokens a page of another site has none, and the host's name is the balancer's.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False) if authoriser else None
    app = server.streamable_http_app(
        streamable_http_path=PATH, json_response=True, stateless_http=True, max_request_body_size=_LARGEST_REQUEST,
        transport_security=security,
    )  # fmt: skip
    # Its own: probes do not wait for tools.
    limiter = CapacityLimiter(1)

    def look() -> None:
        with reader.connect() as connection:
            connection.exec_driver_sql("SELECT 1")

    async def live(_: Request) -> Response:
        return Response(b'{"live":true}', media_type="application/json")

    async def ready(_: Request) -> Response:
        troubles = {}
        try:
            with fail_after(_READY_SECONDS):
                await to_thread.run_sync(look, abandon_on_cancel=True, limiter=limiter)
        except Exception as error:
            _LOG.error("the database does not answer: %s", error)
            troubles["database"] = "it does not answer; the log says why"
        said = msgspec.json.encode({"ready": not troubles, "troubles": troubles})
        return Response(said, 503 if troubles else 200, media_type="application/json")

    app.add_route(LIVE, live, methods=["GET"])
    app.add_route(READY, ready, methods=["GET"])
    return _WithTokens(app, authoriser) if authoriser else app


class _WithTokens:
    """Lets in requests with a good token, and says who asks; the lifespan and probes pass."""

    def __init__(self, app: ASGIApp, authoriser: Authoriser) -> None:
        self._app, self._authoriser = app, authoriser

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in (LIVE, READY):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            asks = self._authoriser.caller(headers.get("authorization"))
        except UnauthorisedError as refused:
            answer = problem(ProblemError(refused.status, str(refused)), scope["path"], "")
            await answer(scope, receive, send)
            return
        token = _CALLER.set(asks)
        try:
            await self._app(scope, receive, send)
        finally:
            _CALLER.reset(token)


class _Tool(Tool):
    """A tool that says in plain words which argument is wrong, and how."""

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(self._in_words(error.__cause__)) from error.__cause__
            raise

    def _in_words(self, wrong: ValidationError) -> str:
        known = ", ".join(self.parameters["properties"])
        said = []
        for one in wrong.errors(include_url=False, include_input=False, include_context=False):
            name = mark(".".join(map(str, one["loc"])))
            what = f"is no argument; there are {known}" if one["type"] == "extra_forbidden" else one["msg"]
            said.append(f"{name}: {what[:1].lower()}{what[1:]}")
        return f"{self.name} cannot be called like this: {'; '.join(said)}"


def _tool(tool: Callable[..., Answer], limiter: CapacityLimiter) -> Tool:
    """Return a tool for the SDK. An argument that it does not have is refused: a misspelt one would be ignored."""
    made = _Tool.from_function(
        _answering(tool, limiter),
        description=inspect.getdoc(tool),
        annotations=ToolAnnotations(
            read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )
    model = made.fn_metadata.arg_model
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)
    made.parameters = model.model_json_schema(by_alias=True)
    return made


def _answering(tool: Callable[..., Answer], limiter: CapacityLimiter) -> Callable[..., Awaitable[Answer]]:
    """Return a tool that works in a thread, and whose errors are words for the caller."""

    @functools.wraps(tool)
    async def answer(**arguments: Any) -> Answer:
        try:
            return await to_thread.run_sync(functools.partial(tool, **arguments), limiter=limiter)
        except (ActionableError, ForbiddenError) as said:
            raise ToolError(str(said)) from said
        except (OperationalError, InterfaceError) as error:
            _LOG.error("%s: the database does not answer: %s", tool.__name__, error)
            raise ToolError("a server that this needs does not answer now; try again in a minute") from error

    return answer
