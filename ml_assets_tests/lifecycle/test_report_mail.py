"""Reports that people are sent: once, with their files, by the routes, and again only if the page is another."""

import email
import email.policy
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ml_assets.alerts.routes import Routing, read_routing
from ml_assets.database import alerts as ledger
from ml_assets.database.connect import connect
from ml_assets.errors import InputError
from ml_assets.lifecycle.alert_round import Telling
from ml_assets.lifecycle.alert_sending import Sent, send_alerts
from ml_assets.lifecycle.report_mail import offer, offer_if_due, route_reports
from ml_assets.lifecycle.reports import ReportMade, report_of
from ml_assets.object_store import write_files
from ml_assets.reports.page import About, make_page
from ml_assets.usecases.cns_fails.usecase import USE_CASE
from ml_assets_tests.lifecycle.test_alert_sending import put
from ml_assets_tests.senders.servers import Taken, http_server, smtp_server

MONDAY = date(2026, 1, 5)
TUESDAY = datetime(2026, 1, 6, 8, 15, tzinfo=UTC)
NAME = "data_quality"


@pytest.fixture
def engine(application_url: str) -> Iterator[Engine]:
    made = connect(application_url)
    yield made
    made.dispose()


def routing(mail: Taken, hook: Taken) -> Routing:
    return read_routing(
        f"""
        [sinks.lead]
        kind = "smtp"
        host = "127.0.0.1"
        port = {mail.port}
        tls = "none"
        sender = "ml-assets@bank.example"
        to = ["lead@bank.example"]
        [sinks.channel]
        kind = "webhook"
        url = "{hook.url}"
        allow_private = true
        per_hour = 1
        [[reports]]
        names = ["{NAME}"]
        sinks = ["lead", "channel"]
        """,
        where="routes",
    )


def made(folder: Path, source: str = "fails", kept: int = 900) -> ReportMade:
    """A page of data quality with a row, written as `make_report` writes it."""
    report = report_of(USE_CASE, NAME)
    row = {column.name: None for column in report.columns} | {
        "source": source,
        "section": "by source",
        "messages": kept,
    }
    page = make_page(report, About(USE_CASE.name, USE_CASE.title, USE_CASE.currency, MONDAY), [row])
    write_files(str(folder), page.files)
    return ReportMade(report, page, str(folder))


def send(engine: Engine, routes: Routing, at: datetime = TUESDAY) -> list[Sent]:
    route_reports(engine, routes, at)
    office = Telling(routes, {}, {}, "runbooks.md", lambda path: f"https://reports.bank.example/{path}").office(
        [USE_CASE], []
    )
    return send_alerts(engine, office, lambda: at)


def test_a_report_of_this_morning_is_mailed_once_with_its_page_and_its_rows(engine: Engine, tmp_path: Path) -> None:
    """Guards a mail for each time that a report is made anew, and the budget of alerts that reports would use up."""
    one = made(tmp_path)
    with smtp_server() as mail, http_server() as hook:
        routes = routing(mail, hook)
        assert offer_if_due(engine, USE_CASE.name, one, MONDAY, TUESDAY)
        assert sorted((sent.sink, sent.what) for sent in send(engine, routes)) == [
            ("channel", "sent"),
            ("lead", "sent"),
        ]
        assert not offer_if_due(engine, USE_CASE.name, made(tmp_path, kept=901), MONDAY, TUESDAY)
        put(engine, ["channel"], ("fail_rate", "market=XPAR"), at=TUESDAY)
        (alert,) = send(engine, routes)
    assert alert.subject.endswith("market=XPAR opened")
    read = email.message_from_bytes(mail.bodies[0], policy=email.policy.default)
    assert read["Subject"] == f"{one.report.title}, 2026-01-05 (cns_fails)"
    assert read["To"] == "lead@bank.example"
    text, page, rows = read.iter_parts()
    link = "https://reports.bank.example/cns_fails/data_quality/2026-01-05/data_quality.html"
    assert one.page.summary in text.get_content().replace("\n", " ")
    assert link in text.get_content()
    assert (page.get_filename(), page.get_content_type()) == ("data_quality-2026-01-05.html", "text/html")
    assert page.get_payload(decode=True) == one.page.files["data_quality.html"]
    assert (rows.get_filename(), rows.get_content_type()) == ("data_quality-2026-01-05.csv", "text/csv")
    told = json.loads(hook.bodies[0])
    assert (told["form"], told["report"], told["date"], told["page"]) == ("report", NAME, "2026-01-05", link)


def test_neither_an_empty_page_nor_one_of_the_past_is_offered(engine: Engine, tmp_path: Path) -> None:
    """Guards a backfill of sixty dates that would be sixty mails, and the mail of a morning whose scores are late."""
    report = report_of(USE_CASE, NAME)
    empty = make_page(report, About(USE_CASE.name, USE_CASE.title, USE_CASE.currency, MONDAY), [])
    assert not offer_if_due(engine, USE_CASE.name, ReportMade(report, empty, str(tmp_path)), MONDAY, TUESDAY)
    assert not offer_if_due(engine, USE_CASE.name, made(tmp_path), MONDAY, TUESDAY + timedelta(days=1))
    assert ledger.ledger(engine) == []


def test_a_person_sends_a_page_again_only_if_it_is_another(engine: Engine, tmp_path: Path) -> None:
    first, same, other = made(tmp_path), made(tmp_path), made(tmp_path, kept=901)
    said = [ledger.say_reported(engine, offer(USE_CASE.name, one, MONDAY, TUESDAY)) for one in (first, same, other)]
    assert said == [True, False, True]
    with smtp_server() as mail, http_server() as hook:
        assert len(send(engine, routing(mail, hook))) == 4
        assert send(engine, routing(mail, hook)) == []


def test_a_report_whose_files_cannot_be_read_is_tried_again(engine: Engine, tmp_path: Path) -> None:
    one = made(tmp_path / "there")
    ledger.say_reported(engine, offer(USE_CASE.name, one, MONDAY, TUESDAY))
    (tmp_path / "there").rename(tmp_path / "gone")
    with smtp_server() as mail, http_server() as hook:
        routes = routing(mail, hook)
        failed = send(engine, routes)
        assert {(sent.what, sent.why.partition(":")[0]) for sent in failed} == {("failed", "FileNotFoundError")}
        (tmp_path / "gone").rename(tmp_path / "there")
        again = send(engine, routes, TUESDAY + timedelta(minutes=1))
    assert {sent.what for sent in again} == {"sent"}
    assert {sent.message_id for sent in again} == {sent.message_id for sent in failed}


def test_a_route_of_reports_names_a_sink_that_there_is() -> None:
    with pytest.raises(InputError, match="route 1 of reports names the sink nobody"):
        read_routing('[[reports]]\nsinks = ["nobody"]', where="routes")
