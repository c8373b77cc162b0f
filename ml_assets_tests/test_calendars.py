from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from ml_assets.calendars import BusinessCalendar

TARGET = BusinessCalendar("ECB")


def test_easter_is_closed():
    assert list(TARGET.between(date(2026, 4, 2), date(2026, 4, 8))) == [
        date(2026, 4, 2),
        date(2026, 4, 7),
        date(2026, 4, 8),
    ]


@given(st.dates(date(2020, 1, 1), date(2027, 12, 31)), st.integers(1, 15))
def test_going_there_and_back_ends_on_the_last_business_day_up_to_the_start(day, distance):
    start = day if TARGET.is_business_day(day) else TARGET.previous(day)
    assert TARGET.add(TARGET.add(start, distance), -distance) == start
