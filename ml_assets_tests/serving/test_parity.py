"""Live table, what-if, batch and training rows agree, feature for feature, whatever happens to the service."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import AsOfDatabase
from ml_assets.lake import Lake, curated_table, reference_table
from ml_assets.local.simulation.market import Market, MarketConfig
from ml_assets.serving.history import LiveHistory
from ml_assets.serving.table import LiveTable, make_table, what_if_rows
from ml_assets_tests.serving.test_live import land
from ml_assets_tests.usecases.settlement import USE_CASE

# Summer time begins in Europe on the Sunday between the third and the fourth of these days.
MARKET = MarketConfig(
    start=date(2026, 3, 25), days=6, instructions_per_day=15, counterparties=3, securities=8, dirty=0.1
)
LATE = "settlement_status"
Tables = Mapping[str, pa.Table]


def test_all_ways_to_a_row_agree(market: Market, events: Tables, market_references: Tables) -> None:
    """Before and after late data, into the next day, after a restart; and for what has not been booked.

    The batch is given all that ever happens, as a training set is: so a difference may be a leak, too.
    """

    @given(
        seed=st.integers(0, 2**32 - 1),
        first=st.integers(1, 4),
        clock=st.sampled_from([time(0), time(7), time(15), time(21, 30), time(23, 59, 59)]),
        hours=st.integers(0, 12),
    )
    @example(seed=1, first=2, clock=time(7), hours=3)  # over the change to summer time
    @settings(max_examples=4, phases=[Phase.explicit, Phase.reuse, Phase.generate])
    def agree(seed: int, first: int, clock: time, hours: int) -> None:
        every_way(market, events, market_references, seed, first, clock, hours)

    agree()


def every_way(
    market: Market, events: Tables, market_references: Tables, seed: int, first: int, clock: time, hours: int
) -> None:
    """One example: `first` is the number of the day, `late` data land `hours` after the time of the first table."""
    rng = np.random.default_rng(seed)
    days = market.world.calendar
    at = datetime.combine(days[first], clock, tzinfo=UTC)
    later = at + timedelta(hours=hours)
    # A tenth of the statuses is late: it lands between the two times.
    statuses, late = events[LATE], pa.array(rng.random(events[LATE].num_rows) < 0.1)
    late = pc.and_(late, pc.less_equal(statuses["known_at"], pa.scalar(at, TIMESTAMP)))
    landed = known(statuses.filter(late), later)
    in_time = {**events, LATE: statuses.filter(pc.invert(late))}
    happened = {**events, LATE: pa.concat_tables([in_time[LATE], landed])}
    with TemporaryDirectory() as folder:
        lake = filled(Lake(str(Path(folder) / "lake")), in_time, market_references)
        land(lake, in_time[LATE], at)
        live = LiveHistory(lake, USE_CASE)
        same(table_at(live, at).rows, batch(in_time, market_references, at))
        if landed.num_rows:
            # By this machine's clock, as the lake's files are dated: they were written before.
            land(lake, landed, datetime.now(UTC), turn=1)
        table = table_at(live, later)
        expected = batch(happened, market_references, later)
        same(table.rows, expected)
        what_if(table, happened, market_references, rng, later)
        same(table_at(LiveHistory(lake, USE_CASE), later).rows, expected)
        tomorrow = datetime.combine(days[first + 1], clock, tzinfo=UTC)
        same(table_at(live, tomorrow).rows, batch(happened, market_references, tomorrow))


def what_if(
    table: LiveTable, events: Tables, market_references: Tables, rng: np.random.Generator, at: datetime
) -> None:
    """Two instructions that are not booked, one of them on hold, have the rows that they would have if they were."""
    rows = events["settlement_instructions"]
    rows = rows.filter(pc.is_in(rows["instruction_id"], table.rows["entity_id"].combine_chunks()))
    if not rows.num_rows:
        return
    booked = renamed(known(rows.take(rng.integers(0, rows.num_rows, 2)), at), "instruction_id", ["NEW-1", "NEW-2"])
    booked = renamed(booked, "event_id", ["NEW-1", "NEW-2"])
    status = known(events[LATE].slice(0, 1), at)
    for name, value in {"event_id": "NEW", "instruction_id": "NEW-2", "status": "PEND", "reason": "PREA"}.items():
        status = renamed(status, name, [value])
    added = {"settlement_instructions": booked, LATE: status}
    asked = what_if_rows(USE_CASE, table, added, ["NEW-1", "NEW-2", table.rows["entity_id"][0].as_py()])
    both = {**events, **{name: pa.concat_tables([events[name], rows]) for name, rows in added.items()}}
    expected = batch(both, market_references, at)
    same(asked, expected.filter(pc.is_in(expected["entity_id"], asked["entity_id"].combine_chunks())))
    assert asked.num_rows == 3


def batch(events: Tables, market_references: Tables, at: datetime) -> pa.Table:
    """The rows of all slots at a time, of an entity that several list those of the first."""
    with AsOfDatabase(USE_CASE, events, market_references, threads=1) as history:
        seen, parts = set[str](), []
        for slot in USE_CASE.slots_at(at):
            rows = history.features(slot)
            fresh = [entity not in seen for entity in rows["entity_id"].to_pylist()]
            parts.append(rows.filter(pa.array(fresh, pa.bool_())))
            seen |= set(rows["entity_id"].to_pylist())
        return pa.concat_tables(parts)


def same(one: pa.Table, other: pa.Table) -> None:
    one, other = one.sort_by("entity_id"), other.sort_by("entity_id")
    assert one["entity_id"].to_pylist() == other["entity_id"].to_pylist()
    for name in other.column_names:
        mine, theirs = one[name], other[name]
        if pa.types.is_floating(mine.type):
            assert mine.is_null().to_pylist() == theirs.is_null().to_pylist(), name
            numbers = (np.asarray(pc.fill_null(each, 0.0)) for each in (mine, theirs))
            np.testing.assert_allclose(*numbers, rtol=0, atol=1e-9, err_msg=name)
        else:
            assert mine.to_pylist() == theirs.to_pylist(), name


def table_at(live: LiveHistory, at: datetime) -> LiveTable:
    live.look(USE_CASE.slots_at(at)[0].decision_date)
    return make_table(USE_CASE, live.database(), at, live.newest)


def filled(lake: Lake, events: Tables, market_references: Tables) -> Lake:
    for event in USE_CASE.events:
        rows = events[event.name]
        lake.replace(curated_table(USE_CASE, event), rows, "business_date", rows["business_date"].unique().to_pylist())
    for reference in USE_CASE.references:
        lake.overwrite(reference_table(USE_CASE, reference), market_references[reference.name])
    return lake


def known(rows: pa.Table, at: datetime) -> pa.Table:
    """The rows as if they had been published and known at a time."""
    for name in ("known_at", "broker_time"):
        rows = rows.set_column(
            rows.column_names.index(name), rows.schema.field(name), pa.array([at] * len(rows), TIMESTAMP)
        )
    return rows


def renamed(rows: pa.Table, name: str, values: list[str]) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), pa.array(values, pa.string()))
