"""Every shipped rule: its head, the cases beside it, and the runbook that it names."""

import dataclasses
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from ml_assets.alerts.cases import read_cases
from ml_assets.alerts.routes import read_routing
from ml_assets.alerts.rule import Rule, read_rule
from ml_assets.database.connect import connect
from ml_assets.database.migrate import migrate
from ml_assets.database.predictions import upsert_predictions
from ml_assets.database.reports import Asked, statement_of
from ml_assets.errors import InputError, NotFoundError
from ml_assets.lifecycle.alert_cases import cases_of, failures
from ml_assets.lifecycle.alert_rules import all_rules, assets_of, rule_of, rules_of
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets.usecases import discover
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.database.factories import prediction, predictions
from ml_assets_tests.database.plans import nodes

USECASES = discover()
RULES = all_rules([USE_CASE])
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def engine(postgres_server: EmbeddedPostgres) -> Iterator[Engine]:
    name = f"test_{uuid4().hex[:12]}"
    postgres_server.create_databases(name)
    made = connect(postgres_server.url(name))
    migrate(made)
    yield made
    made.dispose()
    postgres_server.drop_database(name)


@pytest.mark.parametrize("rule", RULES, ids=[rule.full_name for rule in RULES])
def test_a_rule_says_what_the_cases_beside_it_say(engine: Engine, rule: Rule) -> None:
    cases = cases_of([USE_CASE], rule)
    assert any(case.alerts for case in cases), "a case in which it fires"
    assert failures(engine, rule, cases) == []


MONTHS_READ = 3
# What grows for years, with what an index has to be asked by.
GROWING = {
    "predictions": "decision_time|outcome_date", "outcomes": "decision_time|outcome_date", "scorings": "use_case",
    "outcome_counts": "outcome_date|use_case", "performance": "use_case", "estimates": "use_case",
    "drift": "use_case", "retraining_decisions": "use_case", "promotions": "use_case", "lost_answers": "recorded_at",
}  # fmt: skip
SHOWN = re.findall(r"```sql\n(.*?)```", (DOCS / "alerts.md").read_text(encoding="utf-8"), re.DOTALL)[0]
ON_TABLES = [rule for rule in RULES if any(map(rule.reads, {*GROWING, "work_list"}))]
ON_TABLES.append(read_rule(USE_CASE.name, "shown_in_docs", "docs/alerts.md", SHOWN, owner="x"))


@pytest.mark.parametrize("rule", ON_TABLES, ids=lambda one: one.name)
def test_a_rule_reads_what_it_needs_of_years_by_indexes_and_the_newest_months_alone(engine: Engine, rule: Rule) -> None:
    """Guards a rule that reads every month that was ever scored. What the planner may use is asked, on small tables."""
    start = datetime(2024, 12, 15, 7, tzinfo=UTC)
    made = [prediction("A", decision_time=start + timedelta(days=30 * n), use_case=USE_CASE.name) for n in range(15)]
    upsert_predictions(engine, predictions(*made))
    as_of = start + timedelta(days=30 * 14)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        asked = Asked(USE_CASE.name, as_of.date(), as_of, "EUR", 100, 10)
        statement = statement_of(connection, rule.sql, asked, {})
        (plan,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}".replace("%", "%%")).scalar_one()
    scans = [node for node in nodes(plan["Plan"]) if "Relation Name" in node]
    of = [(one, re.sub(r"_\d{4}_\d{2}$", "", one["Relation Name"])) for one in scans]
    growing = [(one, name) for one, name in of if name in GROWING]
    assert growing
    assert [name for one, name in growing if one["Node Type"] == "Seq Scan"] == []
    unbounded = [(one, name) for one, name in growing if not re.search(GROWING[name], one.get("Index Cond", ""))]
    assert [name for one, name in unbounded if one["Node Type"] != "Bitmap Heap Scan"] == []
    if not rule.reads("work_list"):  # what is open may have been decided long ago: a look into each month's index
        assert len({one["Relation Name"] for one, name in growing if name == "predictions"}) <= MONTHS_READ


def test_a_case_that_does_not_hold_is_told(engine: Engine) -> None:
    """Guards cases that hold whatever a rule says."""
    rule = rule_of([USE_CASE], "settlement_fails/approval_waits")
    first, second, *_ = cases_of([USE_CASE], rule)
    wrong = dataclasses.replace(rule, message="something else")
    assert failures(engine, wrong, [first, second]) == [
        "a request of yesterday morning waits: it should be firing (version 3 has waited for approval for 25.0 hours), "
        "and is firing (something else)"
    ]
    broken = dataclasses.replace(rule, sql="SELECT nothing")
    assert 'column "nothing" does not exist' in failures(engine, broken, [first])[0]


def test_a_file_of_cases_that_is_none_says_so() -> None:
    with pytest.raises(InputError, match=r"a\.test\.toml: .*missing required field `as_of`"):
        read_cases('[[case]]\nsays = "x"', where="a.test.toml")
    (uneven,) = read_cases('[[case]]\nsays="x"\nas_of=2026-01-01T00:00:00Z\nrows.a = "a|b\\n1"', where="a.test.toml")
    with pytest.raises(InputError, match="has another number of cells than the first"):
        assert uneven.relations


@pytest.mark.parametrize("usecase", USECASES, ids=[usecase.name for usecase in USECASES])
def test_every_rule_is_of_an_asset_and_follows_one(usecase) -> None:
    for rule in rules_of(usecase).values():
        known = {"predictions", "outcomes", "performance", "drift", "retraining_decision", "champion"}
        assert not rule.follows or rule.follows in known, rule.file
        of_now = rule.reads("landing") or rule.reads("champions")
        assert of_now or assets_of([usecase], rule), rule.file


def test_every_rule_has_a_runbook() -> None:
    """Guards a message at night with a link that leads nowhere."""
    page = (DOCS / "runbooks.md").read_text(encoding="utf-8")
    sections = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall("^## (.+)$", page, re.M)
    }
    assert {rule.runbook for rule in all_rules(USECASES)} - sections == set()


def test_what_the_docs_show_is_a_rule_with_its_cases_and_a_file_of_routes(engine: Engine) -> None:
    page = (DOCS / "alerts.md").read_text(encoding="utf-8")
    (sql,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    cases, routes = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    rule = read_rule(USE_CASE.name, "shown", "docs/alerts.md", sql, owner="operations")
    assert failures(engine, rule, read_cases(cases, where="docs/alerts.md")) == []
    assert set(read_routing(routes, where="docs/alerts.md").sinks) == {"operations", "on-call", "channel"}


def test_what_operations_asked_to_be_told_of_is_shipped() -> None:
    """Guards a trouble of the list that nobody would be told of; its cases and runbook are tested above."""
    assert {rule.name for rule in all_rules([USE_CASE])} >= {
        "fail_rate_of_a_market", "dead_letters", "quarantine_rate", "feed_stale_or_shrunken", "score_shift", "drift",
        "calibration_breach", "performance_below_estimate", "champion_degrading", "retraining_refused",
        "approval_waits", "runs_stuck", "runs_failed", "lander_behind", "canary_taken_back", "answers_dropped",
        "storage_nearly_full", "ledger_and_alias_apart", "work_list_not_acted_on",
    }  # fmt: skip


def test_every_shipped_rule_is_in_the_docs() -> None:
    page = (DOCS / "alerts.md").read_text(encoding="utf-8")
    assert [rule.name for rule in all_rules(USECASES) if f"`{rule.name}`" not in page] == []


def test_a_use_case_cannot_take_the_name_of_a_shared_rule() -> None:
    other = dataclasses.replace(USE_CASE)
    other.__dict__["alert_sql"] = {"score_shift": "SELECT 1"}
    with pytest.raises(InputError, match=r"settlement_fails/alerts/score_shift\.sql: every use case has a rule"):
        rules_of(other)
    with pytest.raises(NotFoundError, match="there is no rule 'nothing'; there are platform/answers_dropped"):
        rule_of([USE_CASE], "nothing")
