"""How the service ends without dropping a request: after SIGTERM it goes on for a while, and sends its clients away.

Kubernetes sends SIGTERM and takes the pod out of its Service at the same moment, and for seconds new connections still
come. So the socket stays open for `drain_seconds`, and each answer closes its connection: a client that keeps its
connections opens the next one elsewhere. Then uvicorn takes no more and ends what it has begun.
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
        """Answer a request."""
        if not self.closing or scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_last)


class DrainingServer(uvicorn.Server):
    """uvicorn, but that SIGTERM begins a drain, and `run` returns after it: what comes after `run` is done too.

    Its clients must say in time what they ask for (`serving.heads`). uvicorn itself stops to listen at once, and then
    has the signal kill the process. A second SIGTERM ends the drain.

    Args:
        app: the service.
        drain_seconds: for how long new requests are still answered.
        options: of `uvicorn.Config`.
    """

    def __init__(self, app: ASGIApp, *, drain_seconds: float, **options: object) -> None:
        self._door = Door(app)
        super().__init__(uvicorn.Config(self._door, http=HeadsInTime, **options))  # type: ignore[arg-type]
        self._drain_seconds = drain_seconds
        self._ends: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
            return
        now = time.monotonic()
        self._ends = now + self._drain_seconds if self._ends is None else now
        self._door.closing = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end; uvicorn asks ten times a second."""
        if self._ends is not None and time.monotonic() >= self._ends:
            self.should_exit = True
        return await super().on_tick(counter)
