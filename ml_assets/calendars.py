"""Business days of a market, from the `holidays` package."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import holidays
from holidays.registry import EntityLoader

from ml_assets.errors import InputError

_WEEKEND = {5, 6}


@lru_cache(maxsize=1024)
def _holidays(market: str, year: int) -> frozenset[date]:
    return frozenset(day for one in market.split("+") for day in _calendar(one, year))


def _calendar(market: str, year: int) -> Iterable[date]:
    days = holidays.financial_holidays(market, years=year)
    if days.weekend != _WEEKEND:
        raise InputError(
            f"the market {market} is closed on other days than Saturday and Sunday; partitions are weekdays"
        )
    return days


@lru_cache
def _refuse_unknown(market: str) -> None:
    """Ask the registry only: the first calendar that is made imports those of all countries, a fifth of a second."""
    known = set(EntityLoader.get_financial_codes())
    for one in market.split("+"):
        if one not in known:
            raise InputError(f"there is no calendar of the market {one!r}; there are {', '.join(sorted(known))}")


@dataclass(frozen=True, slots=True)
class BusinessCalendar:
    """The business days of a market, named as in `holidays.financial_holidays` (`ECB` is TARGET, `NYSE`).

    With several names, as in `NYSE+FED`, all of these markets must be open.

    Raises:
        InputError: there is no such market; or, when a day is asked for, its week is not Monday to Friday.
    """

    market: str

    def __post_init__(self) -> None:
        _refuse_unknown(self.market)

    def is_business_day(self, day: date) -> bool:
        """Return whether the market settles on this day."""
        return day.weekday() < 5 and day not in _holidays(self.market, day.year)

    def next(self, day: date) -> date:
        """Return the first business day after `day`."""
        return self.add(day, 1)

    def previous(self, day: date) -> date:
        """Return the last business day before `day`."""
        return self.add(day, -1)

    def add(self, day: date, business_days: int) -> date:
        """Return the day that is `business_days` business days after `day`; before it, if the number is negative."""
        step = timedelta(days=1 if business_days > 0 else -1)
        for _ in range(abs(business_days)):
            day += step
            while not self.is_business_day(day):
                day += step
        return day

    def between(self, first: date, last: date) -> Iterator[date]:
        """Yield the business days from `first` to `last`, both included."""
        day = first
        while day <= last:
            if self.is_business_day(day):
                yield day
            day += timedelta(days=1)
