"""Engines and transactions on the application's database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url

from ml_assets.database.roles import MAY_BE, READ
from ml_assets.errors import InputError


def connect(url: str) -> Engine:
    """Return an engine, which connects when first used. Dispose of it, or let it live as long as the process.

    Raises:
        ValueError: the driver is not psycopg 3, whose COPY is used here.
    """
    parsed = make_url(url)
    if (driver := parsed.get_dialect().driver) != "psycopg":
        raise InputError(
            f"{parsed.render_as_string()} uses {driver}; the application's database is reached through psycopg 3: "
            "postgresql+psycopg://..."
        )
    return create_engine(parsed, pool_pre_ping=True)


def connect_to_read(url: str, *, seconds: float = 30) -> Engine:
    """Return an engine of which each connection only reads, for `seconds` a statement at most.

    It reads as the role `ml_assets_read` where the login may take that role; elsewhere the transactions are read-only.

    Raises:
        ValueError: see `connect`.
    """
    engine = connect(url)

    def narrow(raw: Any, _: object) -> None:
        raw.execute("SET default_transaction_read_only = on")
        raw.execute(f"SET statement_timeout = {round(seconds * 1000)}")
        if raw.execute(MAY_BE.replace(":role", "%s"), [READ]).fetchone() == (True,):
            raw.execute(f"SET ROLE {READ}")
        raw.commit()

    event.listen(engine, "connect", narrow)
    return engine


@contextmanager
def begin(where: Engine | Connection | str) -> Iterator[Connection]:
    """Yield a connection in a transaction that commits at the end, or rolls back if the block raises.

    A URL is connected to once and left again; a process that asks often passes an engine of `connect`. A connection is
    yielded as it is: whoever opened it ends its transaction.
    """
    if isinstance(where, Connection):
        yield where
        return
    if isinstance(where, Engine):
        with where.begin() as connection:
            yield connection
        return
    engine = connect(where)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
