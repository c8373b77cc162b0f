"""Requests that come close together share a call, and nobody waits behind calls that he could have shared."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_assets.serving.gather import Gatherer


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def test_what_comes_while_a_call_runs_goes_through_the_next_one(pool: ThreadPoolExecutor) -> None:
    """Guards requests that came milliseconds apart, each of which queued with a call of its own."""
    calls: list[tuple[str, list[int]]] = []
    begun, go_on = threading.Event(), threading.Event()

    def ask(state: str, requests: Sequence[int]) -> list[int]:
        calls.append((state, list(requests)))
        begun.set()
        assert go_on.wait(30)
        return [request * 10 for request in requests]

    async def story() -> list[list[int]]:
        gatherer = Gatherer(ask, pool)
        first = asyncio.create_task(gatherer.ask("old", [1]))
        await asyncio.to_thread(begun.wait, 30)
        later = []
        for number in (2, 4, 6):
            later.append(asyncio.create_task(gatherer.ask("old", [number, number + 1])))
            await asyncio.sleep(0.01)
        other = asyncio.create_task(gatherer.ask("new", [8]))
        await asyncio.sleep(0.01)
        go_on.set()
        return [await task for task in (first, *later, other)]

    answers = asyncio.run(story())
    assert answers == [[10], [20, 30], [40, 50], [60, 70], [80]]
    assert calls == [("old", [1]), ("old", [2, 3, 4, 5, 6, 7]), ("new", [8])]


def test_a_call_waits_while_others_come_and_not_for_ever(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards those who were read a moment too late, and waited for two calls."""
    monkeypatch.setattr("ml_assets.serving.gather._GATHER_SECONDS", 0.2)
    calls: list[list[int]] = []

    def ask(_: str, requests: Sequence[int]) -> list[int]:
        calls.append(list(requests))
        return list(requests)

    async def story() -> None:
        gatherer, asked = Gatherer(ask, pool), []
        for number in range(12):
            asked.append(asyncio.create_task(gatherer.ask("s", [number])))
            await asyncio.sleep(0.1)
        await asyncio.gather(*asked)

    asyncio.run(story())
    assert len(calls[0]) >= 4
    assert len(calls) >= 2


def test_an_error_is_raised_in_all_who_shared_the_call_and_in_no_other(pool: ThreadPoolExecutor) -> None:
    def ask(_: str, requests: Sequence[int]) -> list[int]:
        if 2 in requests:
            raise ValueError("the SQL failed")
        return list(requests)

    async def story() -> tuple[list[object], list[int]]:
        gatherer = Gatherer(ask, pool)
        shared = await asyncio.gather(gatherer.ask("s", [1]), gatherer.ask("s", [2]), return_exceptions=True)
        return list(shared), await gatherer.ask("s", [3])

    shared, after = asyncio.run(story())
    assert [str(error) for error in shared] == ["the SQL failed"] * 2
    assert after == [3]


def test_whoever_goes_away_takes_nobody_along(pool: ThreadPoolExecutor) -> None:
    """Guards a client that leaves: the requests that had joined its call waited for ever."""

    async def story() -> list[int]:
        gatherer = Gatherer(lambda _, requests: list(requests), pool)
        leaves = asyncio.create_task(gatherer.ask("s", [1]))
        await asyncio.sleep(0)
        stays = asyncio.create_task(gatherer.ask("s", [2]))
        await asyncio.sleep(0)
        leaves.cancel()
        return await asyncio.wait_for(stays, 30)

    assert asyncio.run(story()) == [2]
