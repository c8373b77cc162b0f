"""What the slots of settlement_fails promise: the day's and the next day's list have all that is open, and no more."""

from collections import defaultdict
from dataclasses import replace
from datetime import date, datetime, time, timedelta

import pyarrow as pa
import pytest

from ml_assets.features import AsOfDatabase
from ml_assets.local.simulation.market import Market, MarketConfig
from ml_assets.spec import OutcomeDates, Slot
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

MARKET = MarketConfig(days=6, instructions_per_day=20, counterparties=6, securities=20)


def with_cancellations(events: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Each fourth instruction is cancelled twelve hours after it was known, which the market's own seldom are."""
    statuses = events["settlement_status"]
    template = statuses.slice(0, 1).to_pylist()[0]
    times = [name for name in statuses.schema.names if isinstance(template[name], datetime)]
    cancelled = []
    for number, row in enumerate(events["settlement_instructions"].to_pylist()[::4]):
        said = row["known_at"] + timedelta(hours=12)
        known = {"instruction_id": row["instruction_id"], "status": "CANC", "reason": None, "event_id": f"C{number}"}
        cancelled.append(template | dict.fromkeys(times, said) | known | {"business_date": row["business_date"]})
    rows = pa.concat_tables([statuses, pa.Table.from_pylist(cancelled, schema=statuses.schema)])
    return events | {"settlement_status": rows}


def test_who_is_not_decided_again_has_settled_was_cancelled_or_moved(
    market: Market, events: dict[str, pa.Table], market_references: dict[str, pa.Table]
) -> None:
    """Guards the work-list against a slot that says it decides everything open (`days_before`) and leaves some out."""
    events = with_cancellations(events)
    days = sorted(events["settlement_instructions"]["business_date"].unique().to_pylist())
    decisions = [decision for day in days for decision in USE_CASE.decision_times(day)]
    with AsOfDatabase(USE_CASE, events, market_references, threads=2) as db:
        rows = db.features_at(decisions).select(["entity_id", "decision_time", "outcome_date"]).to_pylist()
    decided: dict[object, set[tuple[str, date]]] = defaultdict(set)
    for row in rows:
        decided[row["decision_time"]].add((row["entity_id"], row["outcome_date"]))
    instructions = events["settlement_instructions"].to_pylist()
    left = 0
    for number, decision in enumerate(decisions):
        if (span := USE_CASE.decides_all(decision)) is None:
            assert decision.slot == "end_of_trade_date"
            continue
        assert span.first == span.last
        earlier = set().union(*(decided[before.as_of] for before in decisions[:number]))
        for entity, outcome in sorted(earlier - decided[decision.as_of]):
            if outcome != span.first:
                continue
            left += 1
            versions = [r for r in instructions if r["instruction_id"] == entity and r["known_at"] <= decision.as_of]
            newest = max(versions, key=lambda row: row["known_at"])
            settled = sum(
                row["quantity"]
                for row in events["settlement_confirmations"].to_pylist()
                if row["instruction_id"] == entity and row["known_at"] <= decision.as_of
            )
            cancelled = any(
                row["instruction_id"] == entity
                and row["status"] in {"CANC", "CAND"}
                and row["known_at"] <= decision.as_of
                for row in events["settlement_status"].to_pylist()
            )
            moved = newest["intended_settlement_date"] != outcome
            assert settled >= newest["quantity"] or cancelled or moved, (entity, decision)
    assert left > 0, "nobody left a list, so this has shown nothing"


def test_of_which_outcome_dates_a_slot_decides_everything() -> None:
    """Before a long weekend the next business day is meant; onwards also counts outcomes on days in between."""
    thursday = date(2026, 4, 2)  # Thursday before Good Friday; TARGET opens again on Tuesday
    target = replace(USE_CASE, places=None)
    morning, afternoon, evening = target.decision_times(thursday)
    assert target.decides_all(morning) == OutcomeDates(thursday, thursday)
    assert target.decides_all(afternoon) == OutcomeDates(date(2026, 4, 7), date(2026, 4, 7))
    assert target.decides_all(evening) is None
    assert target.decides_all(replace(evening, slot="of last year")) is None
    for days, first in ((0, thursday), (1, date(2026, 4, 3)), (2, date(2026, 4, 8))):
        slots = (Slot("evening", time(20), days_before=days, onwards=True),)
        onwards = replace(USE_CASE, slots=slots, places=None)
        assert onwards.decides_all(onwards.decision_times(thursday)[0]) == OutcomeDates(first)
    for wrong in ({"days_before": -1}, {"onwards": True}):
        with pytest.raises(ValueError, match="slot evening"):
            Slot("evening", time(20), **wrong)


def test_a_place_that_is_closed_keeps_its_decisions_on_the_list() -> None:
    """Guards lists that lose what a closed place decides on another day: New York is open on Easter Monday."""
    thursday, monday, tuesday = date(2026, 4, 2), date(2026, 4, 6), date(2026, 4, 7)
    _, before, _ = USE_CASE.decision_times(thursday)
    _, between, _ = USE_CASE.decision_times(monday)
    assert USE_CASE.decides_all(before) == OutcomeDates(monday, monday), "of Monday's outcomes all are in New York"
    assert USE_CASE.decides_all(between) is None, "those of Tuesday at TARGET were decided on Thursday"
    assert USE_CASE.decides_all(USE_CASE.decision_times(tuesday)[0]) == OutcomeDates(tuesday, tuesday)
