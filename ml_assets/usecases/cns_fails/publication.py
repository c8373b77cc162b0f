"""When the SEC publishes the fails of a settlement date: in the file of its half-month, or of its quarter.

Source: https://www.sec.gov/data-research/sec-markets-data/fails-deliver-data
"""

import calendar
from datetime import UTC, date, datetime, time
from typing import NamedTuple

TOPIC = "cns_fails"
# The files do not tell the hour; after the close of business in New York.
_PUBLISHED_AT = time(23, tzinfo=UTC)
# From this month on a file is a half-month.
_HALF_MONTHS_SINCE = date(2009, 7, 1)


class Period(NamedTuple):
    """What a file covers: the first (`a`, up to the 14th) or second (`b`) half of a month, or a quarter (`q`).

    The `month` of a quarter is its last.
    """

    year: int
    month: int
    half: str

    @classmethod
    def of(cls, day: date) -> "Period":
        """Return the period of the file in which the SEC publishes a settlement date."""
        if day < _HALF_MONTHS_SINCE:
            return cls(day.year, (day.month + 2) // 3 * 3, "q")
        return cls(day.year, day.month, "a" if day.day < 15 else "b")

    @property
    def first(self) -> date:
        """The first day of the period."""
        months = self.year * 12 + self.month - (3 if self.half == "q" else 1)
        return date(months // 12, months % 12 + 1, 15 if self.half == "b" else 1)

    @property
    def next(self) -> "Period":
        """The period after this one."""
        if self.half == "a":
            return self._replace(half="b")
        return Period.of(date(self.year + self.month // 12, self.month % 12 + 1, 1))

    @property
    def published(self) -> datetime:
        """When its file is published: a first half at the month's end, a second half on the 15th of the next month.

        A quarter is taken to be published at the end of the second month after it: no date is on record.
        """
        if self.half == "b":
            return datetime.combine(date(self.year + self.month // 12, self.month % 12 + 1, 15), _PUBLISHED_AT)
        months = self.year * 12 + self.month - 1 + (2 if self.half == "q" else 0)
        year, month = months // 12, months % 12 + 1
        return datetime.combine(date(year, month, calendar.monthrange(year, month)[1]), _PUBLISHED_AT)

    def __str__(self) -> str:
        return f"{self.year}q{self.month // 3}" if self.half == "q" else f"{self.year}-{self.month:02}{self.half}"


def publication_time(day: date) -> datetime:
    """Return when the fails of a settlement date are published."""
    return Period.of(day).published
