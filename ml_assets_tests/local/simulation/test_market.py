"""Messages and files of the simulated market: what a consumer of the real ones would rely on."""

import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from ml_assets.landing.reference import read_reference
from ml_assets.local.simulation.identifiers import is_isin, is_lei
from ml_assets.local.simulation.market import Change, simulate
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.local.simulation.conftest import SMALL

CONTRACTS = {event.topic: event.contract for event in USE_CASE.events}
HOUR = 3_600_000


def events_of(messages, topic):
    """The decoded events of a topic, in order."""
    return [msgspec.json.decode(m.value, type=CONTRACTS[topic]) for m in messages if m.topic == topic]


@pytest.fixture(scope="module")
def messages(market):
    return list(market.messages())


def test_the_same_seed_gives_the_same_market(messages, tmp_path):
    again, other = simulate(SMALL), simulate(replace(SMALL, seed=1))
    assert list(again.messages()) == messages
    assert list(other.messages()) != messages
    assert list(again.messages()) == messages, "a market can be told twice"


def test_clean_messages_keep_their_contracts_and_come_in_order(market, messages):
    assert len(messages) == market.message_count
    assert set(market.topics) == set(CONTRACTS) == {m.topic for m in messages}
    assert all(earlier.timestamp_ms <= later.timestamp_ms for earlier, later in pairwise(messages))
    ids = Counter()
    for message in messages:
        event = msgspec.json.decode(message.value, type=CONTRACTS[message.topic])
        ids[event.event_id] += 1
        delay = message.timestamp_ms - event.event_time.timestamp() * 1000
        assert 0 <= delay <= 20_000, "known before it happened, or late"
    assert max(ids.values()) == 1


def test_some_event_is_known_in_the_last_evening(market, messages):
    """The newest record tells until when all has landed, and so which outcomes count."""
    last_day = market.world.calendar[market.config.days - 1]
    newest = datetime.fromtimestamp(messages[-1].timestamp_ms / 1000, UTC)
    assert newest.date() == last_day
    assert newest.time().isoformat() > "20:30"


def test_nothing_happens_on_a_weekend(messages):
    """Trades of Friday match on Friday evening or on Monday."""
    days = {datetime.fromtimestamp(m.timestamp_ms / 1000, UTC).weekday() for m in messages}
    assert days == {0, 1, 2, 3, 4}


def test_identifiers_are_standard(messages):
    trades = events_of(messages, "trades")
    instructions = events_of(messages, "settlement_instructions")
    assert all(is_isin(trade.isin) and is_lei(trade.counterparty_lei) for trade in trades)
    assert all(is_lei(trade.uti[:20]) and len(trade.uti) <= 52 for trade in trades)
    assert {i.uti for i in instructions} <= {trade.uti for trade in trades}
    assert all(re.fullmatch("[A-Z]{6}[A-Z0-9]{2}XXX", i.pset) for i in instructions)
    sides = {trade.uti: trade.side for trade in trades}
    assert all((i.movement == "DELI") == (sides[i.uti] == "SELL") for i in instructions)


def test_the_reason_of_a_fail_comes_with_the_fail(messages):
    """After the last cut-off: a model that sees such a reason sees the outcome."""
    due = {i.instruction_id: i.intended_settlement_date for i in events_of(messages, "settlement_instructions")}
    fails = [s for s in events_of(messages, "settlement_status") if s.status == "PENF"]
    assert fails
    for fail in fails:
        assert fail.reason is not None
        assert fail.event_time.date() == due[fail.instruction_id]
        assert fail.event_time.hour >= 17


def test_what_is_not_matched_says_why_and_what_is_matched_does_not(messages):
    reasons = {"MACH": set(), "NMAT": set(), "PEND": set()}
    for status in events_of(messages, "settlement_status"):
        reasons.get(status.status, set()).add(status.reason)
    assert reasons["MACH"] == {None}
    assert reasons["NMAT"] == {"CMIS", "DDAT", "DDEA", "DMON", "DEPT"}
    assert reasons["PEND"] == {"LACK", "PREA", "FUTU"}


def test_an_instruction_on_hold_is_released_or_fails_for_it(market, messages):
    """Its statuses are told in order: on hold once it is sent, released before its date, or else PREA if it fails."""
    last_day = market.world.calendar[market.config.days - 1]
    instructions = events_of(messages, "settlement_instructions")
    sent = {i.instruction_id: i for i in instructions if i.intended_settlement_date <= last_day}
    told = {}
    for status in events_of(messages, "settlement_status"):
        if status.instruction_id in sent and status.status in {"PEND", "PENF"}:
            told.setdefault(status.instruction_id, []).append(status)
    held = {name: rows for name, rows in told.items() if rows[0].reason == "PREA"}
    assert 0.02 < len(held) / len(sent) < 0.06
    assert {rows[0].status for rows in held.values()} == {"PEND"}
    released = {name: rows for name, rows in held.items() if "FUTU" in {row.reason for row in rows}}
    assert 0.5 < len(released) / len(held) < 1
    for name, rows in held.items():
        assert timedelta(0) < rows[0].event_time - sent[name].event_time < timedelta(hours=1)
        reasons = [row.reason for row in rows]
        if name in released:
            assert reasons[1] == "FUTU"
            assert rows[1].event_time.date() < sent[name].intended_settlement_date
            assert "PREA" not in reasons[1:]
        else:
            assert set(reasons) == {"PREA"}, "nobody tries to settle it"
    assert not any("PREA" in {row.reason for row in rows} for name, rows in told.items() if name not in held)


def test_no_more_settles_than_was_instructed_and_fails_settle_late(messages):
    instructed = {i.instruction_id: i for i in events_of(messages, "settlement_instructions")}
    settled, late = Counter(), 0
    for confirmation in events_of(messages, "settlement_confirmations"):
        settled[confirmation.instruction_id] += confirmation.quantity
        late += confirmation.event_time.date() > instructed[confirmation.instruction_id].intended_settlement_date
    assert late > 0
    assert all(quantity <= instructed[name].quantity for name, quantity in settled.items())
    partial = [name for name, quantity in settled.items() if quantity < instructed[name].quantity]
    assert partial, "none is settled in part"


@pytest.mark.parametrize("dirty", [0.04, 0.4])
def test_dirt_is_of_every_kind_and_of_about_its_share(messages, dirty):
    soiled = list(simulate(replace(SMALL, dirty=dirty)).messages())
    events, broken, refused = [], 0, 0
    for message in soiled:
        try:
            event = msgspec.json.decode(message.value, type=CONTRACTS[message.topic])
        except msgspec.DecodeError:
            broken += 1
            continue
        if getattr(event, "quantity", 1) < 0:
            refused += 1
        else:
            events.append((message, event))
    ids = Counter(event.event_id for _, event in events)
    counts = {
        "malformed": broken + refused,
        "duplicate": ids.total() - len(ids),
        "late": sum(m.timestamp_ms - e.event_time.timestamp() * 1000 > 0.9 * HOUR for m, e in events),
        "disordered": sum(later.timestamp_ms < earlier.timestamp_ms for earlier, later in pairwise(soiled)),
    }
    expected = dirty / 4 * len(messages)
    assert refused > 0
    for kind, count in counts.items():
        assert 0.6 * expected < count < 1.4 * expected, (kind, counts, expected)


def test_dirt_loses_nothing_but_what_is_still_on_its_way(messages):
    clean = {msgspec.json.decode(m.value)["event_id"] for m in messages}
    soiled = set()
    for message in simulate(replace(SMALL, dirty=0.1)).messages():
        try:
            soiled.add(msgspec.json.decode(message.value, type=CONTRACTS[message.topic]).event_id)
        except msgspec.DecodeError:
            continue
    lost = clean - soiled
    assert len(lost) < 0.01 * len(clean)
    recent = SMALL.start + timedelta(days=4)
    times = {e["event_id"]: e["event_time"] for e in (msgspec.json.decode(m.value) for m in messages)}
    assert all(times[event_id][:10] >= recent.isoformat() for event_id in lost)


def test_reference_files_keep_their_contracts(market, tmp_path):
    market.write_reference(tmp_path)
    for reference in USE_CASE.references:
        rows, refused = read_reference(str(tmp_path), USE_CASE.name, reference)
        assert rows.num_rows > 0
        assert refused.num_rows == 0
        versions = Counter(tuple(row[name] for name in (*reference.key, "valid_from")) for row in rows.to_pylist())
        assert max(versions.values()) == 1, f"{reference.name} has two versions from one date"


def test_every_message_finds_its_reference_data(market, messages, tmp_path):
    market.write_reference(tmp_path)
    known = {r.name: read_reference(str(tmp_path), USE_CASE.name, r)[0].to_pylist() for r in USE_CASE.references}
    accounts = {(row["lei"], row["pset"], row["account"]) for row in known["standing_settlement_instructions"]}
    psets = {row["isin"]: row["pset"] for row in known["securities"]}
    for instruction in events_of(messages, "settlement_instructions"):
        assert psets[instruction.isin] == instruction.pset
        assert (instruction.counterparty_lei, instruction.pset, instruction.account) in accounts
    assert {row["pset"] for row in known["cut_offs"]} >= set(psets.values())
    classes = {row["asset_class"] for row in known["securities"]}
    assert {row["asset_class"] for row in known["penalty_rates"]} == classes


def test_who_acts_in_the_course_of_the_market_sees_the_same_market_and_what_is_saved_settles_in_time(market):
    """Guards a rehearsal whose fails happen although they were saved, or that is another market for who acts."""
    times = [datetime(2026, 1, day, 7, tzinfo=UTC) for day in (5, 7, 9)] + [datetime(2026, 1, 14, tzinfo=UTC)]
    spans = list(pairwise(times))
    without = [message for span in spans for message in market.between(*span)]
    failed = {one.instruction_id for one in events_of(without, "settlement_status") if one.status == "PENF"}
    saved = sorted(failed)[::2]
    told = [message for span in spans for message in market.between(*span, saved)]
    assert all(a.timestamp_ms <= b.timestamp_ms for a, b in pairwise(market.between(*spans[0])))
    still = {one.instruction_id for one in events_of(told, "settlement_status") if one.status == "PENF"}
    assert still == failed - set(saved)
    confirmed = Counter(one.instruction_id for one in events_of(told, "settlement_confirmations"))
    assert {confirmed[one] for one in saved} == {1}
    for topic in set(market.topics) - {"settlement_status", "settlement_confirmations"}:
        assert events_of(told, topic) == events_of(without, topic)
    first = [m for m in market.messages() if m.timestamp_ms >= times[0].timestamp() * 1000]
    assert Counter(m.topic for m in first) == Counter(m.topic for m in without)


def test_a_change_is_in_force_from_its_first_day_to_its_end():
    changes = (Change("stress", 2, 4), Change("counterparty", 3))
    changed = simulate(replace(SMALL, changes=changes)).world
    days = np.arange(SMALL.days)
    assert (changed.stress > 0).tolist() == [False, False, True, True, False, False]
    assert (changed.degraded(days, np.zeros(SMALL.days, dtype=int)) > 0).tolist() == [False] * 3 + [True] * 3
    assert not changed.degraded(days, np.ones(SMALL.days, dtype=int)).any(), "the others do as they did"


def test_what_is_instructed_late_fails_far_more_once_that_has_changed():
    changed = simulate(replace(SMALL, changes=(Change("late", 3),))).instructions
    before = simulate(SMALL).instructions
    assert np.array_equal(changed.late, before.late)
    for slot, p in changed.probability.items():
        refused = changed.late & (changed.day >= 3)
        assert np.array_equal(p[~refused], before.probability[slot][~refused])
        assert np.median(p[refused]) > 5 * np.median(before.probability[slot][refused])
