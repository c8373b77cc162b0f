"""Lengths of time as people write them: `30 minutes`, `1 hour`, `4 days`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from ml_assets.errors import InputError

_WRITTEN: Final = re.compile(r"(\d{1,4}) (minute|hour|day)s?")


def duration(said: str, *, where: str) -> timedelta:
    """Return the length of time that a text names.

    Raises:
        InputError: it is not a number of minutes, hours or days.
    """
    if (found := _WRITTEN.fullmatch(said.strip())) is None:
        raise InputError(f"{said!r} is no length of time", where=where, to_do="write it as `30 minutes` or `4 days`")
    return timedelta(**{f"{found[2]}s": int(found[1])})


def in_words(length: timedelta) -> str:
    """Return a length of time in its largest whole unit: `90 minutes`, `2 hours`, `4 days`."""
    minutes = round(length.total_seconds() / 60)
    for unit, size in (("day", 1440), ("hour", 60), ("minute", 1)):
        if (minutes % size == 0 and minutes >= size) or size == 1:
            number = minutes // size
            return f"{number:,} {unit}{'' if number == 1 else 's'}"
    raise AssertionError("unreachable")
