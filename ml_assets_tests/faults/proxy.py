"""A proxy before an S3 server that spoils chosen requests, on command of the process that runs it."""

import asyncio
import contextlib
import random
import re
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

import aiohttp
from aiohttp import web
from yarl import URL

from ml_assets_tests.s3 import S3Server

COMMIT = re.compile(r"/_delta_log/\d{20}\.json$")
"""The path of a Delta commit: whoever puts it first, conditionally, has committed."""
DATA = re.compile(r"\.parquet$")
"""The path of a data file, or of a checkpoint."""

_LARGEST_BODY = 1 << 30
_TIMEOUT = 30.0
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length"}
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Action(StrEnum):
    """What happens to a spoiled request."""

    DELAY = "delay"  # it is forwarded after `seconds`
    UNAVAILABLE = "unavailable"  # it is answered with 503 and not forwarded
    CUT = "cut"  # its connection is closed and it is not forwarded
    HANG = "hang"  # nothing happens until the fault is lifted; then its connection is closed
    HOLD = "hold"  # it is forwarded once the fault is lifted, if its client still waits
    ARRIVE_LATE = "arrive_late"  # it is forwarded once the fault is lifted, even if its client is gone
    LOSE_ANSWER = "lose_answer"  # it is forwarded, and its connection closed instead of an answer


@dataclass(frozen=True, slots=True)
class Fault:
    """Which requests are spoiled, and how.

    It touches requests of `method` (empty: any) whose path `path` finds, each with a probability of `share`, and at
    most `times` of them (0: without limit).
    """

    action: Action
    path: re.Pattern[str] = re.compile("")
    method: str = ""
    share: float = 1.0
    times: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Injected:
    """A fault that is in force: wait for it to strike, and lift it."""

    fault: Fault
    _loop: asyncio.AbstractEventLoop
    _chance: random.Random
    hits: int = 0
    _struck: threading.Event = field(default_factory=threading.Event)
    _lifted: asyncio.Event = field(default_factory=asyncio.Event)

    def wait(self, seconds: float = _TIMEOUT) -> bool:
        """Wait until a request has been touched and return whether one was."""
        return self._struck.wait(seconds)

    def lift(self) -> None:
        """End the fault: later requests pass, and those that it keeps go on."""
        self._loop.call_soon_threadsafe(self._lifted.set)

    def touches(self, request: web.Request) -> bool:
        """Return whether this request is to be spoiled, and count it."""
        fault = self.fault
        if self._lifted.is_set() or (fault.times and self.hits >= fault.times):
            return False
        if (fault.method and fault.method != request.method) or not fault.path.search(request.path):
            return False
        if self._chance.random() >= fault.share:
            return False
        self.hits += 1
        self._struck.set()
        return True

    async def lifted(self) -> None:
        """Return once the fault has been lifted."""
        await self._lifted.wait()


class FaultProxy:
    """Forwards to an S3 server what no fault touches; `server` is the address for clients.

    `requests` holds the last lines of its log: method, path, answer.
    """

    def __init__(self, upstream: S3Server, seed: int = 0) -> None:
        self._upstream = upstream
        self._chance = random.Random(seed)
        self._faults: list[Injected] = []
        self._loop = asyncio.new_event_loop()
        self.requests: deque[str] = deque(maxlen=400)
        self.server = upstream

    def inject(self, fault: Fault) -> Injected:
        """Put a fault in force, after the ones that are already."""
        injected = Injected(fault, self._loop, self._chance)
        self._faults = [*self._faults, injected]
        return injected

    def lift_all(self) -> None:
        """End all faults."""
        faults, self._faults = self._faults, []
        for injected in faults:
            injected.lift()

    @contextlib.contextmanager
    def running(self) -> Iterator["FaultProxy"]:
        """Serve on a free port, in a thread, for the length of a block."""
        started: threading.Event = threading.Event()
        thread = threading.Thread(target=self._serve, args=(started,), name="fault proxy")
        thread.start()
        try:
            assert started.wait(_TIMEOUT), "the fault proxy did not start"
            yield self
        finally:
            self.lift_all()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        runner, session = self._loop.run_until_complete(self._open())
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.run_until_complete(session.close())

    async def _open(self) -> tuple[web.AppRunner, aiohttp.ClientSession]:
        # Moto answers a request a connection; one kept open would be found closed by the next request.
        session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(force_close=True))
        app = web.Application(client_max_size=_LARGEST_BODY)

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(session, request)

        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.server = replace(self._upstream, endpoint=f"http://127.0.0.1:{port}")
        return runner, session

    async def _handle(self, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
        body = await request.read()

        async def forward() -> web.StreamResponse:
            return await self._forward(session, request, body)

        for injected in self._faults:
            if injected.touches(request):
                answer = await _spoil(injected, request, forward)
                self._note(request, f"{injected.fault.action} {answer.status if answer else 'no answer'}")
                return answer if answer is not None else _cut(request)
        answer = await forward()
        self._note(request, str(answer.status))
        return answer

    async def _forward(self, session: aiohttp.ClientSession, request: web.Request, body: bytes) -> web.StreamResponse:
        url = URL(self._upstream.endpoint + request.raw_path, encoded=True)
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP]
        try:
            async with session.request(
                request.method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                skip_auto_headers=["Content-Type"],
            ) as answer:
                content = await answer.read()
                passed = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
                response = web.Response(status=answer.status, headers=passed, body=content)
                if request.method == "HEAD":  # the length of what is not sent
                    response.headers["Content-Length"] = answer.headers.get("Content-Length", "0")
                return response
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=f"the S3 server behind the fault proxy: {error}")

    def _note(self, request: web.Request, answer: str) -> None:
        self.requests.append(f"{request.method} {request.path} {answer}")


async def _spoil(
    injected: Injected, request: web.Request, forward: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse | None:
    """Do what the fault says and return the answer; None if there is none."""
    match injected.fault.action:
        case Action.DELAY:
            await asyncio.sleep(injected.fault.seconds)
            return await forward()
        case Action.UNAVAILABLE:
            return web.Response(status=503, body=_SLOW_DOWN, content_type="application/xml")
        case Action.CUT:
            return None
        case Action.HANG:
            await injected.lifted()
            return None
        case Action.HOLD:
            await injected.lifted()
            return await forward() if request.transport is not None else None
        case Action.ARRIVE_LATE:
            await injected.lifted()
            return await forward()
        case Action.LOSE_ANSWER:
            await forward()
            return None


def _cut(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
