"""Which errors a person can act on. All others are bugs, and show where they come from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from ml_assets.errors import ActionableError

_INSUFFICIENT_PRIVILEGE: Final = "42501"
# What libraries raise when a server or table refuses. None is imported for it. A statement that PostgreSQL does not
# understand is a bug, and not among them.
_REFUSALS: Final = {
    "deltalake.exceptions": ("DeltaError",),
    "confluent_kafka": ("KafkaException",),
    "mlflow.exceptions": ("MlflowException",),
    "psycopg": ("OperationalError",),
    "psycopg2": ("OperationalError",),
    "sqlalchemy.exc": ("OperationalError", "InterfaceError", "TimeoutError"),
}


def is_foreseen(error: BaseException) -> bool:
    """Return whether a person can act on an error: bad input, or a file or server that refuses or does not answer."""
    if isinstance(error, tuple(_kinds())):
        return True
    # SQLAlchemy keeps what the driver said; PostgreSQL's code tells a right that lacks from a statement that is wrong.
    return getattr(getattr(error, "orig", error), "sqlstate", "") == _INSUFFICIENT_PRIVILEGE


def foreseen_names() -> set[str]:
    """Return the names of these errors' classes, as far as they are loaded: Dagster keeps no more of an error."""
    return {derived.__name__ for kind in _kinds() for derived in _derived(kind)}


def _kinds() -> Iterator[type[Exception]]:
    yield from (ActionableError, OSError, ModuleNotFoundError)
    for module, names in _REFUSALS.items():
        if module in sys.modules:
            yield from (getattr(sys.modules[module], name) for name in names)


def _derived(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _derived(one)
