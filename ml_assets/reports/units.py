"""Units of a report's columns: how a value is rounded, shown to people, and written for a spreadsheet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final, Literal

from ml_assets.markdown import shown

NOTHING: Final = ""
# All digits of the largest float.
_WIDE: Final = Context(prec=400)


@dataclass(frozen=True, slots=True)
class Unit:
    """How values of a unit are shown: `decimals` None is for text, dates and times.

    `factor` and `suffix` turn a share into per cent, `signed` puts a plus before what is above 0. `heading` stands in
    brackets behind a column's title; of `currency` that is the currency of the use case. `wraps` tells how a cell
    breaks: between words, nowhere, or anywhere.
    """

    decimals: int | None = None
    factor: int = 1
    suffix: str = ""
    signed: bool = False
    heading: str = ""
    wraps: Literal["words", "nowhere", "anywhere"] = "nowhere"

    @property
    def is_number(self) -> bool:
        """Whether values are numbers, which stand on the right."""
        return self.decimals is not None


UNITS: Final[dict[str, Unit]] = {
    "text": Unit(wraps="words"),
    "code": Unit(),
    "hash": Unit(wraps="anywhere"),
    "date": Unit(),
    "time": Unit(heading="UTC"),
    "count": Unit(0),
    "expected count": Unit(1),
    "currency": Unit(0, heading="currency"),
    "currency, signed": Unit(0, signed=True, heading="currency"),
    "share": Unit(1, factor=100, suffix=" %"),
    "small share": Unit(2, factor=100, suffix=" %"),
    "change": Unit(1, factor=100, suffix=" %", signed=True),
    "metric": Unit(3),
    "minutes": Unit(1, heading="minutes"),
    "hours": Unit(1, heading="hours"),
}


def show(value: Any, unit: Unit) -> str:
    """Return a value as people read it, with thousands separators; an unknown one is empty."""
    if value is None:
        return NOTHING
    if unit.decimals is None:
        return _words(value)
    number = _rounded(_WIDE.multiply(Decimal(str(value)), Decimal(unit.factor)), unit.decimals)
    if number is None:
        return NOTHING
    return f"{number:{'+' if unit.signed and number else ''},}{unit.suffix}"


def write(value: Any, unit: Unit) -> int | Decimal | str | None:
    """Return a value for a file that is computed with: a number without separators, two digits finer than shown."""
    if value is None:
        return None
    if unit.decimals is None:
        return _words(value)
    finer = 0 if unit.decimals == 0 and isinstance(value, int) else 2
    return _rounded(Decimal(str(value)), unit.decimals + finer + (2 if unit.factor == 100 else 0))


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    return value.isoformat() if isinstance(value, date) else shown(value)


def _rounded(number: Decimal, decimals: int) -> Decimal | None:
    """Return a number with so many decimals, 0 without a sign; None if it is not finite."""
    if not number.is_finite():
        return None
    rounded = number.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN, _WIDE)
    return abs(rounded) if rounded.is_zero() else rounded
