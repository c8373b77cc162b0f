"""Reports that people are sent: offered when they are made, routed and sent by the next round of alerts.

Who makes a report needs no way out and no secret: it writes a line into the ledger. The evaluator of alerts knows the
routes, puts it into the outbox and sends it as it sends alerts. So it is tried again, and a repeat has the id of the
first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from ml_assets.alerts.compose import REPORT
from ml_assets.alerts.machine import event_id
from ml_assets.alerts.routes import Routing
from ml_assets.database.alerts import Delivery, EventRow, put_deliveries, reported, reported_since, say_reported
from ml_assets.lifecycle.reports import ReportMade
from ml_assets.markdown import shown
from ml_assets.reports.spec import due_date

# What was offered before that is not sent any more: a sink that is new has not asked for it.
_FRESH: Final = timedelta(hours=24)
_SUMMARY: Final = 400


def offer_if_due(engine: Engine | str, use_case: str, made: ReportMade, day: date, now: datetime) -> bool:
    """Offer a report that was made in its time, once a date; return whether it was.

    Neither one of the past, made anew, nor one that has no rows is offered: when its scores come it is made again.
    """
    if due_date(made.report, now.date()) != day or not made.page.sections:
        return False
    if reported(engine, use_case, made.report.name, day.isoformat()):
        return False
    return say_reported(engine, offer(use_case, made, day, now))


def offer(use_case: str, made: ReportMade, day: date, now: datetime) -> EventRow:
    """Return the line that offers a report; its id follows from the page, so the same page is offered once."""
    page = hashlib.sha256(made.page.files[f"{made.report.name}.html"]).hexdigest()
    return EventRow(
        what="reported", use_case=use_case, rule=made.report.name, rule_hash=made.report.fingerprint, kind=REPORT,
        key=day.isoformat(), severity="info", message=shown(made.page.summary)[:_SUMMARY], at=now, files=made.folder,
        event_id=event_id(use_case, made.report.name, REPORT, day.isoformat(), page),
    )  # fmt: skip


def route_reports(engine: Engine | str, routing: Routing, now: datetime) -> int:
    """Put what was offered in the last day into the outbox, by the routes; return how many events that were new."""
    if not routing.reports:
        return 0
    return put_deliveries(engine, _deliveries(routing, reported_since(engine, now - _FRESH)))


def _deliveries(routing: Routing, lines: Sequence[EventRow]) -> list[Delivery]:
    return [
        Delivery(line.event_id or "", sink, start)
        for line in lines
        for sink, start in routing.report_deliveries(line.use_case, line.rule, line.at).items()
    ]
