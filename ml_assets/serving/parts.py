"""The interfaces that the service is given: what authorises a request, and what records its answers."""

from collections.abc import Callable
from typing import Literal, Protocol

from starlette.requests import Request

from ml_assets.answers import ServedScore

Verb = Literal["score", "explain", "models"]


class Recorder(Protocol):
    """Records answers. It never waits: if it has no room, it drops an answer and counts it."""

    def record(self, answer: ServedScore) -> None:
        """Record an answer."""
        ...


class NoRecorder:
    """Records nothing."""

    def record(self, answer: ServedScore) -> None:
        """Do nothing."""


class RefusedError(Exception):
    """A request is not authorised: the status (401 or 403) and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


# Returns the client of an authorised request, or raises RefusedError. An empty use case stands for all.
Authorise = Callable[[Request, Verb, str], str]


def let_in(request: Request, verb: Verb, use_case: str) -> str:  # noqa: ARG001 - as `Authorise`
    """Authorise every request and return its address: for a laptop, which only this machine can reach."""
    return request.client.host if request.client else ""
