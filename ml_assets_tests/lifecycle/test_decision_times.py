"""Which decision times have been decided is kept, also where nothing was open."""

from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa

from ml_assets.features import DECISION_TIMES_SCHEMA
from ml_assets.lake import Lake, curated_table, decision_times_table, features_table, reference_table
from ml_assets.lifecycle.decided import decided_times, made_from, note_decided
from ml_assets.lifecycle.features import compute_features
from ml_assets.local.simulation.market import MarketConfig
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

MARKET = MarketConfig(days=4, instructions_per_day=10, counterparties=4, securities=8)


def test_a_slot_at_which_nothing_is_open_has_been_decided_and_one_to_come_has_not(
    lake: Lake, events: dict[str, pa.Table], market_references: dict[str, pa.Table]
) -> None:
    """Guards the list that is emptied by a scoring of nothing, and not by a slot whose time has not come."""
    for name, rows in events.items():
        held = rows["business_date"].unique().to_pylist()
        lake.replace(curated_table(USE_CASE, USE_CASE.event(name)), rows, "business_date", held)
    for reference in USE_CASE.references:
        lake.overwrite(reference_table(USE_CASE, reference), market_references[reference.name])
    traded = max(events["settlement_instructions"]["business_date"].to_pylist())
    quiet = USE_CASE.calendar.next(traded + timedelta(days=30))  # all that was traded is due long before
    compute_features(lake, USE_CASE, [traded, quiet], until=datetime.combine(quiet, time(16), UTC), threads=1)

    stored = lake.read(features_table(USE_CASE))
    assert set(stored["decision_date"].to_pylist()) == {traded}
    found = decided_times(lake, USE_CASE, [quiet], stored.slice(0, 0))
    assert [one.slot for one in found] == ["isd_morning", "isd_minus_1"]
    assert found == list(USE_CASE.decision_times(quiet))[:2]
    assert len(decided_times(lake, USE_CASE, [traded], stored)) == 3

    compute_features(lake, USE_CASE, [quiet], until=datetime.combine(quiet, time(8), UTC), threads=1)
    assert [one.slot for one in decided_times(lake, USE_CASE, [quiet], stored.slice(0, 0))] == ["isd_morning"]


def test_features_from_before_these_times_were_kept_tell_them_by_their_rows(lake: Lake) -> None:
    """Guards a bank that upgrades: its lists are those of its features until they are made again."""
    times = USE_CASE.decision_times(date(2026, 1, 6))
    rows = pa.Table.from_pylist(
        [{"decision_date": one.decision_date, "slot": one.slot, "decision_time": one.as_of} for one in times]
    )
    assert lake.version(decision_times_table(USE_CASE)) is None
    assert decided_times(lake, USE_CASE, [], rows) == list(times)


def test_what_features_were_made_from_is_known_after_they_are_made_again(lake: Lake) -> None:
    """The rows of a date stay when another date is made; a later version of the same date has its own."""
    day, other = date(2026, 1, 6), date(2026, 1, 7)
    for at, days, curated in ((3, [day], 10), (5, [other], 11), (7, [day, other], 12)):
        times = [one for each in days for one in USE_CASE.decision_times(each)]
        note_decided(lake, USE_CASE, days, times, features=at, made_from={"curated/x": curated})

    def of(*features: tuple[date, int]) -> set[int]:
        return made_from(lake, USE_CASE, features).get("curated/x", set())

    assert [of((day, version)) for version in (2, 3, 6, 7, 9)] == [set(), {10}, {10}, {12}, {12}]
    assert of((day, 6), (other, 6), (date(2026, 1, 8), 6)) == {10, 11}
    assert decided_times(lake, USE_CASE, [day], lake.read(decision_times_table(USE_CASE)).slice(0, 0)) == list(
        USE_CASE.decision_times(day)
    )


def test_a_table_from_before_versions_were_noted_is_read_and_goes_on(lake: Lake) -> None:
    """Guards a bank that upgrades: what its features were made from is not known, and nothing fails."""
    day = date(2026, 1, 6)
    times = USE_CASE.decision_times(day)
    old = [{"decision_date": one.decision_date, "slot": one.slot, "decision_time": one.as_of} for one in times]
    lake.replace(
        decision_times_table(USE_CASE), pa.Table.from_pylist(old, DECISION_TIMES_SCHEMA), "decision_date", [day]
    )
    nothing = pa.Table.from_pylist(old, DECISION_TIMES_SCHEMA).slice(0, 0)
    assert decided_times(lake, USE_CASE, [day], nothing) == list(times)
    assert made_from(lake, USE_CASE, [(day, 4)]) == {}
    note_decided(lake, USE_CASE, [day], times[:1], features=5, made_from={"curated/x": 1})
    assert decided_times(lake, USE_CASE, [day], nothing) == list(times[:1])
    assert made_from(lake, USE_CASE, [(day, 5)]) == {"curated/x": {1}}
