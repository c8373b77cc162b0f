"""What the service takes from others: who may ask, and who notes what was answered."""

from collections.abc import Callable
from typing import Literal, Protocol

from starlette.requests import Request

from ml_assets.answers import ServedScore

Verb = Literal["score", "explain", "models"]


class Recorder(Protocol):
    """Notes answers. It never waits: what it has no room for is dropped, and counted by it."""

    def record(self, answer: ServedScore) -> None:
        """Note an answer."""
        ...


class NoRecorder:
    """Notes nothing."""

    def record(self, answer: ServedScore) -> None:
        """Do nothing."""


class RefusedError(Exception):
    """A request is not let in: the status (401 or 403) and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


# Lets a request in and returns who asks, or raises RefusedError. The use case is empty where all are meant.
Authorise = Callable[[Request, Verb, str], str]


def let_in(request: Request, verb: Verb, use_case: str) -> str:  # noqa: ARG001 - as `Authorise`
    """Let everybody in: for a laptop, where only this machine can ask. A client is an address."""
    return request.client.host if request.client else ""
