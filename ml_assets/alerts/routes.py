"""Who is told of what, and when: the file of routes, which a bank keeps beside its settings.

    [desk]
    calendar = "ECB"
    timezone = "Europe/Frankfurt"
    opens = 07:00:00
    closes = 19:00:00

    [sinks.operations]
    kind = "smtp"
    host = "mail.bank.example"
    sender = "ml-assets@bank.example"
    to = ["settlement-operations@bank.example"]

    [[routes]]
    severities = ["critical", "warning"]
    use_cases = ["settlement_fails"]
    hours = "desk"
    sinks = ["operations"]

    [[reports]]
    names = ["daily_operations"]
    use_cases = ["settlement_fails"]
    sinks = ["operations"]

`hours` is `always`, `desk` (what comes outside the desk's hours waits until it opens) or `closed` (what comes then).
An empty list of use cases, severities or names is all of them. Secrets are no part of the file
(`ML_ASSETS_ALERT_SECRETS`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from ml_assets.alerts.rule import SEVERITIES, Severity
from ml_assets.calendars import BusinessCalendar
from ml_assets.errors import InputError

_ADDRESS: Final = re.compile(r"[^@\s,;:<>\"\x00-\x1f\x7f]+@[^@\s,;:<>\"\x00-\x1f\x7f]+")
_DAYS_AHEAD: Final = 30


class Desk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When people are there: the business days of a calendar, from one local time to another."""

    calendar: str = "ECB"
    timezone: str = "UTC"
    opens: time = time(7)
    closes: time = time(19)

    def is_open(self, at: datetime) -> bool:
        """Return whether the desk is there at a time."""
        local = at.astimezone(ZoneInfo(self.timezone))
        return self.opens <= local.time() < self.closes and BusinessCalendar(self.calendar).is_business_day(
            local.date()
        )

    def next_open(self, at: datetime) -> datetime:
        """Return the time itself if the desk is there, else when it opens next."""
        if self.is_open(at):
            return at
        day = at.astimezone(ZoneInfo(self.timezone)).date()
        for opening in (self._opening(day + timedelta(days=n)) for n in range(_DAYS_AHEAD)):
            if opening >= at and self.is_open(opening):
                return opening
        raise InputError(f"the desk of calendar {self.calendar} does not open within {_DAYS_AHEAD} days of {at}")

    def _opening(self, day: date) -> datetime:
        return datetime.combine(day, self.opens, tzinfo=ZoneInfo(self.timezone)).astimezone(UTC)


class _Sink(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    """A way out, by which at most `per_hour` messages go in an hour; see `alerts.compose`."""

    per_hour: Annotated[int, Meta(ge=1)] = 20
    seconds: Annotated[float, Meta(gt=0, le=60)] = 10.0


class Smtp(_Sink, frozen=True, tag="smtp"):
    """Mail through a server."""

    host: str
    sender: str
    to: Annotated[list[str], Meta(min_length=1)]
    port: int = 25
    tls: Literal["none", "starttls", "tls"] = "starttls"
    username: str = ""


class Webhook(_Sink, frozen=True, tag="webhook"):
    """A POST of JSON, signed with the sink's secret. Private addresses are refused unless `allow_private`."""

    url: str
    allow_private: bool = False


class Slack(_Sink, frozen=True, tag="slack"):
    """A POST in the form that Slack's incoming webhooks take, and Mattermost's and Teams' bridges."""

    url: str
    allow_private: bool = False


Sink = Smtp | Webhook | Slack


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which alerts go to which sinks, and when."""

    sinks: Annotated[list[str], Meta(min_length=1)]
    severities: list[Severity] = []
    use_cases: list[str] = []
    hours: Literal["always", "desk", "closed"] = "always"


class ReportRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which reports go to which sinks; `desk` hours: when the desk is there."""

    sinks: Annotated[list[str], Meta(min_length=1)]
    names: list[str] = []
    use_cases: list[str] = []
    hours: Literal["always", "desk"] = "always"


class Routing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file as a whole. Without one nobody is told; ledger and UI show alerts all the same."""

    desk: Desk = Desk()
    sinks: dict[str, Sink] = {}
    routes: list[Route] = []
    reports: list[ReportRoute] = []

    def report_deliveries(self, use_case: str, report: str, at: datetime) -> dict[str, datetime]:
        """Return by sink from when on a report of a time may be sent to it, as `deliveries`."""
        found: dict[str, datetime] = {}
        for route in self.reports:
            if report in (route.names or [report]) and use_case in (route.use_cases or [use_case]):
                start = self.desk.next_open(at) if route.hours == "desk" else at
                for sink in route.sinks:
                    found[sink] = min(start, found.get(sink, start))
        return found

    def deliveries(self, use_case: str, severity: Severity, at: datetime) -> dict[str, datetime]:
        """Return by sink from when on an event of a time may be sent to it: each sink once, at the earliest time."""
        found: dict[str, datetime] = {}
        for route in self.routes:
            applies = severity in (route.severities or SEVERITIES) and use_case in (route.use_cases or [use_case])
            if not applies or (route.hours == "closed" and self.desk.is_open(at)):
                continue
            start = self.desk.next_open(at) if route.hours == "desk" else at
            for sink in route.sinks:
                found[sink] = min(start, found.get(sink, start))
        return found


NO_ROUTES: Final = Routing()


def read_routing(text: str, *, where: str) -> Routing:
    """Return the routing of a TOML text.

    Raises:
        InputError: it is no TOML, has a key that there is not, names a sink or a zone that there is not, or has an
            address that could carry a header of its own.
    """
    try:
        routing = msgspec.convert(tomllib.loads(text), Routing, strict=True)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InputError(str(error), where=where) from error
    for problem in _problems(routing):
        raise InputError(problem, where=where)
    return routing


def _problems(routing: Routing) -> Iterator[str]:
    try:
        ZoneInfo(routing.desk.timezone)
    except (KeyError, ValueError, OSError):
        yield f"desk: there is no timezone {routing.desk.timezone!r}"
    try:
        BusinessCalendar(routing.desk.calendar)
    except InputError as error:
        yield f"desk: {error}"
    if routing.desk.opens >= routing.desk.closes:
        yield "desk: it opens after it closes"
    named = [(f"route {number}", route.sinks) for number, route in enumerate(routing.routes, 1)]
    named += [(f"route {number} of reports", route.sinks) for number, route in enumerate(routing.reports, 1)]
    for which, sinks in named:
        if unknown := sorted(set(sinks) - set(routing.sinks)):
            yield f"{which} names the sink {unknown[0]}; there are {', '.join(routing.sinks) or 'none'}"
    for name, sink in routing.sinks.items():
        match sink:
            case Smtp():
                for address in (sink.sender, *sink.to):
                    if not _ADDRESS.fullmatch(address):
                        yield f"sink {name}: {address!r} is no mail address"
            case Webhook() | Slack():
                if not sink.url.startswith(("https://", "http://")) or re.search(r"[\s\x00-\x1f]", sink.url):
                    yield f"sink {name}: {sink.url!r} is no http(s) address"
