"""What of a list has been closed since it was scored: as the whole history says, from the entities' own events."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.desk.rows import cut_off_of
from ml_assets.features import AsOfDatabase
from ml_assets.lake import Lake
from ml_assets.lifecycle.still_open import Listed, closed_since
from ml_assets.local.simulation.market import MarketConfig
from ml_assets.spec import DecisionTime
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.lifecycle.test_daily import lake_of
from ml_assets_tests.usecases.test_slots import with_cancellations

MARKET = MarketConfig(days=5, instructions_per_day=15, counterparties=6, securities=20)


@pytest.fixture(scope="module")
def cancelling(events: dict[str, pa.Table]) -> dict[str, pa.Table]:
    return with_cancellations(events)


@pytest.fixture(scope="module")
def lake(cancelling, market_references, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return lake_of(tmp_path_factory.mktemp("lake"), cancelling, market_references)


@pytest.fixture(scope="module")
def mornings(market, cancelling, market_references) -> dict[DecisionTime, dict[str, Listed]]:
    """What is decided on each morning of settlement, and the afternoon before."""
    found = {}
    with AsOfDatabase(USE_CASE, cancelling, market_references, threads=2) as history:
        for day in market.world.calendar[3:5]:
            for decision in USE_CASE.decision_times(day)[:2]:
                found[decision] = {
                    row["entity_id"]: Listed(
                        decision, cut_off_of(USE_CASE, row["outcome_date"], json.loads(row["attributes"]))
                    )
                    for row in history.features(decision).to_pylist()
                }
    return found


@pytest.mark.parametrize("hours", [0.0, 2.5, 30.0])
def test_it_is_what_decisions_sql_no_longer_lists(lake, cancelling, market_references, mornings, hours: float) -> None:
    """Guards a list on which people chase what has settled; and one from which an open instruction disappears."""
    closed = 0
    with AsOfDatabase(USE_CASE, cancelling, market_references, threads=2) as history:
        for decision, listed in mornings.items():
            now = decision.as_of + timedelta(hours=hours)
            expected = set()
            for until in {one.until for one in listed.values()}:
                at = min(now, until - timedelta(microseconds=1))
                still = history.decided(DecisionTime(decision.slot, at, decision.decision_date))
                expected |= {entity for entity, one in listed.items() if one.until == until} - still
            found = closed_since(lake, USE_CASE, listed, now)
            assert set(found) == expected
            assert all(decision.as_of < at <= now for at in found.values())
            closed += len(found)
    assert (closed > 0) is (hours > 0), "nothing was closed, so this has shown nothing"


def test_lists_of_several_scorings_are_asked_of_at_once(lake, mornings) -> None:
    both = list(mornings)[:2]
    listed = {entity: one for decision in both for entity, one in mornings[decision].items()}
    now = max(decision.as_of for decision in both) + timedelta(hours=6)
    apart = {}
    for decision in both:
        mine = {entity: one for entity, one in listed.items() if one.decision == decision}
        apart |= closed_since(lake, USE_CASE, mine, now)
    assert closed_since(lake, USE_CASE, listed, now) == apart


def test_of_nothing_and_of_an_empty_lake_nothing_is_said(lake, mornings, tmp_path: Path) -> None:
    listed = next(iter(mornings.values()))
    assert closed_since(lake, USE_CASE, {}, datetime(2026, 3, 1, tzinfo=UTC)) == {}
    assert closed_since(Lake(str(tmp_path)), USE_CASE, listed, datetime(2026, 3, 1, tzinfo=UTC)) == {}


def test_where_decisions_read_a_daily_table_nothing_is_said(lake, mornings) -> None:
    """Guards an error in the log each minute."""
    decision, listed = next(iter(mornings.items()))
    daily = replace(USE_CASE)
    sql = f"SELECT * FROM ({USE_CASE.feature_sql['decisions']}\n) WHERE isin IN (SELECT isin FROM outcomes)"
    daily.__dict__["feature_sql"] = {**USE_CASE.feature_sql, "decisions": sql}
    assert closed_since(lake, daily, listed, decision.as_of + timedelta(hours=6)) == {}


def test_an_entity_that_its_own_events_do_not_explain_stays(lake, mornings, cancelling, tmp_path, market_references):
    """Guards a use case whose decisions.sql needs more than an entity's own events: it must not empty the list."""
    decision, listed = next(iter(mornings.items()))
    late = cancelling | {"settlement_instructions": cancelling["settlement_instructions"].slice(0, 0)}
    assert pc.count(late["settlement_instructions"]["instruction_id"]).as_py() == 0
    assert (
        closed_since(lake_of(tmp_path, late, market_references), USE_CASE, listed, decision.as_of + timedelta(1)) == {}
    )
