"""Places of settlement with business days of their own: decisions and outcomes follow the calendar of their place."""

from datetime import date

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import TIMESTAMP
from ml_assets.features import AsOfDatabase
from ml_assets.features.sound import lacking
from ml_assets.lake import Lake, curated_table, features_table, reference_table
from ml_assets.lifecycle.features import compute_features, decisions_about, open_history
from ml_assets.lifecycle.horizons import horizons_of
from ml_assets.lifecycle.training import closed_labels
from ml_assets.lifecycle.waiting import what_lacks
from ml_assets.spec import DecisionTime
from ml_assets.usecases.settlement_fails.places import CALENDARS
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.usecases.settlement import curated_by_hand
from ml_assets_tests.usecases.test_settlement_fails import Desk, at

NEW_YORK, FRANKFURT = "DTCYUS33XXX", "DAKVDEFFXXX"
MAY_DAY = date(2026, 5, 1)  # a Friday: TARGET is closed, New York is open


def with_cut_off(references, place, cut_off="20:00"):
    """The references, with a cut-off of one place more."""
    cut_offs = references["cut_offs"]
    row = {**cut_offs.to_pylist()[0], "pset": place, "cut_off": cut_off}
    return {**references, "cut_offs": pa.concat_tables([cut_offs, pa.Table.from_pylist([row], schema=cut_offs.schema)])}


def instruction_at(desk, place, trade_date, settles, name="I-1"):
    return msgspec.structs.replace(
        desk.instruction, event_id=name, instruction_id=name, event_time=at(trade_date, 10), pset=place,
        trade_date=trade_date, intended_settlement_date=settles,
    )  # fmt: skip


def decided(references, *instructions, first, last):
    """What is decided from one date to another: the slots and dates of each instruction."""
    found: dict[str, list[tuple[str, date]]] = {}
    with AsOfDatabase(
        USE_CASE, curated_by_hand({"settlement_instructions": instructions}), references, threads=1
    ) as db:
        for day in USE_CASE.decision_dates(first, last):
            for row in db.features_at(USE_CASE.decision_times(day)).to_pylist():
                found.setdefault(row["entity_id"], []).append((row["slot"], row["decision_date"]))
    return found


def test_a_place_that_is_open_while_target_is_closed_is_decided_in_all_slots_and_labelled(reference_data):
    """Guards: a US security that settles on 1 May got one decision and no label, and nothing said so."""
    desk = Desk(with_cut_off(reference_data, NEW_YORK))
    thursday = date(2026, 4, 30)
    american = instruction_at(desk, NEW_YORK, thursday, MAY_DAY)
    german = instruction_at(desk, FRANKFURT, date(2026, 4, 29), date(2026, 5, 4), "I-2")
    found = decided(desk.references, american, german, first=date(2026, 4, 29), last=date(2026, 5, 4))
    assert found == {
        "I-1": [("isd_minus_1", thursday), ("end_of_trade_date", thursday), ("isd_morning", MAY_DAY)],
        "I-2": [
            ("end_of_trade_date", date(2026, 4, 29)),
            ("isd_minus_1", thursday),
            ("isd_morning", date(2026, 5, 4)),
        ],
    }
    with AsOfDatabase(
        USE_CASE, curated_by_hand({"settlement_instructions": [american]}), desk.references, threads=1
    ) as db:
        rows = db.features(DecisionTime("isd_morning", at(MAY_DAY, 7)))
        assert db.labels(MAY_DAY, rows, calendar=CALENDARS[NEW_YORK])["label"].to_pylist() == [1]


@settings(max_examples=5, deadline=None)
@given(day=st.dates(date(2026, 3, 20), date(2026, 7, 10)), place=st.sampled_from([*CALENDARS, "UNKNOWN"]))
def test_an_instruction_is_decided_on_the_business_days_of_its_place_alone(reference_data, day, place):
    """Whatever other places do: each slot on its own business days, none on others."""
    desk = Desk(reference_data)
    calendar = CALENDARS.get(place, USE_CASE.calendar)
    trade_date = day if calendar.is_business_day(day) else calendar.next(day)
    settles = calendar.add(trade_date, 2)
    found = decided(
        with_cut_off(reference_data, place) if place not in reference_data["cut_offs"]["pset"].to_pylist()
        else reference_data,
        instruction_at(desk, place, trade_date, settles), first=trade_date, last=settles,
    )  # fmt: skip
    assert found["I-1"] == [
        ("end_of_trade_date", trade_date),
        ("isd_minus_1", calendar.previous(settles)),
        ("isd_morning", settles),
    ]


def test_nothing_is_decided_once_the_cut_off_has_passed(reference_data):
    """Guards: what traded and settled on one day was decided in the evening, after its outcome."""
    desk = Desk(with_cut_off(reference_data, NEW_YORK, "21:00"))
    day = date(2026, 1, 8)
    over = instruction_at(desk, FRANKFURT, day, day, "I-1")
    still_open = instruction_at(desk, NEW_YORK, day, day, "I-2")
    assert decided(desk.references, over, still_open, first=day, last=day) == {"I-2": [("end_of_trade_date", day)]}


def test_a_place_without_calendar_and_one_that_is_closed_are_counted_by_name(reference_data):
    desk = Desk(with_cut_off(with_cut_off(reference_data, "SOMEWHEREXX"), NEW_YORK))
    day = date(2026, 1, 15)
    closed = date(2026, 1, 19)  # Martin Luther King's Day
    events = curated_by_hand(
        {
            "settlement_instructions": [
                instruction_at(desk, "SOMEWHEREXX", day, date(2026, 1, 16), "I-1"),
                instruction_at(desk, NEW_YORK, day, closed, "I-2"),
                instruction_at(desk, FRANKFURT, day, closed, "I-3"),
            ]
        }
    )
    with AsOfDatabase(USE_CASE, events, desk.references, threads=1) as db:
        rows = db.features(DecisionTime("end_of_trade_date", at(day, 20)))
    assert rows.num_rows == 3
    assert lacking(USE_CASE, rows) == {
        "pset SOMEWHEREXX: has no calendar, so that of ECB counts; name it in usecase.py": 1,
        f"pset {NEW_YORK}: is closed on the outcome date, {closed}": 1,
    }


@pytest.fixture
def lake(tmp_path, reference_data):
    """Two instructions that settle on the Friday before Martin Luther King's Day, one in New York, one in Frankfurt."""
    lake = Lake(str(tmp_path / "lake"))
    desk = Desk(with_cut_off(reference_data, NEW_YORK))
    friday = date(2026, 1, 16)
    rows = [
        instruction_at(desk, place, date(2026, 1, 14), friday, name)
        for name, place in (("I-1", FRANKFURT), ("I-2", NEW_YORK))
    ]
    for name, table in curated_by_hand({"settlement_instructions": rows}).items():
        lake.replace(curated_table(USE_CASE, USE_CASE.event(name)), table, "business_date", [date(2026, 1, 14)])
    for reference in USE_CASE.references:
        lake.overwrite(reference_table(USE_CASE, reference), desk.references[reference.name])
    return lake


def test_what_lacks_is_told_of_the_newest_decisions(lake, reference_data):
    compute_features(lake, USE_CASE, [date(2026, 1, 15), date(2026, 1, 16)], threads=1)
    assert what_lacks(lake, USE_CASE) == []
    known = next(one for one in USE_CASE.references if one.name == "cut_offs")
    lake.overwrite(reference_table(USE_CASE, known), reference_data["cut_offs"])
    report = compute_features(lake, USE_CASE, [date(2026, 1, 15), date(2026, 1, 16)], threads=1)
    what = f"pset {NEW_YORK}: no cut-off is known: such decisions get no label"
    assert report.lacking == {what: 2}
    assert what_lacks(lake, USE_CASE) == [f"of 2 decisions of 2026-01-16, 1: {what}"]


def test_an_outcome_is_known_on_the_next_business_day_of_its_place(lake):
    friday, monday, tuesday = date(2026, 1, 16), date(2026, 1, 19), date(2026, 1, 20)
    compute_features(lake, USE_CASE, [date(2026, 1, 15), friday], threads=1)
    horizons = horizons_of(lake, USE_CASE)
    (american,) = (one for one in horizons.known_at if one.date == friday and "NYSE+FED" in one.markets)
    (other,) = (one for one in horizons.known_at if one.date == friday and "NYSE+FED" not in one.markets)
    assert set(other.markets) == {calendar.market for calendar in USE_CASE.calendars} - {"NYSE+FED"}
    assert horizons.known_at == {other: at(monday, 6), american: at(tuesday, 6)}
    assert horizons.known_on(monday) == [other]
    about = {one: decisions_about(lake, USE_CASE, one, horizons) for one in (other, american)}
    assert about[other]["entity_id"].unique().to_pylist() == ["I-1"]
    assert about[american]["entity_id"].unique().to_pylist() == ["I-2"]
    with open_history(lake, USE_CASE, friday, tuesday, threads=1) as history:
        labels = pa.concat_tables(
            [
                history.labels(friday, about[other], calendar=CALENDARS[FRANKFURT]),
                history.labels(friday, about[american], calendar=CALENDARS[NEW_YORK]),
            ]
        )
    known = {(row["entity_id"], row["label_known_at"]) for row in labels.to_pylist()}
    assert known == {("I-1", at(monday, 6)), ("I-2", at(tuesday, 6))}
    # A set of training counts no outcome before the end of its own horizon, whatever it says itself.
    early = labels.set_column(
        labels.column_names.index("label_known_at"),
        labels.schema.field("label_known_at"),
        pa.array([at(friday, 22)] * labels.num_rows, TIMESTAMP),
    )
    closed = closed_labels(lake, USE_CASE, early, lake.version(features_table(USE_CASE)))
    assert {(row["entity_id"], row["label_known_at"]) for row in closed.to_pylist()} == known


def test_a_calendar_that_does_not_exist_or_has_another_week_is_refused():
    with pytest.raises(ValueError, match="no calendar of the market 'NOWHERE'"):
        BusinessCalendar("NOWHERE")
    with pytest.raises(ValueError, match="XSAU is closed on other days than Saturday and Sunday"):
        BusinessCalendar("ECB+XSAU").is_business_day(MAY_DAY)


def test_shares_are_not_delivered_on_columbus_day():
    """As the SEC's files of fails say, which have no settlement date of that day in 2020."""
    assert BusinessCalendar("NYSE").is_business_day(date(2020, 10, 12))
    assert CALENDARS[NEW_YORK].next(date(2020, 10, 9)) == date(2020, 10, 13)
