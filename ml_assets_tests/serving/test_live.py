"""The live table says what the batch says: feature for feature, whatever has landed and in whatever order."""

from datetime import UTC, datetime, time, timedelta
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import AsOfDatabase
from ml_assets.lake import Lake, curated_table, landing_table, reference_table
from ml_assets.landing.schemas import PARTITIONED_BY, landing_schema
from ml_assets.local.simulation.market import Market, MarketConfig
from ml_assets.serving.clock import clock_of
from ml_assets.serving.history import LiveHistory
from ml_assets.serving.scoring import STALE_AFTER, Served
from ml_assets.serving.table import make_table, what_if_rows
from ml_assets.spec import DecisionTime
from ml_assets_tests.usecases.settlement import USE_CASE

MARKET = MarketConfig(days=8, instructions_per_day=30, counterparties=3, securities=8, dirty=0)


@pytest.fixture
def last(market: Market) -> datetime:
    return datetime.combine(market.world.calendar[MARKET.days - 1], time(7), tzinfo=UTC)


@pytest.fixture
def filled(lake: Lake, events: dict[str, pa.Table], market_references: dict[str, pa.Table]) -> Lake:
    """A lake whose curated tables hold the whole market, and whose landing tables are empty."""
    for event in USE_CASE.events:
        rows = events[event.name]
        lake.replace(curated_table(USE_CASE, event), rows, "business_date", rows["business_date"].unique().to_pylist())
    for reference in USE_CASE.references:
        lake.overwrite(reference_table(USE_CASE, reference), market_references[reference.name])
    return lake


def batch(events: dict[str, pa.Table], references: dict[str, pa.Table], decision: DecisionTime) -> pa.Table:
    with AsOfDatabase(USE_CASE, events, references, threads=1) as history:
        return history.features(decision)


def test_at_the_time_of_a_slot_a_live_row_is_the_batch_s(
    filled: Lake, events: dict[str, pa.Table], market_references: dict[str, pa.Table], last: datetime
) -> None:
    for slot in USE_CASE.slots:
        at = datetime.combine(last.date(), slot.at, tzinfo=UTC)
        history = LiveHistory(filled, USE_CASE)
        history.look(at.date())
        table = make_table(USE_CASE, history.database(), at, history.newest)
        expected = batch(events, market_references, DecisionTime(slot.name, at))
        assert expected.num_rows
        mine = table.rows.filter(pc.equal(table.rows["slot"], slot.name)).sort_by("entity_id")
        assert mine.to_pylist() == expected.to_pylist()


def test_on_a_saturday_the_slots_are_those_of_friday() -> None:
    saturday = datetime(2026, 1, 17, 11, tzinfo=UTC)
    slots = USE_CASE.slots_at(saturday)
    assert {slot.decision_date for slot in slots} == {saturday.date() - timedelta(days=1)}
    assert [slot.slot for slot in slots] == ["end_of_trade_date", "isd_minus_1", "isd_morning"]
    assert [slot.slot for slot in USE_CASE.slots_at(datetime(2026, 1, 16, 16, tzinfo=UTC))] == [
        "isd_minus_1", "isd_morning", "end_of_trade_date",
    ]  # fmt: skip


def test_what_lands_is_in_the_table_without_an_ingestion(
    filled: Lake, events: dict[str, pa.Table], market_references: dict[str, pa.Table], last: datetime
) -> None:
    """Landed rows of a date, its history before and the daily parts agree with a batch that has ingested them all."""
    event = USE_CASE.event("settlement_status")
    rows = events[event.name]
    day = last.date()
    is_today = pc.equal(rows["business_date"], pa.scalar(day, pa.date32()))
    filled.replace(curated_table(USE_CASE, event), rows.filter(pc.invert(is_today)), "business_date",
                   rows["business_date"].unique().to_pylist())  # fmt: skip
    at = datetime.combine(day, time(15), tzinfo=UTC)
    history = LiveHistory(filled, USE_CASE)
    history.look(day)
    before = make_table(USE_CASE, history.database(), at, history.newest)

    land(filled, rows.filter(is_today), at)
    assert history.look(day)
    after = make_table(USE_CASE, history.database(), at, history.newest)

    expected = batch(events, market_references, DecisionTime("isd_minus_1", at))
    mine = after.rows.filter(pc.equal(after.rows["slot"], "isd_minus_1")).sort_by("entity_id")
    assert mine.to_pylist() == expected.to_pylist()
    assert before.rows.sort_by("entity_id").to_pylist() != after.rows.sort_by("entity_id").to_pylist()
    assert not history.look(day)


def test_what_if_rows_are_those_that_would_be_if_it_had_been_booked(
    filled: Lake, events: dict[str, pa.Table], market_references: dict[str, pa.Table], last: datetime
) -> None:
    event = USE_CASE.event("settlement_instructions")
    at = datetime.combine(last.date(), time(15), tzinfo=UTC)
    history = LiveHistory(filled, USE_CASE)
    history.look(at.date())
    table = make_table(USE_CASE, history.database(), at, history.newest)
    booked = batch(events, market_references, DecisionTime("isd_minus_1", at))
    template = events[event.name].filter(pc.equal(events[event.name]["instruction_id"], booked["entity_id"][0]))
    row = template.slice(0, 1)
    for name, value in {"instruction_id": "WHAT-IF", "event_id": "WHAT-IF", "amount": 5e6}.items():
        at_column = row.column_names.index(name)
        row = row.set_column(at_column, row.schema.field(name), pa.array([value], row.schema.field(name).type))
    for name in ("known_at", "broker_time"):
        row = row.set_column(row.column_names.index(name), row.schema.field(name), pa.array([at], TIMESTAMP))

    asked = what_if_rows(USE_CASE, table, {event.name: row}, ["WHAT-IF", "NOBODY", *booked["entity_id"].to_pylist()])

    expected = batch({**events, event.name: pa.concat_tables([events[event.name], row])}, market_references,
                     DecisionTime("isd_minus_1", at))  # fmt: skip
    mine = asked.filter(pc.equal(asked["slot"], "isd_minus_1")).sort_by("entity_id")
    assert "WHAT-IF" in mine["entity_id"].to_pylist()
    assert mine.to_pylist() == expected.to_pylist()
    # The table itself has not changed.
    again = make_table(USE_CASE, table.history, at, table.newest_event)
    assert again.rows.to_pylist() == table.rows.to_pylist()
    assert what_if_rows(USE_CASE, table, {}, ["WHAT-IF"]).num_rows == 0


@pytest.mark.parametrize("behind", [timedelta(hours=1), timedelta(days=90)], ids=["live", "played again"])
def test_the_clock_is_that_of_the_events_once_history_is_seen_to_be_played_again(
    lake: Lake, events: dict[str, pa.Table], behind: timedelta
) -> None:
    """Guards a service that was there before the first event, and stood at another time than its events for ever."""
    rows = events["settlement_status"].sort_by("known_at")
    known = rows["known_at"].to_pylist()
    clock = clock_of(lake, [USE_CASE])
    assert abs(clock() - datetime.now(UTC)) < timedelta(minutes=1)
    for number, until in enumerate((len(known) // 2, len(known))):
        land(lake, rows.slice(0, until), known[until - 1] + behind, turn=number)
        if behind > timedelta(days=1):
            assert clock() == known[until - 1]
        else:
            assert abs(clock() - datetime.now(UTC)) < timedelta(minutes=1)
    assert clock_of(lake, [USE_CASE], known[0])() == known[0]


def test_what_was_landed_while_the_table_was_made_is_in_the_next(
    lake: Lake, events: dict[str, pa.Table], last: datetime
) -> None:
    """Guards a message that was known a moment after the table's time, and was in no table for half a minute."""
    rows = events["settlement_status"].sort_by("known_at")
    rows = rows.filter(pc.greater(rows["known_at"], pa.scalar(last, TIMESTAMP)))
    known: datetime = rows["known_at"][0].as_py()
    now = known - timedelta(milliseconds=1)
    served = Served(lake, USE_CASE, _nobody, _nobody, lambda: now, threads=1)
    land(lake, rows.slice(0, 1), known)
    assert served.look_at_data()
    assert not served.look_at_data()
    now = known
    assert served.look_at_data()
    assert not served.look_at_data()


def test_a_clock_that_is_set_back_decides_nothing_again_and_it_is_said(
    filled: Lake, events: dict[str, pa.Table], market_references: dict[str, pa.Table], last: datetime
) -> None:
    """Guards decisions of an hour ago beside newer ones, and a table that grows old while no clock says so."""
    at = datetime.combine(last.date(), time(15), tzinfo=UTC)
    now = at
    served = Served(filled, USE_CASE, _nobody, _nobody, lambda: now, threads=1)
    assert served.look_at_data()
    now = at - STALE_AFTER  # no more than a table may lag
    assert not served.look_at_data()
    assert not served.clock_trouble
    now = at - timedelta(hours=1)
    assert not served.look_at_data()
    assert served.is_stale() == "the clock was set back, by 3,600 seconds or more"
    assert as_of(served) == at

    # What lands meanwhile is known, and decided as of the time that was reached.
    event = USE_CASE.event("settlement_status")
    rows = events[event.name]
    open_now = batch(events, market_references, DecisionTime("isd_minus_1", at))["entity_id"][0].as_py()
    row = rows.slice(0, 1)
    given = {"event_id": "NEW", "instruction_id": open_now, "status": "NMAT", "reason": "DDEA", "event_time": now,
             "known_at": now, "broker_time": now, "business_date": at.date()}  # fmt: skip
    for name, value in given.items():
        row = row.set_column(row.column_names.index(name), row.schema.field(name), pa.array([value], row[name].type))
    today = pc.equal(rows["business_date"], pa.scalar(at.date(), pa.date32()))
    land(filled, pa.concat_tables([rows.filter(today), row]), now)
    assert served.look_at_data()
    assert as_of(served) == at
    happened = {**events, event.name: pa.concat_tables([rows, row])}
    expected = batch(happened, market_references, DecisionTime("isd_minus_1", at))
    mine = served.table.rows.filter(pc.equal(served.table.rows["slot"], "isd_minus_1")).sort_by("entity_id")
    assert mine.to_pylist() == expected.to_pylist()

    now = at + timedelta(minutes=1)
    assert served.look_at_data()
    assert (served.clock_trouble, as_of(served)) == ("", now)


def test_a_machine_whose_clock_is_behind_the_lander_s_says_so(
    filled: Lake, events: dict[str, pa.Table], last: datetime
) -> None:
    """Guards a service that starts after its clock was set back: what has landed since is in none of its tables."""
    ahead = datetime.now(UTC) + timedelta(hours=1)
    land(filled, events["settlement_status"].slice(0, 1), ahead)
    served = Served(filled, USE_CASE, _nobody, _nobody, lambda: last, threads=1)
    served.look_at_data()
    served.look_at_data()
    assert served.is_stale() == (
        f"events have landed at {ahead:%Y-%m-%d %H:%M:%S} UTC, which this clock is yet to reach"
    )


def as_of(served: Served) -> datetime:
    assert served.table is not None
    return served.table.as_of


def _nobody(*_: object) -> NoReturn:
    raise AssertionError("nothing but the lake is asked")


def land(lake: Lake, rows: pa.Table, landed_at: datetime, *, turn: int = 0) -> None:
    """Append statuses to their landing table; the first turn is 0."""
    event = USE_CASE.event("settlement_status")
    schema = landing_schema(event)
    given = {**{name: rows[name] for name in rows.column_names}, "kind": pa.array(["event"] * rows.num_rows)}
    given["landed_at"] = pa.array([landed_at] * rows.num_rows, TIMESTAMP)
    columns = [
        given[field.name].cast(field.type) if field.name in given else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    appender = lake.appender(landing_table(event.topic), PARTITIONED_BY)
    assert appender.append(pa.table(columns, schema=schema), {"test": turn}, {"test": turn + 1})
