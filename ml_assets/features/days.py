"""Days on which rows became known: each weekday from midnight UTC, Monday with the weekend before it."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from ml_assets.contracts import roll_to_weekday


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
