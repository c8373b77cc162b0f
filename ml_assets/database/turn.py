"""One run of a use case at a time, across processes: the second waits for the first, and is told so.

The lock is the session's: it ends with the process that holds it, however that ends. Who writes may take this lock and
no other (`database.roles`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

_HOLD = text("SELECT runs_hold(:use_case, :waits)")


@contextmanager
def in_turn(engine: Engine, use_case: str, waits: Callable[[], None]) -> Iterator[None]:
    """Hold the turn of a use case for the length of a block; `waits` is called once if another process has it."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # closed at the end of the block, and with it the session, in place of back into the pool
        if not connection.scalar(_HOLD, {"use_case": use_case, "waits": False}):
            waits()
            connection.execute(_HOLD, {"use_case": use_case, "waits": True})
        yield
