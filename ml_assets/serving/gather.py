"""Requests that arrive close together share one query: a query for many costs little more than a query for one."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

# How long a request waits for others; and how often at most, as long as others come: after a call all whom it answered
# may ask again, and each takes a moment to be read.
_GATHER_SECONDS = 0.003
_MOST_WAITS = 4
State = TypeVar("State")
Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Gatherer(Generic[State, Request, Answer]):
    """Gathers requests that arrive within milliseconds, or while a query runs, and answers them with one query.

    `ask` takes a state and requests, and returns one answer per request, in order. It runs in `pool`, one call at a
    time. Requests for two states, such as two live tables, never share a call.
    """

    def __init__(self, ask: Callable[[State, Sequence[Request]], Sequence[Answer]], pool: Executor) -> None:
        self._ask, self._pool = ask, pool
        self._free = asyncio.Lock()
        # By the identity of the state; the state's turn holds it until its requests are taken out.
        self._waiting: dict[int, list[tuple[Request, asyncio.Future[Answer]]]] = {}
        self._turns = set[asyncio.Task[None]]()

    async def ask(self, state: State, requests: Sequence[Request]) -> list[Answer]:
        """Return the answers to requests, in order; an error of the shared call is raised for each of its requests."""
        if not requests:
            return []
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in requests]
        if id(state) not in self._waiting:
            self._waiting[id(state)] = []
            turn = loop.create_task(self._turn(state))
            self._turns.add(turn)
            turn.add_done_callback(self._turns.discard)
        self._waiting[id(state)].extend(zip(requests, futures, strict=True))
        return list(await asyncio.gather(*futures))

    async def _turn(self, state: State) -> None:
        async with self._free:
            # Now and not before the call that runs has ended: whoever it answered may ask again, and should share the
            # next call, not wait for it.
            there = 0
            for _ in range(_MOST_WAITS):
                if there == len(self._waiting[id(state)]):
                    break
                there = len(self._waiting[id(state)])
                await asyncio.sleep(_GATHER_SECONDS)
            taken = self._waiting.pop(id(state))
            asked = [request for request, _ in taken]
            try:
                answers = await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, state, asked)
            except Exception as error:
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), answer in zip(taken, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
