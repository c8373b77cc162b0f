"""The reports of settlement fails on a few rows, with figures worked out by hand, and pages that come out the same."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pytest
from sqlalchemy import text

from ml_assets.database.connect import begin
from ml_assets.database.migrate import migrate
from ml_assets.database.models import Outcome, OutcomeCount, Performance
from ml_assets.database.monitoring import replace_dates
from ml_assets.database.predictions import ScoredTime, upsert_predictions
from ml_assets.errors import InputError, NotFoundError
from ml_assets.lake import Lake, curated_table, landing_table, quarantine_table
from ml_assets.landing.schemas import EVENT, PARTITIONED_BY, QUARANTINE
from ml_assets.lifecycle.reports import assets_read, make_report, report_of, report_page, reports_of
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets.monitoring.outcomes import outcome_counts, outcomes_schema
from ml_assets.reports.spec import read_report
from ml_assets.spec import OutcomeDates
from ml_assets.usecases import discover
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.database.factories import prediction, predictions
from ml_assets_tests.s3 import S3Server

WEDNESDAY = date(2026, 1, 14)
MONDAY, TUESDAY, THURSDAY = date(2026, 1, 12), date(2026, 1, 13), date(2026, 1, 15)
WEEK_BEFORE = date(2026, 1, 7)
HOSTILE = "=cmd|' /C calc'!A0 </td><script>"


def at(day: date, hour: int) -> datetime:
    return datetime.combine(day, time(hour), tzinfo=UTC)


def instruction(
    entity: str, p: float, due: date, made: datetime, *, market: str = "XPAR", amount: float = 1e6, cause: str = "",
    counterparty: str = "Alpha",
) -> dict[str, Any]:  # fmt: skip
    """A prediction about an instruction that costs 1,000 if it fails."""
    attributes = {"market": market, "amount": amount, "counterparty": counterparty}
    codes = {"cause": cause, "action": "do", "contributions": {}} if cause else None
    return prediction(
        entity, p, use_case=USE_CASE.name, decision_time=made, decision_date=made.date(), outcome_date=due,
        attributes=json.dumps(attributes), reason_codes=json.dumps(codes) if codes else None,
    )  # fmt: skip


def decided(url: str, made: datetime, due: date, *rows: dict[str, Any]) -> None:
    whole = ScoredTime(USE_CASE.name, made, 1, "run-of-model-1", OutcomeDates(due, due))
    upsert_predictions(url, predictions(*rows), scored=[whole])


def outcome(row: dict[str, Any], label: int | None, known_at: datetime) -> dict[str, Any]:
    same = ("use_case", "outcome_date", "entity_id", "decision_time", "decision_date", "slot", "model_version",
            "probability", "cost_if_fail", "expected_cost")  # fmt: skip
    return {
        **{name: row[name] for name in same}, "stage": "batch", "on_list": row["probability"] >= 0.5, "is_last": True,
        "control": False,
        "label": label, "label_known_at": None if label is None else known_at, "is_complete": True,
    }  # fmt: skip


# On the list of the evening and settled since: nobody decides D again in the morning.
D = instruction("D", 0.9, WEDNESDAY, at(TUESDAY, 20))
TODAY = [
    instruction("A", 0.5, WEDNESDAY, at(WEDNESDAY, 7), cause="LACK"),
    instruction("B", 0.25, WEDNESDAY, at(WEDNESDAY, 7), market="XETR", amount=2e6, cause="NMAT", counterparty=HOSTILE),
    instruction("C", 0.1, WEDNESDAY, at(WEDNESDAY, 7), market="XETR", amount=5e5, counterparty=HOSTILE),
]
BEFORE = [
    instruction("P1", 0.5, MONDAY, at(MONDAY, 7)),
    instruction("P2", 0.5, MONDAY, at(MONDAY, 7), counterparty="Beta"),
]
P3 = instruction("P3", 0.25, TUESDAY, at(TUESDAY, 7))
A7 = instruction("A7", 0.2, WEEK_BEFORE, at(WEEK_BEFORE, 7), cause="LACK")


def fill_database(url: str) -> None:
    decided(url, at(WEEK_BEFORE, 7), WEEK_BEFORE, A7)
    decided(url, at(MONDAY, 7), MONDAY, *BEFORE)
    decided(url, at(TUESDAY, 7), TUESDAY, P3)
    decided(url, at(TUESDAY, 20), WEDNESDAY, D)
    decided(url, at(WEDNESDAY, 7), WEDNESDAY, *TODAY)
    outcomes = [
        outcome(BEFORE[0], 1, at(TUESDAY, 6)),
        outcome(BEFORE[1], 0, at(TUESDAY, 6)),
        outcome(P3, 1, at(WEDNESDAY, 6)),
        *(outcome(row, 1, at(THURSDAY, 6)) for row in TODAY),
    ]
    days = [MONDAY, TUESDAY, WEDNESDAY]
    replace_dates(url, Outcome, USE_CASE.name, days, pa.Table.from_pylist(outcomes))
    nothing = dict.fromkeys(outcomes_schema(USE_CASE).names)
    rows = [nothing | row | {"mlflow_run_id": "run-of-model-1"} for row in outcomes]
    counts = outcome_counts(USE_CASE, pa.Table.from_pylist(rows, schema=outcomes_schema(USE_CASE)))
    replace_dates(url, OutcomeCount, USE_CASE.name, days, counts)
    measured = [
        {
            "use_case": USE_CASE.name, "outcome_date": day, "dimension": "all", "value": "all", "metric": metric,
            "measured": value, "low": value / 2, "high": value * 2, "n": 3, "positives": 2, "days": 2, "judged": True,
        }
        for day, value in ((MONDAY, 0.3), (TUESDAY, 0.4), (WEDNESDAY, 0.9))
        for metric in ("pr_auc", "calibration_error")
    ]  # fmt: skip
    replace_dates(url, Performance, USE_CASE.name, days, pa.Table.from_pylist(measured))


def fill_ledger(url: str) -> None:
    """Lines of the ledger at times of the past: the database would set its own, so its triggers are off here."""
    lines = [
        ("registered", datetime(2025, 12, 1, 9, tzinfo=UTC), None, 1, "dagster run x", False, None),
        ("promoted", datetime(2025, 12, 2, 9, tzinfo=UTC), None, 1, "ann", True, None),
        ("registered", at(MONDAY, 9), None, 2, "dagster run y", False, None),
        ("requested", at(MONDAY, 10), 1, 2, "dagster run y", False, None),
        ("promoted", at(TUESDAY, 10), 1, 2, HOSTILE, True, 4),
        ("rolled_back", at(THURSDAY, 10), 2, 1, "ann", True, None),
    ]
    with begin(url) as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for number, (action, when, before, version, actor, is_person, request) in enumerate(lines, start=1):
            connection.execute(
                text(
                    "INSERT INTO promotions (id, use_case, action, recorded_at, from_version, to_version, actor, "
                    "is_person, needs_approval, request_id, evidence_hash, reason) OVERRIDING SYSTEM VALUE VALUES "
                    "(:id, :use_case, :action, :at, :before, :version, :actor, :person, false, :request, 'e', 'why')"
                ),
                {"id": number, "use_case": USE_CASE.name, "action": action, "at": when, "before": before,
                 "version": version, "actor": actor, "person": is_person, "request": request},
            )  # fmt: skip


def fill_alerts(url: str) -> None:
    """Two alerts of this month, one of which somebody took on, and one of the month before."""
    december = datetime(2025, 12, 30, 9, tzinfo=UTC)
    lines = [
        ("opened", "old", None, "score_shift", december, None, None),
        ("opened", "a", None, "score_shift", at(MONDAY, 9), None, None),
        ("opened", "b", None, "dead_letters", at(TUESDAY, 9), None, None),
        ("acknowledged", None, "a", "score_shift", at(MONDAY, 11), HOSTILE, "looking"),
        ("given up", None, "a", "score_shift", at(MONDAY, 12), None, "the server answered 550"),
        ("closed", "c", "a", "score_shift", at(TUESDAY, 9), None, None),
        ("closed", "d", "b", "dead_letters", at(THURSDAY, 9), None, None),
    ]
    with begin(url) as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for what, event, about, rule, when, actor, reason in lines:
            connection.execute(
                text(
                    "INSERT INTO alert_events (what, event_id, about, use_case, rule, rule_hash, kind, key, severity, "
                    "message, at, actor, reason, sink, recorded_at) VALUES (:what, :event, :about, :use_case, :rule, "
                    "'', 'firing', 'k', 'warning', :message, :at, :actor, :reason, 'desk', :at)"
                ),
                {"what": what, "event": event, "about": about, "use_case": USE_CASE.name, "rule": rule, "at": when,
                 "actor": actor, "reason": reason, "message": HOSTILE},
            )  # fmt: skip


def fill_lake(lake: Lake) -> None:
    """Ten trades of Tuesday and four of Wednesday, one of which came on Thursday; two were left out."""
    trades = USE_CASE.event("trades")
    happened = [(TUESDAY, 9, 10.0)] * 9 + [(TUESDAY, 9, 60.0 * 20)] + [(WEDNESDAY, 9, 20.0)] * 3
    happened += [(WEDNESDAY, 9, 60.0 * 24)]
    landed = [
        {
            "kind": EVENT, "business_date": day, "event_time": at(day, hour),
            "known_at": at(day, hour) + timedelta(minutes=minutes),
        }
        for day, hour, minutes in happened
    ]  # fmt: skip
    moment = pa.timestamp("us", "UTC")
    schema = pa.schema(
        [("kind", pa.string()), ("business_date", pa.date32()), ("event_time", moment), ("known_at", moment)]
    )
    lake.appender(landing_table(trades.topic), PARTITIONED_BY).append(
        pa.Table.from_pylist(landed, schema=schema), {"test": 0}, {"test": 1}
    )
    kept = [{"business_date": row["business_date"], "known_at": row["known_at"]} for row in landed]
    days = [TUESDAY, WEDNESDAY]
    curated = pa.Table.from_pylist(kept, schema=pa.schema([("business_date", pa.date32()), ("known_at", moment)]))
    lake.replace(curated_table(USE_CASE, trades), curated, "business_date", days)
    bad = [
        {"reason": reason, "business_date": WEDNESDAY, "known_at": at(WEDNESDAY, 10)}
        for reason in ("not decodable: <b>", "the price is not positive")
    ]
    lake.replace(
        quarantine_table(USE_CASE, trades), pa.Table.from_pylist(bad, schema=QUARANTINE), "business_date", days
    )


@dataclass(frozen=True)
class Desk:
    """A database and a lake with rows."""

    url: str
    lake: Lake

    def rows(self, name: str, day: date = WEDNESDAY) -> dict[str, list[dict[str, Any]]]:
        """The rows of a report by section, each without its unknown values."""
        page = report_page(self.lake, self.url, USE_CASE, report_of(USE_CASE, name), day, threads=1)
        return {
            section.title: [{k: v for k, v in row.items() if v is not None and k != "section"} for row in section.rows]
            for section in page.sections
        }

    def made(self, name: str, root: str, day: date = WEDNESDAY) -> dict[str, bytes]:
        made = make_report(self.lake, self.url, USE_CASE, report_of(USE_CASE, name), day, root, threads=1)
        files, folder = fsspec.core.url_to_fs(made.folder)
        return {str(path).rpartition("/")[2]: files.cat_file(path) for path in files.ls(folder, detail=False)}


@pytest.fixture(scope="module")
def desk(postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The desk on Wednesday, with what became known later too. Tests that add rows leave what was known by then."""
    name = f"test_{uuid4().hex[:12]}"
    postgres_server.create_databases(name)
    made = Desk(postgres_server.url(name), Lake(str(tmp_path_factory.mktemp("desk") / "lake")))
    migrate(made.url)
    fill_database(made.url)
    fill_ledger(made.url)
    fill_alerts(made.url)
    fill_lake(made.lake)
    yield made
    postgres_server.drop_database(name)


def near(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with plain numbers, for comparing."""
    return [{k: pytest.approx(float(v)) if isinstance(v, Decimal | float) else v for k, v in r.items()} for r in rows]


def test_daily_operations_counts_what_is_open_this_morning_against_last_week(desk: Desk) -> None:
    found = desk.rows("daily_operations")
    assert list(found) == ["in all", "by market", "by cause", "by market and cause"]
    assert near(found["in all"]) == [
        {
            "instructions": 3, "value": 3_500_000, "expected_fails": 0.85, "value_at_risk": 1_050_000,
            "expected_cost": 850, "on_list": 3, "last_week_fails": 0.2, "last_week_cost": 200, "change": 3.25,
        }
    ]  # fmt: skip
    assert near(found["by market"]) == [
        {
            "market": "XPAR", "instructions": 1, "value": 1_000_000, "expected_fails": 0.5, "value_at_risk": 500_000,
            "expected_cost": 500, "on_list": 1, "last_week_fails": 0.2, "last_week_cost": 200, "change": 1.5,
        },
        {
            "market": "XETR", "instructions": 2, "value": 2_500_000, "expected_fails": 0.35, "value_at_risk": 550_000,
            "expected_cost": 350, "on_list": 2,
        },
    ]  # fmt: skip
    assert [(row["cause"], row.get("action"), row["instructions"]) for row in found["by cause"]] == [
        ("lack of securities", "borrow, recall or settle partially", 1),
        ("not matched, or sent late to match", "chase the match; amend what differs", 1),
        ("not explained: beyond the list", None, 1),
    ]
    assert len(found["by market and cause"]) == 3


def test_the_cost_of_the_month_has_what_is_known_open_and_to_come(desk: Desk) -> None:
    found = desk.rows("penalty_cost")
    # Two fails in two complete dates are 1,000 a day; January has twelve business days after the 14th.
    assert near(found["in all"]) == [
        {
            "instructions": 3, "fails": 2, "fail_rate": 2 / 3, "cost": 2000, "open_cost": 850,
            "forecast": 2000 + 850 + 12 * 1000,
        }
    ]  # fmt: skip
    assert near(found["by counterparty"]) == [
        {
            "counterparty": "Alpha", "instructions": 2, "fails": 2, "fail_rate": 1, "cost": 2000, "share_of_cost": 1,
            "open_cost": 500, "forecast": 2000 + 500 + 12 * 1000,
        },
        {
            "counterparty": HOSTILE, "instructions": 0, "fails": 0, "cost": 0, "share_of_cost": 0, "open_cost": 350,
            "forecast": 350,
        },
        {
            "counterparty": "Beta", "instructions": 1, "fails": 0, "fail_rate": 0, "cost": 0, "share_of_cost": 0,
            "forecast": 0,
        },
    ]  # fmt: skip
    assert [(row["business_date"], row["cost_so_far"]) for row in found["by date"]] == [
        (MONDAY, 1000), (TUESDAY, 2000), (WEDNESDAY, 2000),
    ]  # fmt: skip
    (later,) = desk.rows("penalty_cost", THURSDAY)["in all"]
    assert (later["fails"], later["cost"], later.get("open_cost")) == (5, 5000, None), "Wednesday's outcomes are known"


def test_performance_counts_complete_dates_and_takes_metrics_of_the_newest_window(desk: Desk) -> None:
    found = desk.rows("model_performance")
    expected = {
        "month": "2026-01", "decisions": 3, "fails": 2, "fail_rate": 2 / 3, "mean_probability": 1.25 / 3, "listed": 2,
        "precision": 0.5, "caught": 0.5, "pr_auc": 0.4, "pr_auc_low": 0.2, "pr_auc_high": 0.8, "calibration_error": 0.4,
    }  # fmt: skip
    assert near(found["in the month"]) == near(found["by month"]) == [expected]
    (by_version,) = found["by month and model version"]
    assert (by_version["model_version"], by_version["decisions"], by_version.get("pr_auc")) == ("1", 3, None)


def test_the_alerts_of_the_month_tell_for_how_long_and_who_took_them_on(desk: Desk) -> None:
    """Guards an alert that counts once for each of its lines, and one that closed after the report's date."""
    found = desk.rows("alert_history")
    (whole,) = found["in all"]
    assert {**whole, "median_hours": float(whole["median_hours"])} == {
        "rules": 2, "opened": 2, "acknowledged": 1, "open_at_end": 1, "given_up": 1, "median_hours": 24.0,
    }  # fmt: skip
    assert [(row["rule"], row["opened"]) for row in found["by rule"]] == [("dead_letters", 1), ("score_shift", 1)]
    taken, left = found["each alert"]
    assert (taken["closed_at"], float(taken["taken_on_after"]), taken["actor"]) == (at(TUESDAY, 9), 2.0, HOSTILE)
    assert "closed_at" not in left
    assert float(left["median_hours"]) == pytest.approx(39.0, abs=1e-6), "to the end of Wednesday"


def test_the_ledger_of_the_month_tells_who_and_how_long(desk: Desk) -> None:
    found = desk.rows("promotion_history")
    assert found["in all"] == [
        {
            "registered": 1, "requested": 1, "declined": 0, "promoted": 1, "rolled_back": 0, "restored": 0,
            "canaries": 0, "taken_back": 0, "to_version": "2",
        }
    ]  # fmt: skip
    lines = found["lines of the ledger"]
    assert [(row["line"], row["action"], row["to_version"], row["actor"]) for row in lines] == [
        (3, "registered", "2", "dagster run y"), (4, "requested", "2", "dagster run y"), (5, "promoted", "2", HOSTILE),
    ]  # fmt: skip
    assert (lines[2]["answers"], float(lines[2]["hours_open"])) == (4, 24.0)
    assert float(lines[2]["in_force_days"]) == pytest.approx(1 + 14 / 24), "to the end of Wednesday"
    (thursday,) = desk.rows("promotion_history", THURSDAY)["in all"]
    assert (thursday["rolled_back"], thursday["to_version"]) == (1, "1")


def test_lateness_counts_what_was_known_by_the_end_of_the_day(desk: Desk) -> None:
    found = desk.rows("feed_lateness")
    (trades,) = [row for row in found["by feed"] if row["source"] == "trades"]
    assert near([trades]) == near(
        [
            {
                "source": "trades", "events": 3, "usual_events": 0.0,
                "first_known_at": at(WEDNESDAY, 9) + timedelta(minutes=20),
                "last_known_at": at(WEDNESDAY, 9) + timedelta(minutes=20), "median_delay": 20.0, "p95_delay": 20.0,
                "usual_p95_delay": 10 + (1190 * 0.55),
            }
        ]
    )  # fmt: skip
    (tuesday,) = [row for row in found["by date"] if row["business_date"] == TUESDAY]
    assert (tuesday["events"], tuesday["late"], float(tuesday["late_share"])) == (10, 1, 0.1)
    assert found["in all"][0]["late"] == 1


def test_quality_counts_what_was_kept_and_what_was_left_out(desk: Desk) -> None:
    found = desk.rows("data_quality")
    (whole,) = found["in all"]
    assert near([whole]) == near(
        [
            {
                "messages": Decimal(5), "left_out": Decimal(2), "rejected": Decimal(1), "dead_letters": Decimal(1),
                "left_out_share": Decimal("0.4"), "usual_share": Decimal(0), "beyond": 0,
            }
        ]
    )  # fmt: skip
    assert found["by source"][0]["source"] == "trades"
    assert len(found["by source"]) == len(USE_CASE.events)
    assert [(row["reason"], row["left_out"]) for row in found["why, in four weeks"]] == [
        ("not decodable: <b>", 1), ("the price is not positive", 1),
    ]  # fmt: skip


def test_a_page_comes_out_the_same_although_more_is_known_since(desk: Desk, tmp_path: Path) -> None:
    """Guards pages of the past: a decision, an outcome and lines of the ledger that came later change no byte."""
    names = ("daily_operations", "penalty_cost", "promotion_history", "alert_history")
    first = {name: desk.made(name, str(tmp_path / "first")) for name in names}
    assert len(first["penalty_cost"]) == 5, "page, Markdown, CSV and two plots"
    later = instruction("A", 0.99, WEDNESDAY, at(WEDNESDAY, 9))
    decided(desk.url, at(WEDNESDAY, 9), WEDNESDAY, later)
    fresh = instruction("Z", 0.5, THURSDAY, at(THURSDAY, 7))
    decided(desk.url, at(THURSDAY, 7), THURSDAY, fresh)
    replace_dates(
        desk.url, Outcome, USE_CASE.name, [THURSDAY], pa.Table.from_pylist([outcome(fresh, 1, at(THURSDAY, 20))])
    )
    try:
        again = {name: desk.made(name, str(tmp_path / "again")) for name in names}
        assert again == first
        (afternoon,) = desk.rows("daily_operations", THURSDAY)["in all"]
        assert afternoon["instructions"] == 1
    finally:
        withdrawn = [
            ScoredTime(USE_CASE.name, made, 1, "run-of-model-1") for made in (at(WEDNESDAY, 9), at(THURSDAY, 7))
        ]
        upsert_predictions(desk.url, predictions(), scored=withdrawn)
        empty = pa.table({column.name: [] for column in Outcome.__table__.columns})
        replace_dates(desk.url, Outcome, USE_CASE.name, [THURSDAY], empty)


def test_hostile_names_are_text_on_the_page_and_in_the_sheet(desk: Desk, tmp_path: Path) -> None:
    files = desk.made("penalty_cost", str(tmp_path))
    page, sheet = files["penalty_cost.html"].decode(), files["penalty_cost.csv"].decode("utf-8-sig")
    assert "<script" not in page
    assert "&lt;/td&gt;&lt;script&gt;" in page
    assert "default-src 'none'" in page
    names = [row[1] for row in csv.reader(io.StringIO(sheet))]
    assert f"'{HOSTILE}" in names
    assert HOSTILE not in names
    assert "<script" not in files["penalty_cost.md"].decode().replace("\\<script", "")


def test_pages_on_s3_are_those_of_a_folder(
    desk: Desk, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = s3.create_bucket(f"reports-{uuid4().hex[:8]}")
    options = {
        "key": s3.access_key, "secret": s3.secret_key, "use_listings_cache": False,
        "client_kwargs": {"endpoint_url": s3.endpoint, "region_name": s3.region},
    }  # fmt: skip
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    assert desk.made("promotion_history", f"{bucket}/reports") == desk.made("promotion_history", str(tmp_path))


def test_on_a_day_without_anything_a_page_says_so(desk: Desk) -> None:
    for name in ("daily_operations", "penalty_cost", "model_performance", "promotion_history"):
        page = report_page(desk.lake, desk.url, USE_CASE, report_of(USE_CASE, name), date(2025, 3, 3))
        assert not page.sections, name
        assert page.summary.partition(": ")[2], name


def test_the_report_that_the_docs_show_is_one(desk: Desk) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
    (sql,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    report = read_report("shown", "docs/reports.md", sql, owner="operations")
    made = report_page(desk.lake, desk.url, USE_CASE, report, WEDNESDAY)
    assert made.summary.endswith("1 instructions are due; a fail of all would cost 500 EUR.")
    assert [row["market"] for row in made.sections[0].rows] == ["XPAR", "XETR"]
    assert set(made.files) == {"shown.html", "shown.md", "shown.csv", "shown-1.png"}


def test_every_shipped_report_has_a_right_head_and_reads_assets(tmp_path: Path) -> None:
    for usecase in discover():
        for report in reports_of(usecase).values():
            # The ledger of alerts is of all use cases: no asset of one comes before it.
            assert assets_read(usecase, report) or report.name == "alert_history", report.file
    with pytest.raises(NotFoundError, match="settlement_fails has no report 'nothing'; it has acted_on, alert_history"):
        report_of(USE_CASE, "nothing")


def test_a_use_case_cannot_take_the_name_of_a_shared_report(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    other = dataclasses.replace(USE_CASE)
    other.__dict__["report_sql"] = {"data_quality": "SELECT 1"}
    with pytest.raises(InputError, match=r"settlement_fails/reports/data_quality\.sql: every use case has a report"):
        reports_of(other)
