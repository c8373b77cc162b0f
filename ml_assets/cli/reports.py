"""The command of `ml-assets` that makes reports, and lists them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ml_assets.cli.opened import platform_of, read_settings, usecase_of, usecases_of
from ml_assets.errors import InputError, NotFoundError, StateError

if TYPE_CHECKING:
    from ml_assets.lifecycle.reports import ReportMade
    from ml_assets.platform import Platform
    from ml_assets.spec import UseCase


def add_reports_commands(app: typer.Typer, console: Console) -> None:
    """Add the command to the command line."""

    @app.command()
    def report(
        name: Annotated[str, typer.Argument(help="name of a report; without one, all are listed")] = "",
        day: Annotated[
            datetime | None,
            typer.Option("--date", formats=["%Y-%m-%d"], help="date of the report; the newest scored one if not given"),
        ] = None,
        use_case: Annotated[str, typer.Option(help="a use case; without one, all that have the report")] = "",
        mail: Annotated[bool, typer.Option("--mail", help="send it to who gets it by ML_ASSETS_ALERT_ROUTES")] = False,
    ) -> None:
        """Make a report of a date as a page, Markdown and CSV, and send it if asked; or list the reports."""
        from ml_assets.lifecycle.reports import make_report, newest_day, reports_of

        settings = read_settings()
        usecases = [usecase_of(settings, use_case)] if use_case else list(usecases_of(settings))
        known = {usecase.name: reports_of(usecase) for usecase in usecases}
        if not name:
            _list(console, usecases)
            return
        if not any(name in reports for reports in known.values()):
            names = sorted({one for reports in known.values() for one in reports})
            raise NotFoundError(f"there is no report {name!r}; there are {', '.join(names)}")
        platform = platform_of(settings)
        if mail:
            _refuse_unless_routed(platform, name, [usecase for usecase in usecases if name in known[usecase.name]])
        made = 0
        for usecase in usecases:
            asked = day.date() if day else newest_day(platform.engine, usecase)
            if name not in known[usecase.name] or asked is None:
                continue
            written = make_report(
                platform.lake, platform.engine, usecase, known[usecase.name][name], asked, settings.report_uri,
                threads=settings.threads,
            )  # fmt: skip
            console.print(f"{usecase.title}. {written.page.summary}", highlight=False)
            console.print(f"  {written.address}", highlight=False, soft_wrap=True)
            made += 1
            if mail:
                _send(console, platform, usecase, written, asked)
        if not made:
            raise NotFoundError("nothing has been scored yet, so no date is the newest", to_do="name one with --date")


def _refuse_unless_routed(platform: Platform, name: str, usecases: list[UseCase]) -> None:
    now = datetime.now(UTC)
    if not any(platform.alert_routing.report_deliveries(usecase.name, name, now) for usecase in usecases):
        raise InputError(
            f"no route of reports takes {name}",
            where=platform.settings.alert_routes or "ML_ASSETS_ALERT_ROUTES, which is empty",
            to_do="add [[reports]] to the file of routes; docs/reports.md shows one",
        )


def _send(console: Console, platform: Platform, usecase: UseCase, written: ReportMade, day: date) -> None:
    """Offer a page, and send what reports there are to send; a page that was sent before is not sent again."""
    from ml_assets.database.alerts import say_reported
    from ml_assets.lifecycle.alert_round import Telling
    from ml_assets.lifecycle.alert_sending import send_alerts
    from ml_assets.lifecycle.report_mail import offer, route_reports

    settings, now = platform.settings, datetime.now(UTC)
    telling = Telling(platform.alert_routing, platform.alert_secrets, {}, settings.runbook_uri, settings.links.report)
    new = say_reported(platform.engine, offer(usecase.name, written, day, now))
    route_reports(platform.engine, telling.routing, now)
    office = telling.office([usecase], [])
    sent = send_alerts(platform.engine, office, lambda: datetime.now(UTC), reports_alone=True)
    for one in sent:
        console.print(f"  {one.sink}: {one.what}{f' ({one.why})' if one.why else ''}, {one.subject}", highlight=False)
    if not new:
        console.print("  this page was offered before: it is not sent twice", highlight=False)
    if failed := [one for one in sent if one.what != "sent"]:
        raise StateError(
            f"{failed[0].sink} did not take it: {failed[0].why}",
            to_do="the next round of alerts tries again" if failed[0].what == "failed" else "mend the sink, send anew",
        )


def _list(console: Console, usecases: list[UseCase]) -> None:
    from ml_assets.lifecycle.reports import reports_of

    table = Table("use case", "report", "title", "made", "as of", "owner")
    for usecase in usecases:
        for one in reports_of(usecase).values():
            at = f"{one.at:%H:%M} UTC" if one.at else "end of day"
            table.add_row(usecase.name, one.name, one.title, one.cadence, at, one.owner)
    console.print(table)
