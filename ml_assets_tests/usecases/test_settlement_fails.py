"""settlement_fails: what operations would say of its features and labels, and that it sees nothing too early."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import AsOfDatabase
from ml_assets.features.sound import lacking
from ml_assets.learning.calibration import log_odds
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.leaks import settled_when_decided
from ml_assets.learning.metrics import evaluate
from ml_assets.learning.reasons import reason_codes
from ml_assets.learning.training_set import part_of
from ml_assets.learning.window import Window
from ml_assets.lifecycle.audit import beside
from ml_assets.local.simulation.events import instruction_ids
from ml_assets.local.simulation.market import MarketConfig, simulate
from ml_assets.local.simulation.truth import SLOTS, truth_table
from ml_assets.local.simulation.world import ASSET_CLASSES
from ml_assets.spec import DecisionTime, SplitSpec
from ml_assets.usecases import discover
from ml_assets.usecases.settlement_fails.codes import CANCELLED
from ml_assets.usecases.settlement_fails.contracts import (
    InventoryPosition,
    SecuritiesLending,
    SettlementConfirmation,
    SettlementInstruction,
    SettlementStatus,
)
from ml_assets.usecases.settlement_fails.usecase import USE_CASE, cause_for, checklist, counterparty_part
from ml_assets_tests.usecases.settlement import (
    curated_by_hand,
    curated_market,
    decide,
    references,
    row_of,
    training_set_of,
)

pytestmark = pytest.mark.long

TRADE_DATE, ISD_MINUS_1, ISD = date(2026, 1, 8), date(2026, 1, 9), date(2026, 1, 12)  # a weekend before the ISD


def test_it_is_found_and_its_slots_are_those_of_the_truth():
    assert USE_CASE in discover()
    assert {slot.name: slot.at for slot in USE_CASE.slots} == {name: at for name, (at, _) in SLOTS.items()}


def test_the_outcome_is_known_early_on_the_next_business_day():
    assert USE_CASE.label.known_at(date(2026, 1, 9)) == datetime(2026, 1, 12, 6, tzinfo=UTC), "over a weekend"
    assert USE_CASE.label.known_at(date(2026, 4, 2)) == datetime(2026, 4, 7, 6, tzinfo=UTC), "over Easter"


# One instruction, followed from its trade date on.


def at(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


class Desk:
    """The events of one instruction, in a liquid share, and of its security."""

    def __init__(self, reference_data, movement="DELI", *, is_old_account=False):
        self.references = reference_data
        security = next(r for r in reference_data["securities"].to_pylist() if r["asset_class"] == "liquid_share")
        versions = [
            row
            for row in reference_data["standing_settlement_instructions"].to_pylist()
            if row["pset"] == security["pset"]
        ]
        versions.sort(key=lambda row: row["valid_from"], reverse=not is_old_account)
        self.isin = security["isin"]
        self.instruction = SettlementInstruction(
            event_id="SI",
            event_time=at(TRADE_DATE, 10),
            instruction_id="I-1",
            uti="U-1",
            isin=self.isin,
            movement=movement,
            payment="APMT",
            quantity=1000,
            amount=90_000.0,
            counterparty_lei=versions[0]["lei"],
            account=versions[0]["account"],
            pset=security["pset"],
            trade_date=TRADE_DATE,
            intended_settlement_date=ISD,
        )
        self.events = {"settlement_instructions": [self.instruction]}

    def tell(self, topic, contract, moment, **payload):
        rows = self.events.setdefault(topic, [])
        rows.append(contract(event_id=f"{topic}-{len(rows)}", event_time=moment, **payload))

    def status(self, moment, status, reason=None):
        self.tell("settlement_status", SettlementStatus, moment, instruction_id="I-1", status=status, reason=reason)

    def confirm(self, moment, quantity):
        self.tell("settlement_confirmations", SettlementConfirmation, moment, instruction_id="I-1", quantity=quantity)

    def position(self, moment, quantity):
        self.tell("inventory_positions", InventoryPosition, moment, isin=self.isin, available_quantity=quantity)

    def fee(self, moment, fee_bp):
        self.tell("securities_lending", SecuritiesLending, moment, isin=self.isin, fee_bp=fee_bp, utilisation=0.5)

    def history(self):
        return AsOfDatabase(USE_CASE, curated_by_hand(self.events), self.references, threads=1)

    def decisions(self, *slots):
        with self.history() as db:
            return pa.concat_tables([db.features(decision_at(slot)) for slot in slots])

    def features(self, slot):
        return row_of(self.decisions(slot), "I-1")

    def label(self):
        with self.history() as db:
            return row_of(db.labels(ISD, db.features(decision_at("isd_minus_1"))), "I-1")["label"]


def decision_at(slot):
    day = {"end_of_trade_date": TRADE_DATE, "isd_minus_1": ISD_MINUS_1, "isd_morning": ISD}[slot]
    return DecisionTime(slot, datetime.combine(day, SLOTS[slot][0], tzinfo=UTC))


def test_an_instruction_that_does_not_match_stands_out_until_it_does(reference_data):
    desk = Desk(reference_data)
    desk.status(at(TRADE_DATE, 21), "NMAT", "DMON")
    desk.status(at(ISD_MINUS_1, 17), "MACH")
    matching = {row["slot"]: row["matching_status"] for row in desk.decisions(*SLOTS).to_pylist()}
    assert matching == {"end_of_trade_date": "NONE", "isd_minus_1": "NMAT", "isd_morning": "MACH"}
    points = {slot: desk.features(slot)["checklist_points"] for slot in ("isd_minus_1", "isd_morning")}
    assert points == {"isd_minus_1": 3, "isd_morning": 0}, "a fee that is not known gives no points"
    desk.fee(at(TRADE_DATE, 17), 50.0)
    assert desk.features("isd_minus_1")["checklist_points"] == 3.5
    assert desk.features("isd_morning")["checklist_points"] == 0.5
    assert desk.features("isd_morning")["unmatched_on_isd"] == 0


def test_an_instruction_is_on_hold_until_it_is_released(reference_data):
    """Whatever it matches meanwhile, and whether the release gives a reason or none."""
    desk = Desk(reference_data)
    desk.status(at(TRADE_DATE, 11), "PEND", "PREA")
    desk.status(at(TRADE_DATE, 21), "MACH")
    seen = {row["slot"]: row["on_hold_at"] for row in desk.decisions(*SLOTS).to_pylist()}
    assert seen == {slot: slot for slot in SLOTS}, "a hold is worse the longer it lasts: models see the slot"
    assert [row["checklist_points"] for row in desk.decisions(*SLOTS).to_pylist()] == [2, 2, 2]
    for reason in ("FUTU", "LACK", None):
        released = Desk(reference_data)
        released.status(at(TRADE_DATE, 11), "PEND", "PREA")
        released.status(at(ISD_MINUS_1, 17), "PEND", reason)
        seen = {row["slot"]: row["on_hold_at"] for row in released.decisions(*SLOTS).to_pylist()}
        assert seen == {slot: slot for slot in SLOTS} | {"isd_morning": "NONE"}, reason
        assert released.features("isd_morning")["checklist_points"] == 0
        released.status(at(ISD_MINUS_1, 18), "PEND", "PREA")
        assert released.features("isd_morning")["on_hold_at"] == "isd_morning", "put on hold again"


def test_a_hold_of_the_counterparty_is_none_of_ours(reference_data):
    desk = Desk(reference_data)
    desk.status(at(TRADE_DATE, 11), "PEND", "PRCY")
    assert desk.features("isd_morning")["on_hold_at"] == "NONE"


def test_still_unmatched_on_the_settlement_date_is_worse_than_the_day_before(reference_data):
    desk = Desk(reference_data)
    desk.status(at(TRADE_DATE, 21), "NMAT", "CMIS")
    assert desk.features("isd_minus_1")["unmatched_on_isd"] == 0
    assert desk.features("isd_morning")["unmatched_on_isd"] == 1


@pytest.mark.parametrize(("movement", "lacks"), [("DELI", 1), ("RECE", 0)])
def test_a_short_position_matters_to_whom_delivers(reference_data, movement, lacks):
    desk = Desk(reference_data, movement)
    desk.position(at(TRADE_DATE, 19), 5000)
    desk.position(at(ISD_MINUS_1, 19), -200)
    assert desk.features("isd_minus_1")["lacks_inventory"] == 0, "the newest position then known is long"
    assert desk.features("isd_morning")["lacks_inventory"] == lacks
    assert desk.features("isd_morning")["lacks_inventory_on_isd"] == lacks
    early = Desk(reference_data, movement)
    early.position(at(TRADE_DATE, 19), -200)
    assert early.features("isd_minus_1")["lacks_inventory"] == lacks
    assert early.features("isd_minus_1")["lacks_inventory_on_isd"] == 0, "there is an evening left"


@pytest.mark.parametrize("is_old", [True, False])
def test_an_account_that_is_no_longer_standing_is_told(reference_data, is_old):
    assert Desk(reference_data, is_old_account=is_old).features("isd_minus_1")["differs_from_ssi"] == is_old


def test_a_security_that_costs_nothing_to_borrow_is_no_error(reference_data):
    desk = Desk(reference_data)
    desk.fee(at(TRADE_DATE, 17), 0.0)
    assert desk.features("isd_minus_1")["log_borrowing_fee"] == pytest.approx(-4.605, abs=0.001)


def test_what_a_fail_costs_is_the_penalty_and_the_funding_of_two_days(reference_data):
    row = Desk(reference_data).features("isd_morning")
    penalty = 90_000 * 1.0 / 10_000  # liquid shares: 1 bp a day
    funding = 90_000 * 0.03 / 360
    assert row["cost_if_fail"] == pytest.approx(2 * (penalty + funding))
    assert row["outcome_date"] == ISD
    told = json.loads(row["attributes"])
    assert told["amount"] == 90_000
    assert {"security", "isin", "counterparty", "movement", "pset", "cut_off"} <= set(told)


def test_an_instruction_that_is_sent_again_is_decided_once(reference_data):
    desk = Desk(reference_data)
    again = msgspec.structs.replace(desk.instruction, event_id="SI-again", event_time=at(TRADE_DATE, 15))
    desk.events["settlement_instructions"].append(again)
    desk.confirm(at(ISD, 9), 1000)
    assert desk.decisions("isd_minus_1").num_rows == 1
    assert desk.label() == 0


def test_what_has_settled_early_is_not_decided(reference_data):
    desk = Desk(reference_data)
    desk.confirm(at(ISD_MINUS_1, 9), 1000)
    assert desk.decisions("isd_minus_1").num_rows == 0


@pytest.mark.parametrize("status", sorted(CANCELLED))
def test_a_cancelled_instruction_is_off_the_list_from_then_on_and_has_no_label(reference_data, status):
    """Guards: it stayed open in all slots and was labelled as a fail, though nobody wanted it to settle any more."""
    desk = Desk(reference_data)
    desk.status(at(ISD_MINUS_1, 16), status, "CANI")
    decided = desk.decisions("end_of_trade_date", "isd_minus_1", "isd_morning")
    assert decided["slot"].to_pylist() == ["end_of_trade_date", "isd_minus_1"], "what was decided before stays"
    with desk.history() as db:
        assert db.labels(ISD, db.features(decision_at("isd_minus_1"))).num_rows == 0


def test_a_cancellation_that_is_asked_for_or_comes_after_the_cut_off_changes_nothing(reference_data):
    """What was not settled by the cut-off has failed, whatever becomes of it later."""
    desk = Desk(reference_data)
    desk.status(at(ISD_MINUS_1, 16), "CANP")
    assert desk.features("isd_morning")["matching_status"] == "NONE"
    desk.status(at(ISD, 20), "CAND")
    assert desk.label() == 1


def test_a_place_without_a_cut_off_is_named(reference_data):
    """Guards: its decisions had no label, and nothing said so."""
    desk = Desk(reference_data)
    cut_offs = reference_data["cut_offs"]
    known = cut_offs.filter(pc.not_equal(cut_offs["pset"], desk.instruction.pset))
    assert lacking(USE_CASE, desk.decisions("isd_morning")) == {}
    desk.references = {**reference_data, "cut_offs": known}
    (told,) = lacking(USE_CASE, desk.decisions("isd_morning")).items()
    assert told == (f"pset {desk.instruction.pset}: no cut-off is known: such decisions get no label", 1)


def test_the_label_is_full_settlement_by_the_cut_off(reference_data):
    outcomes = {}
    for name, confirmations in {
        "in full": [(at(ISD, 10), 1000)],
        "in two parts": [(at(ISD, 9), 400), (at(ISD, 15), 600)],
        "in part": [(at(ISD, 9), 400)],
        "after the cut-off": [(at(ISD, 17, 30), 1000)],
        "the next day": [(at(ISD + timedelta(days=1), 5), 1000)],
        "not at all": [],
    }.items():
        desk = Desk(reference_data)
        for moment, quantity in confirmations:
            desk.confirm(moment, quantity)
        outcomes[name] = desk.label()
    assert [name for name, label in outcomes.items() if label == 0] == ["in full", "in two parts"]


# The level of the market: how many fail now.

USUAL, STRESSED = 10, 60  # fails of 200 instructions
SETTLED = tuple(date(2026, 1, day) for day in (5, 6, 7))  # intended settlement dates before the trade date


def settle(desk, day, fails, *, reported=True):
    """200 instructions were due on a day, all like the desk's; so many failed, which was reported in the evening."""
    for number in range(200):
        name = f"{day}-{number}"
        rows = desk.events["settlement_instructions"]
        rows.append(
            msgspec.structs.replace(
                desk.instruction,
                event_id=f"SI-{name}",
                event_time=at(day - timedelta(days=2), 10),
                instruction_id=name,
                uti=name,
                trade_date=day - timedelta(days=2),
                intended_settlement_date=day,
            )
        )
        if reported and number < fails:
            desk.tell(
                "settlement_status",
                SettlementStatus,
                at(day, 18, 30),
                instruction_id=name,
                status="PENF",
                reason="LACK",
            )


def prior(fails, newest):
    """The prior log-odds by hand: rates of the dates with these `fails`, the `newest` date compared with them."""
    usual = float(np.median(fails))
    unusual = [abs(count - usual) > 3 * np.sqrt(usual) for count in fails]
    instructions = sum(
        200 * ((count + 10) / (usual + 10) if far else 1) for count, far in zip(fails, unusual, strict=True)
    )
    rate = (sum(fails) + 1) / (instructions + 20)
    relative = np.log((sum(fails) + 3) / (instructions * rate + 3))
    expected = 200 * rate * np.exp(relative)
    beyond_chance = np.sign(newest - expected) * max(0.0, abs(newest - expected) - 2 * np.sqrt(expected))
    return np.log(rate / (1 - rate)) + relative + np.log(1 + beyond_chance / (expected + 100))


def history_of(reference_data, *fails, reported=True):
    desk = Desk(reference_data)
    for day, failed in zip(SETTLED, fails, strict=True):
        settle(desk, day, failed, reported=reported or day != SETTLED[-1])
    return desk


def test_the_prior_follows_the_fails_of_the_newest_settlement_date(reference_data):
    """Guards the level: a stress that began yesterday is seen at once, and so is its end; chance is not."""
    usual = (USUAL, USUAL, USUAL + 4)
    began = (USUAL, USUAL, STRESSED)
    over = (STRESSED, STRESSED, USUAL)
    seen = {
        fails: history_of(reference_data, *fails).features("end_of_trade_date")["prior_log_odds"]
        for fails in (usual, began, over)
    }
    assert seen == {fails: pytest.approx(prior(fails, fails[-1])) for fails in seen}
    rate = (sum(usual) + 1) / (600 + 20)
    assert seen[usual] == pytest.approx(np.log(rate / (1 - rate)), abs=0.02), "four more are chance"
    assert seen[began] - prior(began, sum(began) / 3) > 0.15
    assert seen[over] - prior(over, sum(over) / 3) < -0.1


def test_a_stress_that_is_over_does_not_stay_in_the_rates(reference_data):
    """Guards against 60 days of too high probabilities after a stress: its dates count as more instructions."""
    calm, over = (
        history_of(reference_data, *fails).features("end_of_trade_date")["prior_log_odds"]
        for fails in ((USUAL,) * 3, (USUAL, STRESSED, USUAL))
    )
    assert over == pytest.approx(prior((USUAL, STRESSED, USUAL), USUAL))
    rate = (USUAL + STRESSED + USUAL + 1) / (600 + 20)
    assert over - calm < 0.5 * (np.log(rate / (1 - rate)) - calm), "of what it would be with the stress in the rates"


def test_a_settlement_date_counts_when_its_fails_have_been_reported(reference_data):
    """Guards the time: at 15:00 the day's outcomes are open, at 20:00 they are known, two hours after the cut-off."""
    desk = history_of(reference_data, USUAL, USUAL, USUAL)
    settle(desk, ISD_MINUS_1, STRESSED)  # settles on the day on which the desk's instruction is a day from its date
    with desk.history() as db:
        before = row_of(db.features(decision_at("isd_minus_1")), "I-1")["prior_log_odds"]
        morning = row_of(db.features(decision_at("isd_morning")), "I-1")["prior_log_odds"]
    today = history_of(reference_data, USUAL, USUAL, USUAL)
    settle(today, TRADE_DATE, STRESSED)
    evening = today.features("end_of_trade_date")["prior_log_odds"]
    assert evening == pytest.approx(prior((USUAL,) * 3, STRESSED)), "in the level, not yet in the rates"
    assert before == pytest.approx(prior((USUAL,) * 3, USUAL))
    assert morning == pytest.approx(prior((USUAL, USUAL, USUAL, STRESSED), STRESSED))


def test_a_date_without_a_reported_fail_is_no_calm(reference_data):
    """Guards against a feed that is silent: no fail of 200 is not seen as a market in which nothing fails."""
    silent = history_of(reference_data, USUAL, USUAL, 0, reported=False).features("end_of_trade_date")
    assert silent["prior_log_odds"] == pytest.approx(prior((USUAL, USUAL, 0), 200 * 21 / 620), abs=0.02)


# A whole market.

MARKET = MarketConfig(days=8, instructions_per_day=60, counterparties=6, securities=15, dirty=0)


def test_decisions_and_labels_are_those_of_the_truth(market, events, market_references):
    """Nothing is decided that the truth does not know, and every label of a clean market is its outcome."""
    features, labels = decide(USE_CASE, market, events, market_references)
    rows = truth_table(market.world, market.instructions).to_pylist()
    truth = {(row["entity_id"], row["decision_time"]): row for row in rows}
    last = market.world.calendar[MARKET.days - 1]
    keys = {(row["entity_id"], row["decision_time"]) for row in features.to_pylist()}
    assert keys == {key for key, row in truth.items() if row["decision_time"].date() <= last}
    assert labels.num_rows > 800
    for row in labels.to_pylist():
        known = truth[row["entity_id"], row["decision_time"]]
        assert (row["label"], row["outcome_date"]) == (known["outcome"], known["outcome_date"])


def tampered(table: pa.Table, later: pa.Array, seed: int) -> pa.Table:
    """The table whose rows marked `later` are other ones: dropped, shuffled, backdated, given another status."""
    early, late = table.filter(pc.invert(later)), table.filter(later)
    if late.num_rows == 0 or seed % 3 == 0:
        return early
    shift = seed % late.num_rows
    columns = {}
    for field in table.schema:
        values = late[field.name].combine_chunks()
        if field.name in {"known_at", "broker_time"}:
            columns[field.name] = values
        elif field.name in {"event_time", "business_date"} and seed % 3 == 1:  # it is said to have happened long ago
            columns[field.name] = pa.array([early[field.name][0].as_py()] * late.num_rows, field.type)
        elif field.name == "status":
            columns[field.name] = pa.array(["PENF"] * late.num_rows)
        else:
            columns[field.name] = pa.concat_arrays([values[shift:], values[:shift]])
    return pa.concat_tables([early, pa.table(columns, schema=table.schema)])


@settings(max_examples=12, deadline=None)
@given(
    event=st.sampled_from([event.name for event in USE_CASE.events]),
    day=st.integers(3, MARKET.days - 2),
    slot=st.sampled_from(list(SLOTS)),
    seed=st.integers(0, 10_000),
)
def test_what_becomes_known_later_changes_no_feature(market, events, market_references, event, day, slot, seed):
    moment = datetime.combine(market.world.calendar[day], SLOTS[slot][0], tzinfo=UTC)
    later = pc.greater(events[event]["known_at"], pa.scalar(moment))
    changed = {**events, event: tampered(events[event], later, seed)}
    decision = DecisionTime(slot, moment)
    with AsOfDatabase(USE_CASE, events, market_references, threads=1) as db:
        expected = db.features(decision)
    with AsOfDatabase(USE_CASE, changed, market_references, threads=1) as db:
        assert db.features(decision).equals(expected)
    assert expected.num_rows > 0


@settings(max_examples=5, deadline=None)
@given(day=st.integers(2, MARKET.days - 3), seed=st.integers(0, 10_000))
def test_what_becomes_known_after_the_label_does_not_change_it(market, events, market_references, day, seed):
    outcome_date = market.world.calendar[day]
    known_at = pa.scalar(USE_CASE.label.known_at(outcome_date))
    changed = {name: tampered(table, pc.greater(table["known_at"], known_at), seed) for name, table in events.items()}
    decided = datetime.combine(outcome_date, SLOTS["isd_morning"][0], tzinfo=UTC)
    outcomes = []
    for history in (events, changed):
        with AsOfDatabase(USE_CASE, history, market_references, threads=1) as db:
            outcomes.append(db.labels(outcome_date, db.features(DecisionTime("isd_morning", decided))))
    assert outcomes[0].num_rows > 0
    assert outcomes[1].equals(outcomes[0])


def test_a_model_comes_near_the_truth_and_not_beyond_it(tmp_path):
    """With a small part of the demo's history. Better than the truth would mean that a feature leaks."""
    market = simulate(MarketConfig(days=14, instructions_per_day=1500, counterparties=15, securities=60))
    afternoons = tuple(slot for slot in USE_CASE.slots if slot.name == "isd_minus_1")
    usecase = replace(USE_CASE, slots=afternoons, split=SplitSpec(train_days=7, calibration_days=1, test_days=3))
    rows = training_set_of(usecase, market, curated_market(market), references(market, tmp_path))
    window = Window.of(part_of(rows, "test"))
    truth = truth_table(market.world, market.instructions).to_pylist()
    probability = {row["entity_id"]: row["probability"] for row in truth if row["slot"] == "isd_minus_1"}
    best = evaluate(window, [probability[name] for name in window.entity_ids.tolist()], capacity=usecase.capacity)
    logistic = next(c for c in usecase.candidates if c.name == "logistic")
    fitted = fit_candidate(usecase, logistic, rows).metrics
    assert 0.85 * best["lift"] < fitted["lift"] < 1.05 * best["lift"]
    assert fitted["roc_auc"] < best["roc_auc"] + 0.01


def test_penalty_rates_are_those_of_the_regulation(reference_data):
    """Basis points a day: Commission Delegated Regulation (EU) 2017/389, annex."""
    rates = {row["asset_class"]: row["bp_per_day"] for row in reference_data["penalty_rates"].to_pylist()}
    assert rates == {
        "liquid_share": 1.0,
        "illiquid_share": 0.5,
        "sme_growth_share": 0.25,
        "corporate_bond": 0.20,
        "sme_bond": 0.15,
        "sovereign_bond": 0.10,
        "etf": 0.5,
    }
    assert set(rates) == {asset_class.name for asset_class in ASSET_CLASSES}


# Reasons.


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A market, and a model of its afternoons that has learned from it."""
    market = simulate(MarketConfig(days=12, instructions_per_day=900, counterparties=12, securities=50, dirty=0))
    afternoons = tuple(slot for slot in USE_CASE.slots if slot.name == "isd_minus_1")
    usecase = replace(USE_CASE, slots=afternoons, split=SplitSpec(train_days=5, calibration_days=1, test_days=2))
    reference = references(market, tmp_path_factory.mktemp("learned"))
    rows = training_set_of(usecase, market, curated_market(market), reference)
    return usecase, market, reference, fit_candidate(usecase, usecase.candidates[1], rows).scorer


def reasons_of(learned, market, day):
    """The probability and the reasons of each decision of a day's afternoon, by instruction."""
    usecase, _, reference, scorer = learned
    (decision,) = usecase.decision_times(market.world.calendar[day])
    with AsOfDatabase(usecase, curated_market(market), reference, threads=2) as db:
        rows = db.features(decision)
    probabilities = scorer.score(rows)
    codes = reason_codes(usecase, scorer, rows, probabilities)
    return {e: (p, json.loads(c)) for e, p, c in zip(rows["entity_id"].to_pylist(), probabilities, codes, strict=True)}


@pytest.mark.parametrize(
    ("flags", "cause", "action"),
    [
        (("old_account",), "SSI", "repair the settlement instruction"),
        (("unmatched",), "NMAT", "chase the match; amend what differs"),
        (("on_hold", "on_hold_day_before"), "PREA", "release the instruction"),
    ],
    ids=["account", "matching", "hold"],
)
def test_a_cause_planted_in_the_market_is_found_in_the_reasons(learned, flags, cause, action):
    """The same market twice; in the second, some instructions of one day have a cause that they did not have."""
    market, traded = learned[1], 9
    trades = market.instructions
    healthy = (trades.day == traded) & ~trades.old_account & ~trades.unmatched & ~trades.late & ~trades.on_hold
    planted = np.flatnonzero(healthy)[:40]
    changed = {flag: getattr(trades, flag).copy() for flag in flags}
    for planted_in in changed.values():
        planted_in[planted] = True
    before = reasons_of(learned, market, traded + 1)
    after = reasons_of(learned, replace(market, instructions=replace(trades, **changed)), traded + 1)
    ids = instruction_ids(market.world, trades)[planted].tolist()
    found = [after[i][1]["cause"] == cause for i in ids]
    assert np.mean(found) > 0.8
    for i in ids:
        was, now = before[i], after[i]
        assert now[0] > was[0]
        assert now[1]["contributions"][cause] > was[1]["contributions"][cause] + 0.5
        assert now[1]["base"] + sum(now[1]["contributions"].values()) == pytest.approx(log_odds(now[0]), abs=1e-5)
        if now[1]["cause"] == cause:
            assert now[1]["action"] == action


def test_a_short_position_planted_in_the_market_is_a_lack_to_whom_delivers(learned):
    market, traded = learned[1], 9
    short = market.world.short.copy()
    short[traded] = True
    planted = replace(market, world=replace(market.world, short=short))
    before, after = reasons_of(learned, market, traded + 1), reasons_of(learned, planted, traded + 1)
    trades = market.instructions
    newly_short = (trades.day == traded) & trades.deliver & ~market.world.short[traded][trades.security]
    ids = instruction_ids(market.world, trades)[newly_short].tolist()
    rose = [after[i][1]["contributions"]["LACK"] - before[i][1]["contributions"]["LACK"] > 0.5 for i in ids]
    assert len(ids) > 50
    assert np.mean(rose) > 0.9


def test_where_we_receive_it_is_the_counterparty_that_lacks():
    assert cause_for("LACK", {"movement": "RECE"}) == "CLAC"
    assert cause_for("LACK", {"movement": "DELI"}) == "LACK"
    assert cause_for("SSI", {"movement": "RECE"}) == "SSI"


def test_formulas_of_features_are_those_of_the_sql(market, events, market_references):
    """Guards: reasons recompute the checklist; if the SQL moves on, so must the formula."""
    features, _ = decide(USE_CASE, market, events, market_references)
    columns = {
        f.name: np.asarray(features[f.name].to_pandas(), dtype=object if f.kind == "categorical" else np.float64)
        for f in USE_CASE.features
    }
    assert checklist(columns) == pytest.approx(columns["checklist_points"], abs=1e-9)
    own = columns["prior_log_odds"] - counterparty_part(columns)
    kinds = list(zip(columns["asset_class"], features["decision_time"].to_pylist(), strict=True))
    by_kind = dict(zip(kinds, own, strict=True))
    assert own == pytest.approx([by_kind[kind] for kind in kinds], abs=1e-9, nan_ok=True), "the rest is the class"


def test_no_fail_had_happened_when_it_was_decided(market, events, market_references):
    """Guards the check on outcomes before decisions: what has not settled yet has the label 1, which says nothing."""
    features, labels = decide(USE_CASE, market, events, market_references)
    found, early = [], 0
    with AsOfDatabase(USE_CASE, events, market_references, threads=1) as db:
        times = {(row["decision_time"], row["slot"]) for row in features.to_pylist()}
        for moment, slot in sorted(times, reverse=True):
            decision = DecisionTime(slot, moment.astimezone(UTC))
            db.forget_after(decision.as_of)
            made = db.features(decision)
            outcomes = db.outcomes_at(decision, made)
            early += pc.sum(outcomes["early"]).as_py() or 0
            stored = labels.filter(pc.equal(labels["decision_time"], pa.scalar(decision.as_of, TIMESTAMP)))
            found.append(beside(outcomes, made, stored))
    settled = settled_when_decided(pa.concat_tables(found))
    assert early > 800, "label.sql says 1 of nearly all, as nothing has been confirmed"
    assert settled.positives > 20
    assert settled.settled == 0
