"""How the service ends without dropping a request: after SIGTERM it still answers for a while and closes connections.

Kubernetes sends SIGTERM and removes the pod from its Service at the same moment, so new connections still arrive for
some seconds. The socket therefore stays open for `drain_seconds`, and each answer closes its connection: a client with
persistent connections opens the next one to another pod. Then uvicorn accepts no more requests and finishes those that
it has begun.
"""

import signal
import time
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_assets.serving.heads import HeadsInTime


class Door:
    """An app whose answers close their connections once `closing` is set."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the app."""
        if not self.closing or scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_last)


class DrainingServer(uvicorn.Server):
    """uvicorn's server with a drain: SIGTERM begins it, and `run` returns after it, so the code after `run` is run.

    uvicorn itself stops listening at once, and then lets the signal kill the process. A second SIGTERM ends the drain.
    Clients must send the head of a request in time (`serving.heads`).

    Args:
        app: the service.
        drain_seconds: how long new requests are still answered.
        options: options of `uvicorn.Config`.
    """

    def __init__(self, app: ASGIApp, *, drain_seconds: float, **options: object) -> None:
        self._door = Door(app)
        super().__init__(uvicorn.Config(self._door, http=HeadsInTime, **options))  # type: ignore[arg-type]
        self._drain_seconds = drain_seconds
        self._ends: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: SIGTERM begins or ends the drain."""
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
            return
        now = time.monotonic()
        self._ends = now + self._drain_seconds if self._ends is None else now
        self._door.closing = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end; uvicorn calls this ten times a second."""
        if self._ends is not None and time.monotonic() >= self._ends:
            self.should_exit = True
        return await super().on_tick(counter)
