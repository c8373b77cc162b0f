"""Who is told of what, and when; desks in time zones whose clocks change."""

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.alerts.routes import Desk, Routing, Smtp, read_routing
from ml_assets.errors import InputError

FILE = """
[desk]
calendar = "ECB"
timezone = "Europe/Frankfurt"
opens = 07:00:00
closes = 19:00:00
[sinks.mail]
kind = "smtp"
host = "mail.bank.example"
sender = "ml-assets@bank.example"
to = ["desk@bank.example"]
[sinks.night]
kind = "webhook"
url = "https://pager.bank.example/alerts"
[[routes]]
severities = ["critical", "warning"]
use_cases = ["settlement_fails"]
hours = "desk"
sinks = ["mail"]
[[routes]]
severities = ["critical"]
hours = "closed"
sinks = ["night"]
""".replace("Europe/Frankfurt", "Europe/Berlin")
MORNING, EVENING = datetime(2026, 3, 27, 9, tzinfo=UTC), datetime(2026, 3, 27, 19, tzinfo=UTC)  # a Friday


@pytest.fixture(scope="module")
def routing() -> Routing:
    return read_routing(FILE, where="routes.toml")


def test_by_day_the_desk_is_told_and_by_night_who_watches(routing: Routing) -> None:
    assert routing.deliveries("settlement_fails", "critical", MORNING) == {"mail": MORNING}
    # Clocks change on the Sunday: the desk opens at 05:00 UTC from then on.
    monday = datetime(2026, 3, 30, 5, tzinfo=UTC)
    assert routing.deliveries("settlement_fails", "critical", EVENING) == {"mail": monday, "night": EVENING}
    assert routing.deliveries("cns_fails", "warning", MORNING) == {}
    assert routing.deliveries("settlement_fails", "info", MORNING) == {}


@given(
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(0, 365 * 1440).map(lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)),
)
def test_a_desk_opens_again_within_days_whatever_its_clocks_do(zone: str, hour: int, minute: int, at: datetime) -> None:
    """Guards times that do not exist, or are there twice, on the night when clocks change."""
    desk = Desk("ECB", zone, time(hour, minute), time(23, 59, 59))
    opening = desk.next_open(at)
    assert opening >= at
    assert desk.is_open(opening)
    assert opening - at < timedelta(days=6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('kind = "smtp"', 'kind = "fax"'), "Invalid value 'fax'"),
        (("host =", "hots ="), "`hots`"),
        (('sinks = ["night"]', 'sinks = ["pager"]'), "route 2 names the sink pager; there are mail, night"),
        (("Europe/Berlin", "Europe/Nowhere"), "there is no timezone 'Europe/Nowhere'"),
        (('"ECB"', '"MOON"'), "the market"),
        (("desk@bank.example", "desk@bank.example\\nBcc: all@else.where"), "is no mail address"),
        (("desk@bank.example", "a@b.example, c@d.example"), "is no mail address"),
        (("https://pager", "file:///pager"), "is no http(s) address"),
        (("closes = 19:00:00", "closes = 06:00:00"), "it opens after it closes"),
        (('hours = "closed"', 'hours = "lunch"'), "Invalid enum value 'lunch'"),
        (("[desk]", "[desk"), "Expected ']'"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(change: tuple[str, str], said: str) -> None:
    assert change[0] in FILE
    with pytest.raises(InputError) as refused:
        read_routing(FILE.replace(*change), where="routes.toml")
    assert str(refused.value).startswith("routes.toml: ")
    assert said in str(refused.value)


def test_a_sink_is_what_its_kind_says(routing: Routing) -> None:
    mail = routing.sinks["mail"]
    assert isinstance(mail, Smtp)
    assert (mail.port, mail.tls, mail.per_hour) == (25, "starttls", 20)
