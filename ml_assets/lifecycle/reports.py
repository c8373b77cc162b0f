"""Reports of a use case: which there are, and one of them made for a date, from PostgreSQL and the lake, as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Engine

from ml_assets.database.reports import Asked, Given, report_rows
from ml_assets.database.sql_files import shared_and_own
from ml_assets.database.status import scored_dates
from ml_assets.errors import InputError, NotFoundError
from ml_assets.lake import Lake
from ml_assets.object_store import write_files
from ml_assets.reports.page import About, Content, Page, content_of, make_page
from ml_assets.reports.spec import Report, read_report
from ml_assets.spec import UseCase

# So far back a report looks at feeds and their quality.
_FOUR_WEEKS = timedelta(days=28)
# What a report can read, and the assets of a use case that tell it.
_ASSETS: Mapping[str, Callable[[UseCase], list[tuple[str, ...]]]] = {
    "predictions": lambda _: [("predictions",)],
    "scorings": lambda _: [("predictions",)],
    "work_list": lambda _: [("predictions",)],
    "work_list_week_before": lambda _: [("predictions",)],
    "outcomes": lambda _: [("outcomes",)],
    "outcome_counts": lambda _: [("outcomes",)],
    "performance": lambda _: [("performance",)],
    "estimates": lambda _: [("performance",)],
    "retraining_decisions": lambda _: [("retraining_decision",)],
    "drift": lambda _: [("drift",)],
    "promotions": lambda _: [("champion",)],
    "acted_on": lambda _: [("predictions",)],
    "alert_events": lambda _: [],  # of all use cases alike
    "feeds": lambda usecase: [("curated", event.name) for event in usecase.events],
    "quality": lambda usecase: [("curated", event.name) for event in usecase.events],
    "reasons": lambda usecase: [("curated", event.name) for event in usecase.events],
}


@dataclass(frozen=True, slots=True)
class ReportMade:
    """A report that was written: its page, and the folder that its files are in."""

    report: Report
    page: Page
    folder: str

    @property
    def address(self) -> str:
        """Where the HTML page lies."""
        return f"{self.folder}/{self.report.name}.html"


def reports_of(usecase: UseCase) -> dict[str, Report]:
    """Return the reports of a use case by name: those that all have, and its own.

    Raises:
        InputError: a head is wrong, two files have one name, or a report reads nothing that there is.
    """
    files = shared_and_own(usecase.name, "report", "reports", usecase.report_sql)
    found = {name: read_report(name, file, sql, owner=usecase.owner) for name, (file, sql) in files.items()}
    for report in found.values():
        if not any(map(report.reads, _ASSETS)):
            raise InputError(f"it reads none of {', '.join(_ASSETS)}", where=report.file)
    return found


def report_of(usecase: UseCase, name: str) -> Report:
    """Return a report of a use case.

    Raises:
        NotFoundError: there is none of that name.
    """
    known = reports_of(usecase)
    if name not in known:
        raise NotFoundError(f"{usecase.name} has no report {name!r}; it has {', '.join(known)}")
    return known[name]


REHEARSAL = "rehearsal/rehearsal.md"


def rehearsed(usecase: UseCase, root: str) -> str | None:
    """Return where the page of a rehearsed year lies below `root`; None if none was written there."""
    import fsspec

    address = f"{root.rstrip('/')}/{usecase.name}/{REHEARSAL}"
    store, path = fsspec.core.url_to_fs(address)
    return address if store.exists(path) else None


class Reader(Protocol):
    """A report or a rule of alerts, which says what it reads."""

    def reads(self, relation: str) -> bool:
        """Return whether it reads from a relation."""


def assets_read(usecase: UseCase, reader: Reader) -> list[tuple[str, ...]]:
    """Return the assets of a use case that a report or rule is made from, by their names below the use case's."""
    found = (asset for relation, of in _ASSETS.items() if reader.reads(relation) for asset in of(usecase))
    return list(dict.fromkeys(found))


def make_report(
    lake: Lake, engine: Engine | str, usecase: UseCase, report: Report, day: date, root: str, *, threads: int = 0
) -> ReportMade:
    """Make the report of a date, from what was known by its time, and write its files below `root`.

    Made again it comes out the same, byte for byte, unless what it tells of has been made anew: a date that another
    model has scored since, a label that was corrected, dead letters that were mended.
    """
    page = report_page(lake, engine, usecase, report, day, threads=threads)
    folder = f"{root.rstrip('/')}/{usecase.name}/{report.name}/{day}"
    write_files(folder, page.files)
    return ReportMade(report, page, folder)


def report_page(
    lake: Lake, engine: Engine | str, usecase: UseCase, report: Report, day: date, *, threads: int = 0
) -> Page:
    """Return the page of a report of a date; nothing is written."""
    return make_page(report, _about(usecase, day), _rows(lake, engine, usecase, report, day, threads))


def report_content(
    lake: Lake, engine: Engine | str, usecase: UseCase, report: Report, day: date, *, threads: int = 0
) -> Content:
    """Return what a report of a date says, without a page."""
    return content_of(report, _about(usecase, day), _rows(lake, engine, usecase, report, day, threads))


def newest_day(engine: Engine | str, usecase: UseCase) -> date | None:
    """Return the date of a report that names none: the newest scored one, None before anything was scored."""
    found = scored_dates(engine, usecase.name, limit=1)
    return found[0].decision_date if found else None


def _about(usecase: UseCase, day: date) -> About:
    return About(usecase.name, usecase.title, usecase.currency, day)


def _rows(
    lake: Lake, engine: Engine | str, usecase: UseCase, report: Report, day: date, threads: int
) -> list[dict[str, Any]]:
    as_of = report.as_of(day)
    next_month = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    left = sum(1 for _ in usecase.calendar.between(day + timedelta(days=1), next_month - timedelta(days=1)))
    asked = Asked(usecase.name, day, as_of, usecase.currency, usecase.capacity, left)
    given = given_for(lake, usecase, report, day, as_of, threads=threads)
    return report_rows(engine, report.sql, asked, given, file=report.file)


def given_for(
    lake: Lake, usecase: UseCase, reader: Reader, day: date, as_of: datetime, *, threads: int = 0
) -> dict[str, Given]:
    """Return what a report or rule reads that PostgreSQL does not know: of the lake only what it names."""
    from ml_assets.lifecycle.feeds import FEED_COLUMNS, QUALITY_COLUMNS, REASON_COLUMNS, feed_rows, quality_rows

    causes = [{"code": cause.code, "name": cause.name, "action": cause.action} for cause in usecase.causes]
    given = {"causes": Given({"code": str, "name": str, "action": str}, causes)}
    dates = sorted({*usecase.decision_dates(day - _FOUR_WEEKS, day), day})
    if reader.reads("feeds"):
        given["feeds"] = Given(FEED_COLUMNS, feed_rows(lake, usecase, dates, as_of, threads=threads))
    if reader.reads("quality") or reader.reads("reasons"):
        quality, reasons = quality_rows(lake, usecase, dates, as_of)
        given |= {"quality": Given(QUALITY_COLUMNS, quality), "reasons": Given(REASON_COLUMNS, reasons)}
    return given
