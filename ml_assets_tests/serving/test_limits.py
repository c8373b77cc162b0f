"""Token buckets of clients."""

from hypothesis import given
from hypothesis import strategies as st

from ml_assets.serving.limits import RateLimit


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_is_emptied_and_fills_again() -> None:
    clock = Clock()
    limit = RateLimit(2, burst=3, now=clock)
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.take("b") == 0
    clock.now += 0.5
    assert [limit.take("a"), limit.take("a")] == [0, 0.5]
    clock.now += 3600
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_without_a_rate_nobody_is_refused() -> None:
    limit = RateLimit(0)
    assert {limit.take("a") for _ in range(1000)} == {0}


@given(st.lists(st.floats(0, 2), max_size=60), st.floats(0.5, 10), st.integers(1, 5))
def test_no_client_gets_more_than_burst_and_rate(pauses: list[float], rate: float, burst: int) -> None:
    clock = Clock()
    limit, taken = RateLimit(rate, burst=burst, now=clock), 0
    for pause in pauses:
        clock.now += pause
        wait = limit.take("a")
        taken += not wait
        assert 0 <= wait <= 1 / rate
    assert taken <= burst + rate * sum(pauses) + 1e-6


def test_what_is_remembered_is_bounded() -> None:
    """Guards memory: whoever comes from a new address each time."""
    limit = RateLimit(1)
    for number in range(10_500):
        limit.take(str(number))
    assert len(limit._left) <= 10_000
