"""Reports: one asset each, linked from what it tells of. Its newest page is a click away, its first table in the UI."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from ml_assets.defs.common import by_date, dates_of, key, retrying_outages_only, when_updated
from ml_assets.defs.resources import Platform
from ml_assets.lifecycle.reports import assets_read, reports_of
from ml_assets.reports.page import Section, table_of
from ml_assets.reports.spec import Report
from ml_assets.spec import UseCase

_STAGE = "reports"
# Rows of a table shown in the Dagster UI; the page has all.
_SHOWN = 30


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition]:
    """Yield the reports of a use case."""
    for report in reports_of(usecase).values():
        yield report_asset(usecase, report)


def report_key(usecase: UseCase, report: Report) -> dg.AssetKey:
    """Return the key of a report's asset."""
    return key(usecase, _STAGE, report.name)


def report_asset(usecase: UseCase, report: Report) -> dg.AssetsDefinition:
    """Return the asset of a report.

    One as of a time of the day is made anew when what it tells of is, as when scores come late. One as of the end of
    the day is made when the day is over, by the schedule.
    """

    @dg.asset(
        key=report_key(usecase, report),
        deps=[key(usecase, *names) for names in assets_read(usecase, report)],
        automation_condition=when_updated("what it tells of is new")
        if report.at and report.cadence == "daily"
        else None,
        kinds={"postgres", "html"},
        description=f"{report.title}. {report.description} ({report.cadence}, from {report.file})",
        **{**by_date(usecase, _STAGE), "owners": [f"team:{report.owner}"]},
    )
    @retrying_outages_only
    def made(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.report_mail import offer_if_due
        from ml_assets.lifecycle.reports import make_report

        settings = platform.settings
        for day in sorted(dates_of(context)):
            written = make_report(
                platform.lake, platform.engine, usecase, report, day, settings.report_uri, threads=settings.threads
            )
            offered = offer_if_due(platform.engine, usecase.name, written, day, datetime.now(UTC))
        link = settings.links.report(f"{usecase.name}/{report.name}/{day}/{report.name}.html")
        page = written.page
        return dg.MaterializeResult(
            metadata={
                "summary": page.summary,
                "page": dg.MetadataValue.url(link) if link else dg.MetadataValue.path(written.address),
                "offered to be sent": offered,
                "rows": sum(len(section.rows) for section in page.sections),
                **({_titled(first): _table(first, usecase)} if (first := _first_table(page.sections)) else {}),
            }
        )

    return made


def _first_table(sections: tuple[Section, ...]) -> Section | None:
    """Return the first table; one row of figures for the whole, which the summary has too, is passed over."""
    several = sections[1:] if len(sections) > 1 and len(sections[0].rows) == 1 else sections
    return several[0] if several else None


def _titled(section: Section) -> str:
    return section.title or "table"


def _table(section: Section, usecase: UseCase) -> dg.MetadataValue:
    shown = Section(section.title, section.columns, section.rows[:_SHOWN])
    return dg.MetadataValue.md(table_of(shown, usecase.currency))
