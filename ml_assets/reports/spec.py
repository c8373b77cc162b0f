"""The head of a report's SQL file: what the report is called, whose it is, and what its columns mean.

    -- @title: Daily operations
    -- @owner: settlement-operations
    -- @cadence: daily
    -- @as_of: 08:00
    -- @description: What is expected to fail today.
    -- @summary: {instructions} instructions are due, and {expected_fails} of them are expected to fail.
    -- @empty: Nothing was scored for this date.
    -- @column: market | Market (MIC) | text
    -- @plot: bars | by market | market | expected_cost

`@as_of` is the time (UTC) on the report's date up to which it knows anything, or `end of day`. `{column}` in the
summary is the value in the first row. A column `section` divides the rows into tables; it is not declared. A plot has
its kind (`bars` or `lines`), section (empty without sections), the column of its labels and up to three of its values.
Owner and empty may be left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, cast, get_args

from ml_assets.errors import InputError
from ml_assets.features.days import day_end
from ml_assets.reports.units import UNITS, Unit
from ml_assets.sql_head import reads, said_once
from ml_assets.sql_select import refuse_unless_select

Cadence = Literal["daily", "monthly"]
PlotKind = Literal["bars", "lines"]

SECTION: Final = "section"
PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
# What a summary may name beside the columns.
SAID_OF_ALL: Final = ("date", "month", "currency")
_END_OF_DAY: Final = "end of day"
_NEEDED: Final = ("title", "cadence", "as_of", "description", "summary")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a report: its name in the SQL, its title on the page, and its unit, a name of `UNITS`."""

    name: str
    title: str
    unit_name: str

    @property
    def unit(self) -> Unit:
        """The unit itself."""
        return UNITS[self.unit_name]

    def heading(self, currency: str) -> str:
        """Return the title with the unit, as it stands above the column."""
        unit = currency if self.unit.heading == "currency" else self.unit.heading
        return f"{self.title} ({unit})" if unit else self.title


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of one section: values by label."""

    kind: PlotKind
    section: str
    label: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A report as its file declares it; `file` is where a person finds it."""

    name: str
    file: str
    sql: str
    title: str
    owner: str
    cadence: Cadence
    at: time | None
    description: str
    summary: str
    empty: str
    columns: tuple[Column, ...]
    plots: tuple[Plot, ...]

    def as_of(self, day: date) -> datetime:
        """Return the time up to which the report of a date knows anything."""
        return day_end(day) if self.at is None else datetime.combine(day, self.at, tzinfo=UTC)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits of the file, which a page names: pages of one date and file are the same."""
        return hashlib.sha256(self.sql.encode()).hexdigest()[:12]

    def reads(self, relation: str) -> bool:
        """Return whether the SQL reads from a relation."""
        return reads(self.sql, relation)


def due_date(report: Report, today: date) -> date | None:
    """Return the date of the report that is made on the morning of `today`, None if it is not made then.

    A report as of a time is made on its day, one as of the end of the day on the weekday after it, and a monthly one on
    the first weekday of the next month.
    """
    before = _weekday_before(today)
    if report.cadence == "monthly":
        return before if (before.year, before.month) != (today.year, today.month) else None
    return before if report.at is None else today


def _weekday_before(day: date) -> date:
    return day - timedelta(days={0: 3, 6: 2}.get(day.weekday(), 1))


def read_report(name: str, file: str, sql: str, *, owner: str) -> Report:
    """Return the report of a file.

    Raises:
        InputError: the head lacks a tag, has one too many, or names what is not there; or the SQL is not one SELECT
            that gives the same for the same date.
    """
    said, many = said_once(sql, file, needed=_NEEDED, optional=("owner", "empty"), many=("column", "plot"))
    if said["cadence"] not in get_args(Cadence):
        raise InputError(f"@cadence is {said['cadence']!r}; it is daily or monthly", where=file)
    refuse_unless_select(file, sql, "report")
    columns = tuple(_column(file, value) for value in many["column"])
    if not columns:
        raise InputError("the head has no @column", where=file)
    known = [column.name for column in columns]
    if twice := sorted({one for one in known if known.count(one) > 1}):
        raise InputError(f"the column {twice[0]} is declared twice", where=file)
    for one in PLACEHOLDER.findall(said["summary"] + said.get("empty", "")):
        if one not in (*known, *SAID_OF_ALL):
            raise InputError(f"the summary names {{{one}}}, which is no column", where=file)
    units = {column.name: column.unit for column in columns}
    return Report(
        name=name,
        file=file,
        sql=sql,
        title=said["title"],
        owner=said.get("owner", owner),
        cadence=cast(Cadence, said["cadence"]),
        at=_time(file, said["as_of"]),
        description=said["description"],
        summary=said["summary"],
        empty=said.get("empty", "There is nothing to report."),
        columns=columns,
        plots=tuple(_plot(file, value, units) for value in many["plot"]),
    )


def _column(file: str, said: str) -> Column:
    parts = [part.strip() for part in said.split("|")]
    if len(parts) != 3 or not all(parts):
        raise InputError(f"@column: {said!r} is not `name | title | unit`", where=file)
    if parts[2] not in UNITS:
        raise InputError(f"the column {parts[0]} has the unit {parts[2]!r}; units are {', '.join(UNITS)}", where=file)
    return Column(*parts)


def _plot(file: str, said: str, units: Mapping[str, Unit]) -> Plot:
    parts = [part.strip() for part in said.split("|")]
    if len(parts) != 4 or parts[0] not in get_args(PlotKind):
        raise InputError(f"@plot: {said!r} is not `bars or lines | section | label | value, value`", where=file)
    values = tuple(value.strip() for value in parts[3].split(","))
    for one in (parts[2], *values):
        if one not in units:
            raise InputError(f"@plot names {one!r}, which is no column", where=file)
    if words := [one for one in values if not units[one].is_number]:
        raise InputError(f"@plot draws {words[0]}, which is no number", where=file)
    if len(values) > 3:
        raise InputError(f"@plot: {said!r} has more than three values", where=file)
    return Plot(cast(PlotKind, parts[0]), parts[1], parts[2], values)


def _time(file: str, said: str) -> time | None:
    if said == _END_OF_DAY:
        return None
    try:
        return time.fromisoformat(said)
    except ValueError:
        raise InputError(f"@as_of is {said!r}; it is a time (UTC) as 08:00, or `{_END_OF_DAY}`", where=file) from None
