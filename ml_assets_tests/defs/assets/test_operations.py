"""Scenarios in the language of operations, on real servers."""

import dataclasses
from datetime import UTC, date, datetime, time
from typing import Any, Literal

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from pytest_bdd import given, parsers, scenarios, then, when

from ml_assets.cli.local_runs import RunFailedError
from ml_assets.contracts import Event
from ml_assets.database.promotions import Actor
from ml_assets.database.work_list import next_outcome_date, work_list
from ml_assets.defs.sensors import champions_sensor
from ml_assets.lake import curated_table, features_table
from ml_assets.landing.dead_letters import replay, waiting_dead_letters
from ml_assets.lifecycle.promotion import approve, promote_challenger
from ml_assets.registry import CHALLENGER, CHAMPION, ModelVersion
from ml_assets_tests.defs.assets.conftest import Bank
from ml_assets_tests.late_payments import message

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]

scenarios("operations.feature")


@pytest.fixture
def story() -> dict[str, Any]:
    """What a scenario remembers from step to step."""
    return {}


def champion(bank: Bank) -> ModelVersion:
    version = bank.platform.registry.resolve(bank.usecase.name, CHAMPION)
    assert version is not None
    return version


@given("a use case that has been through the whole lifecycle")
def whole_lifecycle(bank, story):
    story["bank"], story["before"] = bank, champion(bank)


@given("a gate that no model passes")
def impossible_gate(story):
    bank = story["bank"]
    strict = dataclasses.replace(bank.usecase, gate=dataclasses.replace(bank.usecase.gate, min_lift=0.99))
    story["bank"] = dataclasses.replace(bank, usecase=strict)


@when("an analyst asks for the next day's work-list")
def ask_for_work_list(story):
    bank = story["bank"]
    day = next_outcome_date(bank.platform.engine, bank.usecase.name)
    story["list"] = work_list(bank.platform.engine, bank.usecase.name, day, bank.usecase.capacity)


@when("the nightly retraining has run")
def retrain(story):
    story["bank"].runs.run("retrain", [story["bank"].days[-1]])


@when(parsers.parse('a person promotes the challenger because "{reason}"'))
def promote(story, reason):
    bank = story["bank"]
    story["challenger"] = bank.platform.registry.resolve(bank.usecase.name, CHALLENGER)
    promote_challenger(
        bank.platform.registry, bank.platform.engine, bank.usecase, Actor.person("operations"), override=reason
    )


@then("it has as many rows as the team can act on")
def as_many_rows(story):
    assert len(story["list"]) == story["bank"].usecase.capacity


@then("the dearest come first, each with the model version that speaks")
def dearest_first(story):
    costs = [row["expected_cost"] for row in story["list"]]
    assert costs == sorted(costs, reverse=True)
    bank = story["bank"]
    registered = {version.version for version in bank.platform.registry.versions(bank.usecase.name)}
    assert {row["model_version"] for row in story["list"]} <= registered


@then("the champion is the one from before")
def champion_stays(story):
    assert champion(story["bank"]) == story["before"]


@then("the asset champion shows which condition failed")
def shows_failure(story):
    made = story["bank"].latest("champion")
    assert made["promoted"] is False
    assert "| lift | no |" in made["gate"]


@then("the challenger is champion")
def challenger_is_champion(story):
    assert champion(story["bank"]).version == story["challenger"].version != story["before"].version


@then(parsers.parse('the reason "{reason}" is kept on it'))
def reason_is_kept(story, reason):
    assert champion(story["bank"]).tags["gate_override"] == reason


@given("a use case of tier high whose dates have landed")
def high_tier(make_bank, story):
    bank = make_bank("careful")
    story["bank"] = dataclasses.replace(bank, usecase=dataclasses.replace(bank.usecase, tier="high"))
    story["cursor"] = None
    automation(story)


@when("its features are made and the nightly retraining has run")
def ingest_and_retrain(story):
    story["bank"].runs.run("ingest", story["bank"].days)
    retrain(story)


@then("the asset champion awaits approval")
def awaits_approval(story):
    """It counts as never made: that is what holds off scoring, which would fail without a champion."""
    bank = story["bank"]
    asset = dg.AssetKey([bank.usecase.name, "champion"])
    assert bank.instance.get_latest_materialization_event(asset) is None
    (seen,) = bank.instance.fetch_observations(asset, limit=1).records
    assert seen.asset_observation.metadata["outcome"].value.startswith("awaiting approval")
    check = dg.AssetCheckKey(asset, "gate")
    (record,) = bank.instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
    assert record.status is AssetCheckExecutionRecordStatus.SUCCEEDED


@then("the automation scores nothing")
def nothing_scored(story):
    assert automation(story) == set()


@when(parsers.parse('another person approves the challenger because "{reason}"'))
def second_person_approves(story, reason):
    bank = story["bank"]
    approve(bank.platform.registry, bank.platform.engine, bank.usecase, Actor.person("reviewer"), reason=reason)


@then(parsers.parse('the asset champion shows the approval by "{person}"'))
def shows_approval(story, person):
    bank = story["bank"]
    sensor = champions_sensor([bank.usecase])

    def tick(cursor):
        with dg.build_sensor_context(cursor=cursor, resources={"platform": bank.platform}) as context:
            return sensor.evaluate_tick(context)

    first = tick(None)
    (event,) = first.asset_events
    bank.instance.report_runless_asset_event(event)
    assert bank.latest("champion")["champion_version"] == champion(bank).version
    assert f"by {person}" in bank.latest("champion")["outcome"]
    assert tick(first.cursor).asset_events == [], "it is shown once"


@then("the automation scores the newest date")
def newest_date_scored(story):
    assert story["bank"].days[-1].isoformat() in automation(story)


def automation(story):
    """Tick the automation; return the dates of which it asks for predictions."""
    bank = story["bank"]
    result = dg.evaluate_automation_conditions(bank.runs.definitions, bank.instance, cursor=story["cursor"])
    story["cursor"] = result.cursor
    return set(result.get_requested_partitions(dg.AssetKey([bank.usecase.name, "predictions"])))


class StrictInvoice(Event, frozen=True, kw_only=True):
    """A contract that knows only the payers of the day on which it was written."""

    invoice_id: str
    payer: Literal["P0", "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11"]
    amount: float
    due_date: date


@given("a use case of its own whose first date has landed")
def own_bank(make_bank, story):
    bank = story["mended"] = make_bank("broken_feed")
    (invoices, payments) = bank.usecase.events
    strict = dataclasses.replace(invoices, contract=StrictInvoice)
    story["bank"] = dataclasses.replace(bank, usecase=dataclasses.replace(bank.usecase, events=(strict, payments)))


@given(parsers.parse("{number:d} invoices of that date from a payer that the contract does not know"))
def invoices_of_an_unknown_payer(story, number):
    bank = story["bank"]
    day = bank.days[0]
    bank.land(
        [
            message(
                "broken_feed_invoices",
                datetime.combine(day, time(11, minute), tzinfo=UTC),
                event_id=f"new-{minute}",
                invoice_id=f"new-{minute}",
                payer="P99",
                amount=10.5,
                due_date=day,
            )
            for minute in range(number)
        ]
    )


@when("the date is ingested")
def ingest_date(story):
    bank = story["bank"]
    try:
        bank.runs.run("ingest", [bank.days[0]])
    except RunFailedError as error:
        story["failed"] = str(error)


@then(parsers.parse('the check "{name}" stops it before features'))
def stopped_by(story, name):
    assert name in story["failed"]
    assert story["bank"].lake.version(features_table(story["bank"].usecase)) is None


@when("the contract is mended and the dead letters are replayed")
def mend_and_replay(story):
    bank = story["bank"] = story["mended"]
    assert replay(bank.lake, bank.usecase.event("invoices")).landed == 12


@then(parsers.parse("its curated table has {number:d} invoices and nothing waits"))
def all_curated(story, number):
    bank = story["bank"]
    event = bank.usecase.event("invoices")
    assert bank.lake.read(curated_table(bank.usecase, event)).num_rows == number
    assert waiting_dead_letters(bank.lake, event).num_rows == 0
