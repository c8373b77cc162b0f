"""Questions about rows that are not there give what the batch gives on a history that has them."""

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import AsOfDatabase
from ml_assets.features.parts import Parts
from ml_assets.features.sql import sql_of, statements_of
from ml_assets.local.simulation.market import Market, MarketConfig
from ml_assets_tests.usecases.settlement import USE_CASE

MARKET = MarketConfig(days=6, instructions_per_day=25, counterparties=3, securities=8, dirty=0)
INSTRUCTIONS, STATUSES = "settlement_instructions", "settlement_status"
NUMBERS = {"cost_if_fail", *(feature.name for feature in USE_CASE.features if feature.kind != "categorical")}
Tables = Mapping[str, pa.Table]


def test_what_is_asked_is_what_would_be(market: Market, events: Tables, market_references: Tables) -> None:
    """Guards parts that are kept although a row reaches them: outcomes of the past, a new place, a new version."""
    at = datetime.combine(market.world.calendar[MARKET.days - 1], time(15), tzinfo=UTC)
    slots = USE_CASE.slots_at(at)
    booked = events[INSTRUCTIONS].filter(pc.less_equal(events[INSTRUCTIONS]["known_at"], pa.scalar(at, TIMESTAMP)))
    past = market.world.calendar[MARKET.days - 3]
    with AsOfDatabase(USE_CASE, events, market_references, threads=1) as history:
        before = first_of([history.features(slot) for slot in slots])
        asked = history.what_if(slots, {}, before["entity_id"].to_pylist())
        same(asked.sort_by("entity_id"), before)

        @given(
            rows=st.lists(st.integers(0, booked.num_rows - 1), min_size=1, max_size=3, unique=True),
            again=st.booleans(), failed=st.booleans(), place=st.sampled_from(["", "NEWPFRPPXXX"]), status=st.booleans(),
        )  # fmt: skip
        @example(rows=[0, 1], again=False, failed=True, place="", status=True)
        @example(rows=[2], again=True, failed=False, place="NEWPFRPPXXX", status=False)
        @settings(max_examples=6)
        def agree(rows: list[int], again: bool, failed: bool, place: str, status: bool) -> None:
            given = booked.take(rows)
            names = given["instruction_id"].to_pylist() if again else [f"NEW-{row}" for row in rows]
            changes: dict[str, Any] = {"instruction_id": names, "event_id": [f"event of {name}" for name in names]}
            if failed:
                changes |= {
                    "intended_settlement_date": [past] * len(rows),
                    "trade_date": [past - timedelta(1)] * len(rows),
                }
            if place:
                changes["pset"] = [place] * len(rows)
            added = {INSTRUCTIONS: told(given, at, changes)}
            if status or failed:
                what = {"instruction_id": names[:1], "event_id": ["status"], "status": ["PENF" if failed else "PEND"]}
                added[STATUSES] = told(events[STATUSES].slice(0, 1), at, {**what, "reason": ["PREA"]})
            both = {**events, **{name: pa.concat_tables([events[name], more]) for name, more in added.items()}}
            with AsOfDatabase(USE_CASE, both, market_references, threads=1) as after:
                expected = first_of([after.features(slot) for slot in slots])
            wanted = [*names, *expected["entity_id"].to_pylist()[:5], "NOBODY"]
            for _ in range(2):  # what was asked before leaves nothing behind
                found = history.what_if(slots, added, wanted).sort_by("entity_id")
                same(found, expected.filter(pc.is_in(expected["entity_id"], pa.array(wanted))))

        agree()


def same(found: pa.Table, expected: pa.Table) -> None:
    for name in expected.column_names:
        mine, theirs = found[name].to_pylist(), expected[name].to_pylist()
        assert mine == (pytest.approx(theirs, abs=1e-9, rel=0, nan_ok=True) if name in NUMBERS else theirs), name


def first_of(parts: list[pa.Table]) -> pa.Table:
    """The rows of all slots, of an entity that several list those of the first."""
    rows = {row["entity_id"]: row for part in reversed(parts) for row in part.to_pylist()}
    return pa.Table.from_pylist([rows[entity] for entity in sorted(rows)], schema=parts[0].schema)


def told(rows: pa.Table, at: datetime, changes: Mapping[str, list[Any]]) -> pa.Table:
    """Rows that become known at a time, changed."""
    for name, values in {**changes, "known_at": [at] * len(rows), "broker_time": [at] * len(rows)}.items():
        field = rows.schema.field(name)
        rows = rows.set_column(rows.column_names.index(name), field, pa.array(values, field.type))
    return rows


def test_a_select_with_parts_of_it_in_tables() -> None:
    parts = Parts(
        "WITH a AS (SELECT k, v FROM t WHERE v < getvariable('slot')), b AS (SELECT k FROM a JOIN u USING (k)), "
        "c AS MATERIALIZED (SELECT 1 AS k) SELECT k FROM b JOIN w USING (k) UNION ALL SELECT k FROM a"
    )
    assert parts.parts == {"a": set(), "b": {"a"}, "c": set()}
    assert parts.tables == {"a": {"t"}, "b": {"t", "u"}, "c": set()}
    assert parts.variables == {"a": {"slot"}, "b": {"slot"}, "c": set()}
    assert (parts.named, parts.outermost) == ({"a", "b"}, {"w"})
    assert statements_same(parts.alone("b", {"a": "kept"}), "WITH a AS (SELECT * FROM kept), "
                           "b AS (SELECT k FROM a JOIN u USING (k)) SELECT * FROM b")  # fmt: skip
    assert statements_same(
        parts.reading({"b": "kept", "a": "kept_too"}),
        "WITH a AS (SELECT * FROM kept_too), b AS (SELECT * FROM kept) "
        "SELECT k FROM b JOIN w USING (k) UNION ALL SELECT k FROM a",
    )


def test_sql_that_duckdb_does_not_write_down_as_the_same_is_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> str:
        raise ValueError("it is written down as something else")

    monkeypatch.setattr("ml_assets.features.parts.sql_of", refuse)
    sql = "WITH a AS (SELECT k FROM t) SELECT k FROM a JOIN u USING (k)"
    parts = Parts(sql)
    assert (parts.parts, parts.named, parts.outermost) == ({}, set(), {"t", "u"})
    assert parts.reading({}) == sql


def statements_same(one: str, other: str) -> bool:
    return sql_of(statements_of(one)[0]) == sql_of(statements_of(other)[0])
