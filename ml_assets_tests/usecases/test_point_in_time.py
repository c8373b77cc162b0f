"""Point in time: for any as-of, features are those of a history that was cut at that as-of before anything was done.

Histories are random: few trades, each of which may come late, be corrected (the same instruction again, otherwise), be
cancelled (an instruction of nothing), be rebooked (the same UTI, another trade), settle, match, be held and released,
fail; of a history that is known until `as_of` nothing that comes later can be told.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import AsOfDatabase
from ml_assets.local.simulation.truth import SLOTS
from ml_assets.spec import DecisionTime
from ml_assets.usecases.settlement_fails.contracts import (
    InventoryPosition,
    SecuritiesLending,
    SettlementConfirmation,
    SettlementInstruction,
    SettlementStatus,
    Trade,
)
from ml_assets.usecases.settlement_fails.usecase import CALENDAR, USE_CASE
from ml_assets_tests.usecases.settlement import Known, curated

pytestmark = pytest.mark.long

FIRST = date(2026, 1, 5)
DAYS = 7


# What happens to one instruction, in hours after its trade: kind, when, how much later it is known.
STATUSES = {
    "match": ("MACH", None),
    "unmatch": ("NMAT", "CMIS"),
    "pend": ("PEND", "LACK"),
    "hold": ("PEND", "PREA"),
    "release": ("PEND", None),
    "fail": ("PENF", None),
}
KINDS = ("send", "correct", "cancel", "rebook", *STATUSES, "settle", "settle_in_part")
STEPS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 80), st.sampled_from([0, 0, 0, 1, 20, 45])), min_size=1, max_size=8
)
TRADES = st.lists(
    st.tuples(
        st.integers(0, DAYS - 3),  # trade day
        st.integers(0, 2),  # counterparty
        st.integers(0, 7),  # security
        st.sampled_from(["DELI", "RECE"]),
        STEPS,
    ),
    min_size=3,
    max_size=12,
)
EVENINGS = st.lists(
    st.tuples(st.integers(0, DAYS - 1), st.integers(0, 7), st.integers(-500, 500), st.integers(0, 30)), max_size=20
)


def landed(reference_data: dict[str, pa.Table], trades: list[Any], evenings: list[Any]) -> dict[str, list[Known]]:
    """The events of a random history, each with the time at which it was known."""
    securities = reference_data["securities"].to_pylist()
    accounts = reference_data["standing_settlement_instructions"].to_pylist()
    leis = sorted({row["lei"] for row in accounts})
    found: dict[str, list[Known]] = {spec.name: [] for spec in USE_CASE.events}

    def tell(name: str, contract: type, moment: datetime, later: int, **payload: Any) -> None:
        number = len(found[name])
        row = contract(event_id=f"{name}-{number}", event_time=moment, **payload)
        found[name].append((row, moment + timedelta(hours=later, seconds=1 + number % 7)))

    for number, (day, party, which, movement, steps) in enumerate(trades):
        trade_date = CALENDAR.add(FIRST, day)
        start = datetime(trade_date.year, trade_date.month, trade_date.day, 9, tzinfo=UTC)
        security, lei = securities[which % len(securities)], leis[party % len(leis)]
        mine = [row for row in accounts if row["lei"] == lei and row["pset"] == security["pset"]]
        booked = {"isin": security["isin"], "counterparty_lei": lei, "quantity": 100}

        def trade(moment: datetime, later: int, *, quantity: int, uti: str = f"U-{number}", booked=booked) -> None:
            tell("trades", Trade, moment, later, uti=uti, mic="XETR", side="SELL", price=10.0,
                 **{**booked, "quantity": quantity})  # fmt: skip

        trade(start, 0, quantity=100)
        for kind, hours, later in steps:
            moment = start + timedelta(hours=hours)
            if kind in {"send", "correct", "cancel"}:
                tell(
                    "settlement_instructions", SettlementInstruction, moment, later,
                    **{**booked, "quantity": {"send": 100, "correct": 60, "cancel": 0}[kind]},
                    instruction_id=f"I-{number}", uti=f"U-{number}", movement=movement, payment="APMT",
                    amount={"send": 9e4, "correct": 5e4, "cancel": 1.0}[kind], pset=security["pset"],
                    account=mine[0]["account"] if mine and kind == "send" else "OTHER", trade_date=trade_date,
                    intended_settlement_date=CALENDAR.add(trade_date, 2),
                )  # fmt: skip
            elif kind == "rebook":
                trade(moment, later, quantity=50)
            elif kind in {"settle", "settle_in_part"}:
                tell("settlement_confirmations", SettlementConfirmation, moment, later, instruction_id=f"I-{number}",
                     quantity=100 if kind == "settle" else 40)  # fmt: skip
            else:
                status, reason = STATUSES[kind]
                tell("settlement_status", SettlementStatus, moment, later, instruction_id=f"I-{number}", status=status,
                     reason=reason)  # fmt: skip
    for day, which, quantity, later in evenings:
        evening = datetime.combine(CALENDAR.add(FIRST, day), SLOTS["end_of_trade_date"][0], tzinfo=UTC)
        isin = securities[which % len(securities)]["isin"]
        tell("inventory_positions", InventoryPosition, evening, later, isin=isin, available_quantity=quantity)
        tell("securities_lending", SecuritiesLending, evening, later, isin=isin, fee_bp=abs(quantity) / 5.0,
             utilisation=0.5)  # fmt: skip
    return found


def features(history: dict[str, list[Known]], reference_data: dict[str, pa.Table], decision: DecisionTime) -> pa.Table:
    """The features as of a decision, from events that are curated first, all of them."""
    tables = {spec.name: curated(spec, history[spec.name]) for spec in USE_CASE.events if history[spec.name]}
    with AsOfDatabase(USE_CASE, tables, reference_data, threads=1) as db:
        return db.features(decision)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trades=TRADES, evenings=EVENINGS, day=st.integers(1, DAYS - 1), slot=st.sampled_from(list(SLOTS)))
def test_features_are_those_of_a_history_cut_at_the_decision(reference_data, trades, evenings, day, slot):
    """Guards curation as well: a newer version counts from when it was known, so a correction cannot reach back."""
    decision = DecisionTime(slot, datetime.combine(CALENDAR.add(FIRST, day), SLOTS[slot][0], tzinfo=UTC))
    history = landed(reference_data, trades, evenings)
    cut = {name: [known for known in rows if known[1] <= decision.as_of] for name, rows in history.items()}
    known_references = {
        name: rows.filter(pc.less_equal(rows["known_at"], pa.scalar(decision.as_of, TIMESTAMP)))
        for name, rows in reference_data.items()
    }
    whole = features(history, reference_data, decision)
    event("decisions" if whole.num_rows else "nothing to decide")
    event("something came later" if cut != history else "nothing came later")
    assert whole.equals(features(cut, known_references, decision))


def test_the_histories_above_have_decisions_that_later_events_would_change(reference_data):
    """Guards the property: what is known in time does change features, what comes late does not."""
    steps = [("send", 1, 0), ("unmatch", 20, 0), ("settle_in_part", 21, 0)]
    trades = [(0, 0, n, "DELI", steps) for n in range(4)]
    decision = DecisionTime(
        "isd_minus_1", datetime.combine(CALENDAR.add(FIRST, 1), SLOTS["isd_minus_1"][0], tzinfo=UTC)
    )
    before = features(landed(reference_data, trades, []), reference_data, decision)
    assert before.num_rows == 4
    cancelled = [(*trade[:4], [("cancel", 0, 0), *trade[4]]) for trade in trades]
    assert features(landed(reference_data, cancelled, []), reference_data, decision).equals(before), "quarantined"
    corrected = [(*trade[:4], [*trade[4], ("correct", 2, 0)]) for trade in trades]
    assert not features(landed(reference_data, corrected, []), reference_data, decision).equals(before)
    matched = [(*trade[:4], [*trade[4], ("match", 22, 0)]) for trade in trades]
    assert not features(landed(reference_data, matched, []), reference_data, decision).equals(before)
    held = [(*trade[:4], [*trade[4], ("hold", 2, 0)]) for trade in trades]
    on_hold = features(landed(reference_data, held, []), reference_data, decision)
    assert not on_hold.equals(before)
    released = [(*trade[:4], [*trade[4], ("release", 22, 0)]) for trade in held]
    assert features(landed(reference_data, released, []), reference_data, decision).equals(before)
    late = [(*trade[:4], [*trade[4], ("match", 22, 45), ("release", 22, 45)]) for trade in held]
    assert features(landed(reference_data, late, []), reference_data, decision).equals(on_hold)
