"""The lead's page: how the list is worked off, and how good the model has been."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from sqlalchemy import insert

from ml_assets.database.alerts import EventRow, say
from ml_assets.database.connect import begin
from ml_assets.database.models import Performance, ShadowVerdictRow
from ml_assets.database.promotions import Actor, ModelIdentity, declare_tiers, record, writing
from ml_assets.desk.lead import worked_off
from ml_assets.predictions.feedback import Line, standing
from ml_assets_tests.desk.made import NOW, PATH, USE_CASE, Made, morning
from ml_assets_tests.desk.test_rows import found, rows


def line(number: int, entity: str, what: str, value: str | None = None, actor: str = "ana", hours: int = 0) -> Line:
    at = NOW + timedelta(hours=hours)
    until = at + timedelta(minutes=30) if what == "claimed" else None
    return Line(
        id=number, entity_id=entity, what=what, value=value, note="", actor=actor, at=at, until=until, undoes=None,
        request_key=str(number),
    )  # fmt: skip


def test_rows_count_once_as_acted_in_work_missed_or_left():
    listed = rows(*(found(n, attributes={"cut_off": "07:45" if n == 4 else "16:00"}) for n in range(1, 8)))
    said = {
        "I1": [line(1, "I1", "acted", "LACK"), line(2, "I1", "resulted", "averted"), line(3, "I1", "judged", "NMAT")],
        "I2": [line(4, "I2", "acted", "LACK", "ben", hours=9), line(5, "I2", "judged", "LACK")],
        "I3": [line(6, "I3", "claimed")],
        "I7": [line(7, "I7", "acted", "LACK", hours=2)],  # beyond the capacity of five
    }
    now = NOW + timedelta(minutes=20)
    work = worked_off(USE_CASE, listed, {entity: standing(lines, now) for entity, lines in said.items()}, now)
    assert (work.listed, work.acted, work.in_time, work.in_work, work.missed, work.left) == (5, 2, 1, 1, 1, 1)
    assert (work.right, work.judged, work.results) == (1, 2, {"averted": 1})
    # The desk's hours are those of Paris, on summer time.
    assert work.by_analyst == {"ana": {9: 1, 11: 1}, "ben": {18: 1}}
    assert work.hours == tuple(range(9, 19))
    assert work.saved == pytest.approx(3 * (0.5 * 500 - 5))


def test_rows_without_score_are_counted_beside_the_others():
    """Guards the only figure of how far people follow the score; a row beyond the capacity is in neither share."""
    listed = [replace(row, hidden=row.entity_id in {"I1", "I2"}) for row in rows(*map(found, range(1, 8)))]
    said = {name: [line(n, name, "acted", "LACK")] for n, name in enumerate(("I1", "I3", "I4", "I7"))}
    work = worked_off(USE_CASE, listed, {entity: standing(lines, NOW) for entity, lines in said.items()}, NOW)
    assert (work.hidden, work.hidden_acted, work.acted, work.listed) == (2, 1, 3, 5)
    assert work.shown_acted_share == pytest.approx(2 / 3)
    assert worked_off(USE_CASE, listed[:2], {}, NOW).shown_acted_share is None


def test_the_page_tells_alerts_precision_champion_and_verdict(desk: Made):
    morning(desk.engine)
    declare_tiers(desk.engine, {USE_CASE.name: "high"})
    model = ModelIdentity(3, "run3", "a" * 64, "e" * 64)

    def add(action, actor="ann", **more):
        with writing(desk.engine, USE_CASE.name) as ledger:
            return record(
                ledger, USE_CASE.name, action, model=model, actor=Actor.person(actor), reason="better", **more
            )

    add("registered")
    add("promoted", "bob", request_id=add("requested").id)
    say(
        desk.engine,
        EventRow(
            what="opened", use_case=USE_CASE.name, rule="fail_rate_of_a_market", rule_hash="", kind="firing", key="",
            severity="warning", message="XPAR: 12.0 % <b>failed</b>", at=NOW, event_id="e1",
        ),
    )  # fmt: skip
    shared = {
        "use_case": USE_CASE.name, "outcome_date": date(2026, 3, 27), "metric": "precision_at_capacity", "n": 4000,
        "positives": 200, "days": 20, "judged": True,
    }  # fmt: skip
    with begin(desk.engine) as connection:
        connection.execute(
            insert(Performance),
            [
                shared | {"dimension": "all", "value": "all", "measured": 0.42, "low": 0.4, "high": 0.45},
                shared | {"dimension": "day", "value": "2026-03-26", "measured": 0.37, "low": None, "high": None},
            ],
        )
        connection.execute(
            insert(ShadowVerdictRow).values(
                use_case=USE_CASE.name,
                decision_date=date(2026, 3, 27),
                champion_version=3,
                champion_run_id="run3",
                shadow_version=2,
                shadow_run_id="run2",
                metric="pr_auc",
                n=4000,
                positives=200,
                days=5,
                says="no difference",
                sentence="version 2 in the shadow is no different",
            )
        )
    page = desk.person("lea", "leads").get(f"{PATH}/lead")
    assert page.status_code == 200
    for words in (
        "<strong>42 %</strong> did fail (40 % to 45 %)",
        '<td>2026-03-26</td><td class="number">37 %',
        "version 3, since",
        "by bob: better",
        "version 2 in the shadow is no different",
        "XPAR: 12.0 % &lt;b&gt;failed&lt;/b&gt;",
        "http://dagster.bank.example/assets/settlement_fails/reports/acted_on",
    ):
        assert words in page.text, words
