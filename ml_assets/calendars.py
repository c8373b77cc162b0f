"""Business days of a market, from the `holidays` package."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import holidays


@lru_cache(maxsize=64)
def _holidays(market: str, year: int) -> frozenset[date]:
    return frozenset(holidays.financial_holidays(market, years=year))


@dataclass(frozen=True, slots=True)
class BusinessCalendar:
    """The business days of one market, named as in `holidays.financial_holidays` (`ECB` is TARGET, `NYSE`)."""

    market: str

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
        """Return the day that lies so many business days after (or, when negative, before) `day`."""
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
