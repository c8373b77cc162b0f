"""Days on which rows became known: each weekday from midnight UTC, Monday with the weekend before it; business days."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

import pyarrow as pa

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import roll_to_weekday
from ml_assets.spec import UseCase

# How many years before and after that of a decision `business_days` covers.
_YEARS = 10


def day_of(known_at: datetime) -> date:
    """Return the weekday to which a time belongs."""
    return roll_to_weekday(known_at.astimezone(UTC).date())


def day_start(day: date) -> datetime:
    """Return the first moment of a weekday: the midnight after the weekday before it."""
    return datetime.combine(day - timedelta(days=2 if day.weekday() == 0 else 0), time(), tzinfo=UTC)


def day_end(day: date) -> datetime:
    """Return the last moment (microsecond) of a weekday."""
    return datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC) - timedelta(microseconds=1)


def weekdays(first: date, end: date) -> Iterator[date]:
    """Yield the weekdays from `first` up to, not including, `end`."""
    for ahead in range((end - first).days):
        day = first + timedelta(days=ahead)
        if day.weekday() < 5:
            yield day


def years_of_business_days(usecase: UseCase, around: date) -> tuple[int, int]:
    """Return the first and the last year of `business_days` at a date: ten each way, or as far as the history."""
    history = max(usecase.look_back(event) for event in usecase.events)
    oldest = around - min(history, around - date.min)
    return max(date.min.year + 1, min(around.year - _YEARS, oldest.year)), min(date.max.year - 1, around.year + _YEARS)


@lru_cache(maxsize=32)
def business_days(calendar: BusinessCalendar, first_year: int, last_year: int) -> pa.Table:
    """Return the business days of these years, both included, with the business day before and after each."""
    days = list(calendar.between(date(first_year, 1, 1), date(last_year, 12, 31)))
    columns = {
        "business_date": days,
        "previous": [calendar.previous(days[0]), *days[:-1]],
        "next": [*days[1:], calendar.next(days[-1])],
    }
    return pa.table({name: pa.array(column, pa.date32()) for name, column in columns.items()})


def market_days(calendars: Sequence[BusinessCalendar], first_year: int, last_year: int) -> pa.Table:
    """Return the `business_days` of several calendars, each with its `market`."""
    parts = [(calendar.market, business_days(calendar, first_year, last_year)) for calendar in calendars]
    return pa.concat_tables([days.append_column("market", pa.array([name] * days.num_rows)) for name, days in parts])
