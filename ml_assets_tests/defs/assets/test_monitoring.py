"""A model in use, from its predictions to what is said of it each morning, on real servers."""

import dataclasses
import json
import re
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import anyio
import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from mcp import Client
from pytest_bdd import given, parsers, scenarios, then, when
from sqlalchemy import text
from typer.testing import CliRunner

from ml_assets.cli.main import app
from ml_assets.database.models import Drift, PastCase, RetrainingDecision
from ml_assets.database.monitoring import (
    newest_retraining_decision,
    newest_shadow_verdict,
    replace_dates,
    rows_between,
)
from ml_assets.database.promotions import Actor, LedgerError, last_change
from ml_assets.defs.sensors import retraining_sensor
from ml_assets.lake import labels_table, outcomes_table, predictions_table, shadow_table
from ml_assets.learning.statistics import average_precision
from ml_assets.lifecycle.model_risk import PACK_MARKDOWN
from ml_assets.lifecycle.opened_models import OpenedModels
from ml_assets.lifecycle.promotion import promote_challenger, roll_back
from ml_assets.lifecycle.registration import write_pack
from ml_assets.lifecycle.similar import find_similar, keep_cases
from ml_assets.mcp_server.server import build_server
from ml_assets.mcp_server.tools import Tools
from ml_assets_tests import late_payments
from ml_assets_tests.defs.assets.conftest import Bank

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]

SCORED = 8


@pytest.fixture(scope="module")
def monitored(make_bank: Any) -> Bank:
    """A bank whose champion has scored `SCORED` days, of which the last three have no outcome yet."""
    bank: Bank = make_bank("monitored", 30)
    bank.runs.run("ingest", bank.days)
    bank.runs.run("retrain", [bank.days[-SCORED]])
    bank.runs.run("score", bank.days[-SCORED:])
    bank.runs.run("monitor", bank.days[-SCORED:])
    return bank


def sql(bank: Bank, statement: str) -> list[tuple[Any, ...]]:
    with bank.platform.engine.begin() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_predictions_meet_their_outcomes_in_the_lake_and_in_postgres(monitored: Bank) -> None:
    rows = monitored.lake.read(outcomes_table(monitored.usecase)).to_pylist()
    assert len(rows) == SCORED * 60
    due = {monitored.usecase.calendar.add(day, 2) for day in monitored.days[-SCORED:-3]}
    assert {row["outcome_date"] for row in rows if row["is_complete"]} == due
    assert all(row["label"] is not None for row in rows if row["is_complete"])
    copied = sql(monitored, "SELECT entity_id, label, is_complete, on_list FROM outcomes ORDER BY entity_id")
    assert copied == sorted((row["entity_id"], row["label"], row["is_complete"], row["on_list"]) for row in rows)
    assert monitored.latest("outcomes")["complete outcome dates"] == SCORED - 3
    assert "| outcome date |" in monitored.latest("outcomes")["outcome dates"]


def test_performance_is_measured_estimated_and_judged_by_the_gate(monitored: Bank) -> None:
    shown = monitored.latest("performance")
    assert shown["decisions"] == (SCORED - 3) * 60
    assert "| payer" not in shown["by group"]
    assert "| country |" in shown["by group"]
    assert shown["gate"] in {"yes", "no"}
    assert "test_rows" in shown["conditions"]
    assert shown["estimated and realised"].startswith("![estimated and realised](data:image/png;base64,")
    rows = sql(
        monitored,
        "SELECT measured, n, low <= measured AND measured <= high FROM performance "
        "WHERE dimension = 'all' AND metric = 'pr_auc' ORDER BY outcome_date DESC LIMIT 1",
    )
    ((_, n, within),) = rows
    assert n == (SCORED - 3) * 60
    assert within
    labels = [
        (row["probability"], row["label"])
        for row in monitored.lake.read(outcomes_table(monitored.usecase)).to_pylist()
        if row["is_complete"]
    ]
    measured = average_precision(
        np.array([label for _, label in labels], dtype=np.float64), np.array([p for p, _ in labels])
    )
    assert rows[0][0] == pytest.approx(measured)
    counted = sql(
        monitored, "SELECT count(*), count(realised) FROM estimates WHERE metric = 'base_rate' AND estimated > 0"
    )
    assert counted == [(SCORED, SCORED - 3)]


def cases_of(bank: Bank) -> list[dict[str, Any]]:
    return rows_between(bank.platform.engine, PastCase, bank.usecase.name, date(2026, 1, 1), date(2026, 12, 31))


def test_a_past_case_is_a_decision_whose_outcome_is_known(monitored: Bank) -> None:
    """Guards hindsight: of what is open nothing is held, and what is held was all known when it became a case."""
    held = cases_of(monitored)
    outcomes = {
        (row["entity_id"], row["decision_time"]): row
        for row in monitored.lake.read(outcomes_table(monitored.usecase)).to_pylist()
    }
    complete = {key: row for key, row in outcomes.items() if row["is_complete"]}
    assert {(row["entity_id"], row["decision_time"]) for row in held} == set(complete)
    assert len(held) == (SCORED - 3) * 60
    for row in held:
        known = complete[row["entity_id"], row["decision_time"]]
        assert (row["label"], row["label_known_at"]) == (known["label"], known["label_known_at"])
        assert row["label_known_at"] > row["decision_time"]
    assert len({row["space"] for row in held}) == 1
    shown = monitored.latest("past_cases")
    assert (shown["dagster/row_count"], shown["outcome dates"]) == (len(held), SCORED - 3)
    assert shown["of these fail"] == sum(row["label"] for row in held)
    assert "not searchable" not in shown


def test_similar_cases_of_a_past_decision_are_those_that_were_known_by_then(monitored: Bank) -> None:
    usecase, platform = monitored.usecase, monitored.platform
    opened = (platform.lake, platform.registry, platform.engine, usecase)
    of_past = monitored.days[-SCORED + 4]
    entity = next(row["entity_id"] for row in cases_of(monitored) if row["decision_time"].date() == of_past)
    found = find_similar(*opened, entity, limit=200)
    decided = found.prediction["decision_time"]
    assert len(found.cases) == 2 * 60, "of the two days whose outcomes were known on the third morning after"
    assert all(case.label_known_at <= decided for case in found.cases)
    assert all(case.entity_id != entity for case in found.cases)
    first = min(row["entity_id"] for row in cases_of(monitored))
    none = find_similar(*opened, first)
    assert none.cases == []
    assert none.said(usecase) == "no past case of this slot had a known outcome by then"
    with pytest.raises(LookupError, match="has no prediction of 'nobody'"):
        find_similar(*opened, "nobody")


def test_a_day_of_many_decisions_keeps_what_was_listed_and_some_of_the_rest(monitored: Bank) -> None:
    usecase, platform = monitored.usecase, monitored.platform
    before, day = cases_of(monitored), monitored.days[-SCORED]
    known = usecase.calendar.add(day, 3)
    opened = (platform.lake, platform.registry, platform.engine, usecase)
    try:
        report = keep_cases(*opened, [known], most=20)
        assert report.dates == [usecase.calendar.add(day, 2)]
        some = [row for row in cases_of(monitored) if row["outcome_date"] in report.dates]
        assert report.cases == len(some) < 45
        listed = [row for row in before if row["outcome_date"] in report.dates and row["on_list"]]
        assert {row["entity_id"] for row in listed} <= {row["entity_id"] for row in some}
        assert len(some) > len(listed)
    finally:
        keep_cases(*opened, [known])
    assert cases_of(monitored) == before, "made again, the same"


def test_cases_that_cannot_be_compared_are_left_out_and_said(monitored: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a registry that has lost a model: its cases would be compared by another's reasons."""
    usecase, platform, before = monitored.usecase, monitored.platform, cases_of(monitored)
    opened = (platform.lake, platform.registry, platform.engine, usecase)
    known = usecase.calendar.add(monitored.days[-SCORED], 3)

    def lost(*_: object) -> None:
        raise FileNotFoundError("no such run")

    with monkeypatch.context() as patch:
        patch.setattr(OpenedModels, "open", lost)
        report = keep_cases(*opened, [known])
    assert (report.cases, report.space) == (0, None)
    assert report.why == "the model that scored cannot be looked up: no such run"
    assert len(cases_of(monitored)) == len(before) - 60
    newest = max(before, key=lambda row: row["outcome_date"])
    replaced = dataclasses.replace(usecase, features=usecase.features[:1])
    assert replaced.feature_set_hash != usecase.feature_set_hash
    of_other = keep_cases(platform.lake, platform.registry, platform.engine, replaced, [known])
    assert of_other.why == "the features have another definition than when the model was trained; retrain"
    assert keep_cases(*opened, [known]).space == newest["space"], "that of the cases there are"
    assert cases_of(monitored) == before


def test_drift_is_measured_shown_and_kept(monitored: Bank) -> None:
    shown = monitored.latest("drift")
    assert shown["by feature and date"].startswith("![drift by feature and date](data:image/png;base64,")
    assert "| PAYER |" in shown["by cause"]
    assert "| payer_late_rate |" in shown["by feature"]
    assert "not judged" not in shown
    assert abs(shown["mean log-odds moved by"]) < 1
    days = monitored.days[-SCORED:]
    rows = rows_between(monitored.platform.engine, Drift, monitored.usecase.name, days[0], days[-1])
    assert {row["decision_date"] for row in rows} == set(days)
    of_last = {(row["kind"], row["name"], row["measure"]): row for row in rows if row["decision_date"] == days[-1]}
    assert of_last["volume", "evening", "decisions"]["value"] == 60
    assert of_last["feature", "amount", "psi"]["judged"]
    assert of_last["slice", "country", "psi"]["value"] < 0.1
    assert of_last["feed", "invoices", "events"]["value"] == 60
    assert of_last["group", "all decisions", "outcomes over expected"]["n"] == 60
    assert sum(name.startswith("payer P") for _, name, _ in of_last) == 12
    assert shown["drift"] == sum(row["drifted"] for row in of_last.values())


def test_the_decision_on_retraining_is_written_down_and_the_sensor_starts_what_it_asks_for(monitored: Bank) -> None:
    name, engine = monitored.usecase.name, monitored.platform.engine
    decided = rows_between(engine, RetrainingDecision, name, monitored.days[0], monitored.days[-1])
    assert [row["decision_date"] for row in decided] == monitored.days[-SCORED:]
    assert all(row["reason"] for row in decided)
    shown = monitored.latest("retraining_decision")
    assert shown["decision"] == decided[-1]["outcome"] == "wait"
    assert shown["why"] == decided[-1]["reason"]
    sensor = retraining_sensor(monitored.usecase)
    with dg.build_sensor_context(resources={"platform": monitored.platform}) as context:
        assert shown["why"] in sensor(context).skip_message
    day = monitored.days[-1]
    assert "since" in decided[-1]["numbers"] or not decided[-1]["numbers"]["breaches"]
    for since, config in (
        ({}, {}),
        ({"since": "2026-01-20"}, {"ops": {f"{name}__training_set": {"config": {"since": "2026-01-20"}}}}),
    ):
        asks = {**decided[-1], "outcome": "retrain", "numbers": json.dumps({"champion": 1, **since})}
        replace_dates(engine, RetrainingDecision, name, [day], pa.Table.from_pylist([asks]))
        with dg.build_sensor_context(resources={"platform": monitored.platform}) as context:
            request = sensor(context)
        assert (request.partition_key, request.run_key) == (day.isoformat(), f"{name}:{day}")
        assert request.run_config == config
    monitored.runs.run("monitor", [day])  # it is decided anew
    assert newest_retraining_decision(engine, name)["outcome"] == "wait"


def test_a_label_that_is_corrected_makes_its_outcome_date_anew(monitored: Bank) -> None:
    """Guards outcomes that stay when a label is withdrawn: the date on which it was known holds no trace of it."""
    lake, usecase, cases = monitored.lake, monitored.usecase, cases_of(monitored)
    labels = lake.read(labels_table(usecase))
    known = monitored.days[-1]
    today = [row for row in labels.to_pylist() if row["known_date"] == known]
    assert today
    turned = [{**row, "label": 1 - row["label"]} for row in today[1:]]
    changed = labels.schema.empty_table().from_pylist(turned, schema=labels.schema)
    lake.replace(labels_table(usecase), changed, "known_date", [known])
    monitored.runs.run("monitor", [known])
    rows = {row["entity_id"]: row for row in lake.read(outcomes_table(usecase)).to_pylist()}
    assert rows[today[0]["entity_id"]]["label"] is None
    assert {rows[row["entity_id"]]["label"] == row["label"] for row in turned} == {True}
    held = {row["entity_id"]: row["label"] for row in cases_of(monitored)}
    assert len(held) == len(cases) - 1
    assert today[0]["entity_id"] not in held
    assert {held[row["entity_id"]] == row["label"] for row in turned} == {True}
    assert len(rows) == SCORED * 60
    monitored.runs.run("ingest", [known])
    monitored.runs.run("monitor", [known])
    assert cases_of(monitored) == cases, "and so are the past cases"
    restored = {row["entity_id"]: row for row in lake.read(outcomes_table(usecase)).to_pylist()}
    assert all(restored[row["entity_id"]]["label"] == row["label"] for row in today)


def test_reports_show_their_page_and_first_table_and_are_linked_from_what_they_tell_of(monitored: Bank) -> None:
    day = monitored.days[-1]
    monitored.runs.run("report", [day])
    shown = monitored.latest("reports", "model_performance")
    assert shown["summary"].startswith(f"{day:%B %Y}: of ")
    page = Path(shown["page"])
    assert page == Path(monitored.platform.settings.report_uri, monitored.usecase.name, "model_performance", str(day),
                        "model_performance.html")  # fmt: skip
    assert shown["summary"] in page.read_text(encoding="utf-8")
    assert "| Month | Decisions |" in shown["by month"]
    quality = monitored.latest("reports", "data_quality")
    assert "| invoices |" in quality["by source"]
    graph = monitored.runs.definitions.get_repository_def().asset_graph
    name = monitored.usecase.name
    of_quality = graph.get(dg.AssetKey([name, "reports", "data_quality"])).parent_keys
    assert of_quality == {dg.AssetKey([name, "curated", event.name]) for event in monitored.usecase.events}
    of_performance = graph.get(dg.AssetKey([name, "reports", "model_performance"])).parent_keys
    assert of_performance == {dg.AssetKey([name, "outcomes"]), dg.AssetKey([name, "performance"])}


def test_a_champion_that_does_worse_than_its_predecessor_is_rolled_back_by_itself_once(monitored: Bank) -> None:
    """The predecessor goes on in the shadow; the champion's scores are turned about, as a model gone wrong would."""
    usecase, engine, days = monitored.usecase, monitored.platform.engine, monitored.days[-SCORED:]
    first = last_change(engine, usecase.name)
    monitored.runs.run("retrain", [days[0]])
    second = last_change(engine, usecase.name)
    assert (second.action, second.from_run_id) == ("promoted", first.mlflow_run_id)
    monitored.runs.run("score", days)
    assert monitored.latest("shadow_predictions")["model_version"] == first.to_version
    in_shadow = monitored.lake.read(shadow_table(usecase))
    assert set(in_shadow["mlflow_run_id"].to_pylist()) == {first.mlflow_run_id}
    assert in_shadow.num_rows == SCORED * 60
    monitored.runs.run("monitor", days)
    said = monitored.latest("shadow_verdict")
    assert said["verdict"].startswith(f"version {first.to_version} in the shadow: no difference to champion")
    assert said["decisions"] == (SCORED - 3) * 60
    write_pack(monitored.platform.registry, engine, usecase, first.mlflow_run_id)
    pack = monitored.platform.registry.read_evidence(first.mlflow_run_id, PACK_MARKDOWN)
    assert f"as of {days[-1]}: version {first.to_version} in the shadow: no difference to champion" in pack
    write_pack(monitored.platform.registry, engine, usecase, second.mlflow_run_id)
    pack = monitored.platform.registry.read_evidence(second.mlflow_run_id, PACK_MARKDOWN)
    assert "beside the champion: not judged yet" in pack, "the verdict on another model is not that on this one"
    assert len(sql(monitored, "SELECT * FROM work_list")) == len(
        sql(monitored, f"SELECT * FROM work_list WHERE model_version = {second.to_version}")
    ), "nothing of the shadow is on a work-list"

    rows = monitored.lake.read(predictions_table(usecase))
    at = rows.schema.get_field_index("probability")
    wrong = rows.set_column(at, rows.schema.field(at), pc.subtract(1.0, rows["probability"]))
    monitored.lake.replace(predictions_table(usecase), wrong, "decision_date", days)
    monitored.runs.run("monitor", days)
    line = last_change(engine, usecase.name)
    assert (line.action, line.mlflow_run_id, line.is_person) == ("rolled_back", first.mlflow_run_id, False)
    assert line.reason.startswith(f"worse than its predecessor, version {first.to_version}: ")
    assert "Rolled back by itself" in monitored.latest("shadow_verdict")["verdict"]
    newest = newest_shadow_verdict(engine, usecase.name)
    assert (newest["says"], newest["shadow_version"]) == ("better", first.to_version)
    monitored.runs.run("monitor", days[-1:])
    assert last_change(engine, usecase.name) == line
    promote_challenger(monitored.platform.registry, engine, usecase, Actor.person("ann"), override="it was mended")
    assert last_change(engine, usecase.name).mlflow_run_id == second.mlflow_run_id
    monitored.runs.run("monitor", days[-1:])
    assert last_change(engine, usecase.name).action == "promoted", "the second time a person decides"
    with pytest.raises(LedgerError, match="a run rolls a model back once"):
        roll_back(monitored.platform.registry, engine, usecase, Actor.run("again"), reason="again")


@pytest.fixture
def week(monitored: Bank) -> list[date]:
    """Monday to Thursday of the week after the events that the bank has."""
    return [monitored.usecase.calendar.add(monitored.days[-1], n) for n in range(1, 5)]


@given("a use case whose champion has scored two weeks", target_fixture="story")
def scored_two_weeks(monitored: Bank) -> dict[str, Any]:
    monitored.runs.run("score", monitored.days[-SCORED:])  # other tests have changed them
    return {"worst": []}


@when("payer P0, who pays in time, pays nothing that is due from Tuesday on")
def stops_paying(monitored: Bank, week: list[date], story: dict[str, Any]) -> None:
    before = datetime.combine(monitored.days[-1], time.max, tzinfo=UTC).timestamp() * 1000
    made = late_payments.messages(len(monitored.days) + 4, name=monitored.usecase.name, stops=("P0", week[1]))
    story["messages"] = [one for one in made if one.timestamp_ms > before]


@when(parsers.parse("the payer with the worst record sends {more:d} invoices more a day from Tuesday on"))
def sends_more(monitored: Bank, week: list[date], story: dict[str, Any], more: int) -> None:
    for day in week[1:]:
        for number in range(more):
            raised = datetime.combine(day, time(11), tzinfo=UTC) + timedelta(minutes=number)
            story["worst"].append(
                late_payments.message(
                    f"{monitored.usecase.name}_invoices", raised, event_id=f"i-more-{day}-{number}",
                    invoice_id=f"more-{day}-{number}", payer=f"P{late_payments.PAYERS - 1}",
                    amount=100.0 + 330 * number, due_date=monitored.usecase.calendar.add(day, 2),
                )
            )  # fmt: skip


@when("the mornings of that week are monitored until Thursday")
def monitor_the_week(monitored: Bank, week: list[date], story: dict[str, Any]) -> None:
    monitored.land(sorted([*story["messages"], *story["worst"]], key=lambda one: one.timestamp_ms))
    for verb in ("ingest", "score", "monitor"):
        monitored.runs.run(verb, week)
    story["shown"] = monitored.latest("drift")
    story["drifted"] = [
        row
        for row in rows_between(monitored.platform.engine, Drift, monitored.usecase.name, week[-1], week[-1])
        if row["drifted"]
    ]


@then(parsers.parse('the asset drift names "{group}" with its late invoices beside those expected'))
def names_the_group(story: dict[str, Any], group: str) -> None:
    (row,) = [row for row in story["drifted"] if row["name"].startswith("payer ")]
    assert row["name"] == group
    late, of, expected = map(float, re.match(r"(\d+) of (\d+), ([\d.]+) expected", row["why"]).groups())
    assert (of, late >= 10, expected < 2) == (15, True, True), "three dates of five invoices; all of two are late"
    assert f"| group {group} |" in story["shown"]["what has drifted"]


@then(parsers.parse('it says that the cause "{cause}" has raised the mean log-odds'))
def names_the_cause(story: dict[str, Any], cause: str) -> None:
    (row,) = [row for row in story["drifted"] if row["kind"] == "cause"]
    assert (row["name"], row["moved"] > 0.25) == (cause, True)
    assert row["why"].startswith("the mean log-odds have moved by +")
    assert f"| cause {cause} |" in story["shown"]["what has drifted"]


@then("amounts, which are as before, are not named")
def not_named(story: dict[str, Any]) -> None:
    assert not {row["name"] for row in story["drifted"]} & {"amount"}


@then(parsers.parse('the check "{name}" warns on its page'))
def warns(monitored: Bank, name: str) -> None:
    check = dg.AssetCheckKey(dg.AssetKey([monitored.usecase.name, "drift"]), name)
    (found,) = monitored.instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
    evaluation = found.evaluation
    assert evaluation is not None
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)


@given("a morning on which some outcome dates are complete and some are open", target_fixture="listed")
def listed(monitored: Bank) -> list[str]:
    rows = sql(monitored, "SELECT entity_id FROM work_list ORDER BY reason_codes IS NULL, probability DESC")
    return [str(entity) for (entity,) in rows]


def asked_by_command(bank: Bank, entity: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("ml_assets.cli.looking.platform_of", lambda _: bank.platform.opened)
    monkeypatch.setenv("ML_ASSETS_USECASE_PACKAGES", bank.usecase.folder.parent.name)
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, ["similar", bank.usecase.name, entity])
    assert done.exit_code == 0, done.exception
    return done.stdout


@when(
    "the analyst asks for the past cases like the likeliest late invoice, and like the least likely one",
    target_fixture="answers",
)
def analyst_asks(monitored: Bank, listed: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return [asked_by_command(monitored, entity, monkeypatch) for entity in (listed[0], listed[-1])]


@then("of the former more had been late")
def more_were_late(answers: list[str]) -> None:
    late = [int(re.search(r"(\d+) of the 10 most similar past cases came out as fail", one)[1]) for one in answers]
    assert late[0] > late[1]
    assert "remind the payer" in answers[0]
    assert "not on the list" in answers[1]


@then("each case had an outcome before that decision was made")
def known_before(monitored: Bank, listed: list[str]) -> None:
    platform = monitored.platform
    found = find_similar(platform.lake, platform.registry, platform.engine, monitored.usecase, listed[0])
    assert len(found.cases) == 10
    assert all(case.decision_time < case.label_known_at <= found.prediction["decision_time"] for case in found.cases)


@when("an agent asks the MCP server about the likeliest late invoice", target_fixture="told")
def agent_asks(monitored: Bank, listed: list[str]) -> dict[str, Any]:
    tools = Tools(monitored.platform.opened, [monitored.usecase])

    async def ask() -> dict[str, Any]:
        async with Client(build_server(tools)) as client:
            asked = {"use_case": monitored.usecase.name, "entity": listed[0]}
            found = {name: await client.call_tool(name, asked) for name in ("similar_cases", "explain")}
            found["model_status"] = await client.call_tool("model_status", {})
            assert not any(one.is_error for one in found.values()), found
            return {name: one.structured_content for name, one in found.items()}

    return anyio.run(ask)


@then("it is told the same past cases as the analyst")
def same_cases(monitored: Bank, listed: list[str], told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    said = asked_by_command(monitored, listed[0], monkeypatch)
    cases = told["similar_cases"]["cases"]
    assert len(cases) == 10
    assert all(case["entity"].strip("⟦⟧") in said for case in cases)
    assert told["similar_cases"]["in_short"] in " ".join(said.split())


@then("it is told why, from the model that the champion is, made again from the events")
def told_why(told: dict[str, Any]) -> None:
    why, (status,) = told["explain"], told["model_status"]["use_cases"]
    assert why["made_again"] == {"probability": why["probability"], "same": True}
    assert why["model"]["version"] == status["champion"]["version"]
    added = why["added_log_odds_by_cause"]
    assert why["log_odds"] == pytest.approx(why["base_log_odds"] + sum(added.values()), abs=1e-4)
    assert why["proposed_action"] == "remind the payer"
    assert [event["event"] for event in why["events"]] == ["invoices"]
    assert why["features"]["payer_country"].startswith("⟦")


scenarios("monitoring.feature", "similar.feature")
