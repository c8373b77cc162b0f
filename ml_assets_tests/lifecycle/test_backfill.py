"""A backfill, some dates at a time: what fails is named, and all else is written."""

import dataclasses
from datetime import date, timedelta

import pyarrow as pa
import pytest

from ml_assets.lake import Lake, curated_table, decision_times_table, features_table, reference_table
from ml_assets.lifecycle.backfill import LocalEngine, Written, backfill
from ml_assets.lifecycle.features import compute_features
from ml_assets.local.simulation.market import MarketConfig
from ml_assets.spec import UseCase
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

DAYS = 14
MARKET = MarketConfig(days=DAYS, instructions_per_day=30, counterparties=6, securities=20)


def fill(lake: Lake, events: dict[str, pa.Table], reference_data: dict[str, pa.Table]) -> Lake:
    for name, rows in events.items():
        held = rows["business_date"].unique().to_pylist()
        lake.replace(curated_table(USE_CASE, USE_CASE.event(name)), rows, "business_date", held)
    for reference in USE_CASE.references:
        lake.overwrite(reference_table(USE_CASE, reference), reference_data[reference.name])
    return lake


@pytest.fixture
def dates(market) -> list[date]:
    """Weekdays with decisions, and one at whose times nothing is open."""
    traded = list(market.world.calendar[4:DAYS])
    return [*traded, USE_CASE.calendar.next(traded[-1] + timedelta(days=30))]


def stored(lake: Lake, usecase: UseCase = USE_CASE) -> pa.Table:
    """The features as they lie there; a date is one file, so within it their order counts too."""
    return lake.read(features_table(usecase)).sort_by(
        [("decision_date", "ascending"), ("decision_time", "ascending"), ("entity_id", "ascending")]
    )


def bits(rows: pa.Table) -> list[list[object]]:
    """The values, doubles by their bytes: 0.0 is not -0.0, and no NaN is like another one of other bits."""
    return [
        [None if value is None else float.hex(value) if isinstance(value, float) else value for value in column]
        for column in (rows[name].to_pylist() for name in rows.column_names)
    ]


def run(lake: Lake, usecase: UseCase, days: list[date], engine, **options) -> list[Written]:
    return list(backfill(lake, usecase, days, engine, threads=1, **options))


def refused_on(day: date) -> UseCase:
    """The use case, with a cast in decisions.sql that fails on one date."""
    broken = dataclasses.replace(USE_CASE)
    sql = USE_CASE.feature_sql["decisions"]
    wrapped = (
        f"SELECT * REPLACE (CASE WHEN getvariable('decision_date') = DATE '{day}'\n"
        "THEN CAST('no number ' || entity_id AS DOUBLE)\n"
        f"ELSE cost_if_fail END AS cost_if_fail) FROM (\n{sql}\n)"
    )
    broken.__dict__["feature_sql"] = {**USE_CASE.feature_sql, "decisions": wrapped}
    return broken


def test_it_writes_what_the_ordinary_path_writes_some_dates_at_a_time(tmp_path, events, market_references, dates):
    usual, ours = (fill(Lake(str(tmp_path / name)), events, market_references) for name in "ab")
    for day in dates:
        compute_features(usual, USE_CASE, [day], threads=1)
    waves = run(ours, USE_CASE, [*reversed(dates), dates[0]], LocalEngine(threads=1), at_once=4)
    assert [len(wave.dates) for wave in waves] == [4, 4, 3]
    assert [day for wave in waves for day in wave.dates] == dates
    assert bits(stored(ours)) == bits(stored(usual))
    assert waves[0].report.daily_made
    assert waves[1].report.daily_made == tuple(sorted(waves[1].report.daily_made))


def test_a_date_that_fails_is_named_and_all_others_are_written(tmp_path, events, market_references, dates):
    lake = fill(Lake(str(tmp_path)), events, market_references)
    a_date_fails(lake, LocalEngine(threads=1), dates)


def a_date_fails(lake: Lake, engine, dates: list[date]) -> None:
    """Make all dates, then again with SQL that fails on one of them, by an engine."""
    run(lake, USE_CASE, dates, LocalEngine(threads=1))
    before = stored(lake)
    bad = dates[3]
    lake.replace(features_table(USE_CASE), before.slice(0, 0), "decision_date", dates[4:6])

    (wave,) = run(lake, refused_on(bad), dates, engine)
    (failed,) = wave.failed
    assert failed.day == bad
    assert "decisions.sql failed: Conversion Error: Could not convert string 'no number " in failed.why
    assert "\nLINE 2: THEN CAST('no number ' || entity_id AS DOUBLE)" in failed.why
    assert "Traceback" not in failed.why
    assert bits(stored(lake)) == bits(before), "the date that failed keeps what it had, the others are made anew"
    noted = lake.read(decision_times_table(USE_CASE)).to_pylist()
    made = [row["features_version"] for row in noted if row["decision_date"] == dates[4]]
    assert max(made) == lake.version(features_table(USE_CASE))
    assert all(row["features_version"] < max(made) for row in noted if row["decision_date"] == bad)


def test_it_ends_where_everything_fails(tmp_path, events, market_references, dates):
    """Guards a backfill of years that asks a lake that does not answer, date by date."""
    everything_fails(fill(Lake(str(tmp_path)), events, market_references), LocalEngine(threads=1), dates)


def everything_fails(lake: Lake, engine, dates: list[date]) -> None:
    """Make dates by SQL that fails on each of them, by an engine."""
    broken = dataclasses.replace(USE_CASE)
    broken.__dict__["feature_sql"] = {**USE_CASE.feature_sql, "decisions": "SELECT nothing FROM securities"}
    (wave,) = run(lake, broken, dates, engine, at_once=4)
    assert [one.day for one in wave.failed] == dates[:4]
    assert wave.report is None
    assert "decisions.sql failed" in wave.failed[0].why
    assert lake.version(features_table(USE_CASE)) is None


def with_known_at(known_at) -> UseCase:
    """The use case, whose outcomes are known when a function says so; it is code, and no SQL."""
    return dataclasses.replace(USE_CASE, places=dataclasses.replace(USE_CASE.places, known_at=known_at))


def test_a_bug_shows_where_it_comes_from(tmp_path, events, market_references, dates):
    """What is nobody's input comes with its traceback."""
    lake = fill(Lake(str(tmp_path)), events, market_references)
    (wave,) = run(lake, with_known_at(lambda day, calendar: day.nothing), dates[:1], LocalEngine(threads=1))
    assert wave.failed[0].why.startswith("Traceback (most recent call last)")
    assert wave.failed[0].why.endswith("object has no attribute 'nothing'")
