"""A backfill on Spark gives what the ordinary path gives, to the last bit, and says what its executors say."""

import dataclasses
import os
from datetime import date, datetime
from pathlib import Path

import pytest

from ml_assets.calendars import BusinessCalendar
from ml_assets.lake import Lake, curated_table, daily_table, features_table
from ml_assets.lifecycle.backfill import LocalEngine
from ml_assets.lifecycle.decided import decided_times, made_from
from ml_assets.lifecycle.features import compute_features
from ml_assets.spark import engine, executor
from ml_assets.spark.engine import SparkEngine
from ml_assets.spark.session import send_packages
from ml_assets.usecases.settlement_fails.usecase import USE_CASE, known_at
from ml_assets_tests.lifecycle.test_backfill import (
    MARKET,
    a_date_fails,
    bits,
    dates,
    everything_fails,
    fill,
    run,
    stored,
    with_known_at,
)
from ml_assets_tests.spark.conftest import executor_logs

__all__ = ["MARKET", "dates"]

pytestmark = pytest.mark.spark


@pytest.mark.parametrize("at_once", [5, 20])
def test_features_are_those_of_the_ordinary_path_to_the_last_bit(
    tmp_path, spark, events, market_references, dates, at_once
):
    """A use case with a daily table, over waves, with a date on which nothing is open; parts are kept as they are."""
    usual, ours, local = (fill(Lake(str(tmp_path / name)), events, market_references) for name in "abc")
    for day in dates:
        compute_features(usual, USE_CASE, [day], threads=1)
    waves = run(ours, USE_CASE, dates, SparkEngine(spark), at_once=at_once)
    again = run(local, USE_CASE, dates, LocalEngine(threads=1), at_once=at_once)

    expected = stored(usual)
    assert expected.num_rows > 300
    assert set(expected["decision_date"].to_pylist()) == set(dates[:-1])
    assert stored(ours).schema.equals(expected.schema)
    assert bits(stored(ours)) == bits(expected) == bits(stored(local))
    assert [wave.dates for wave in waves] == [wave.dates for wave in again]
    for one, other in zip(waves, again, strict=True):
        assert one.failed == other.failed == ()
        assert dataclasses.replace(one.report, version=0) == dataclasses.replace(other.report, version=0)
    quiet = dates[-1]
    times = [decided_times(lake, USE_CASE, [quiet], expected.slice(0, 0)) for lake in (usual, ours)]
    assert times[0] == times[1] == sorted(USE_CASE.decision_times(quiet), key=lambda one: one.as_of)
    sources = made_from(ours, USE_CASE, [(quiet, ours.version(features_table(USE_CASE)))])
    assert sources[curated_table(USE_CASE, USE_CASE.events[0])] == {
        ours.version(curated_table(USE_CASE, USE_CASE.events[0]))
    }
    by_day = [("known_date", "ascending"), ("intended_settlement_date", "ascending"), ("counterparty_lei", "ascending")]
    parts = [lake.read(daily_table(USE_CASE, "outcomes")).drop_columns("origin") for lake in (usual, ours)]
    parts = [rows.sort_by([*by_day, ("asset_class", "ascending"), ("business_date", "ascending")]) for rows in parts]
    assert parts[0].equals(parts[1])
    # With parts that are there, nothing more is made.
    assert all(wave.report.daily_made == () for wave in run(ours, USE_CASE, dates, SparkEngine(spark)))
    assert bits(stored(ours)) == bits(expected)


def test_a_date_that_fails_is_named_and_all_others_are_written(tmp_path, spark, events, market_references, dates):
    a_date_fails(fill(Lake(str(tmp_path)), events, market_references), SparkEngine(spark), dates)


def test_it_ends_where_everything_fails(tmp_path, spark, events, market_references, dates):
    everything_fails(fill(Lake(str(tmp_path)), events, market_references), SparkEngine(spark), dates)


def test_a_bug_on_an_executor_shows_where_it_comes_from(tmp_path, spark, events, market_references, dates):
    lake = fill(Lake(str(tmp_path)), events, market_references)
    (wave,) = run(lake, with_known_at(lambda day, calendar: day.nothing), dates[:1], SparkEngine(spark))
    assert wave.failed[0].why.startswith("Traceback (most recent call last)")
    assert wave.failed[0].why.endswith("object has no attribute 'nothing'")


def test_a_date_that_kills_its_process_is_named_and_all_others_are_written(
    tmp_path, spark, events, market_references, dates
):
    """Guards a date that needs more memory than an executor has: Spark names a task of it, and ends the job of all."""
    lake, usual = (fill(Lake(str(tmp_path / name)), events, market_references) for name in "ab")
    good, bad = dates[:2], dates[5]
    run(usual, USE_CASE, good, LocalEngine(threads=1))

    def dies(day: date, calendar: BusinessCalendar) -> datetime:
        """No outcome date of the good dates is so late."""
        if day >= bad:
            os._exit(9)
        return known_at(day, calendar)

    (wave,) = run(lake, with_known_at(dies), [*good, bad], SparkEngine(spark))
    (failed,) = wave.failed
    assert failed.day == bad
    assert failed.why.startswith("Spark gave up on it: ")
    assert "Python worker exited unexpectedly" in failed.why
    assert bits(stored(lake)) == bits(stored(usual))


def test_a_use_case_that_only_the_driver_has_is_sent(tmp_path, spark, bank):
    """Guards use cases in the folder of who runs the command, as README's walk drafts them."""
    package = Path(bank.usecase.folder).parent.name
    send_packages(spark, [package], tmp_path)
    before = bank.lake.read(features_table(bank.usecase))
    (wave,) = run(bank.lake, bank.usecase, bank.days, SparkEngine(spark), at_once=100)
    assert wave.failed == ()
    assert wave.report.rows == before.num_rows > 500
    by = [("decision_time", "ascending"), ("entity_id", "ascending")]
    assert bits(bank.lake.read(features_table(bank.usecase)).sort_by(by)) == bits(before.sort_by(by))


def test_an_executor_with_other_software_makes_nothing(tmp_path, spark, events, market_references, dates, monkeypatch):
    """Guards rows of another DuckDB, whose last digits differ: nobody would see where they come from."""
    lake = fill(Lake(str(tmp_path)), events, market_references)
    monkeypatch.setattr(engine, "software", lambda: {**executor.software(), "duckdb": "1.4.0"})
    (wave,) = run(lake, USE_CASE, dates[:2], SparkEngine(spark))
    assert [one.day for one in wave.failed] == dates[:2]
    assert f"has duckdb {executor.software()['duckdb']} for 1.4.0: its rows could differ" in wave.failed[0].why
    assert lake.version(features_table(USE_CASE)) is None


def test_executors_reach_an_object_store_by_the_drivers_settings_which_nobody_reads(
    tmp_path, spark, spark_log, s3, s3_lake, events, market_references, dates, capfd
):
    """Guards keys in Spark's event log, which shows plans and settings to everybody who may look at its pages."""
    fill(s3_lake, events, market_references)
    (wave,) = run(s3_lake, USE_CASE, dates[:3], SparkEngine(spark))
    assert wave.failed == ()
    usual = fill(Lake(str(tmp_path)), events, market_references)
    for day in dates[:3]:
        compute_features(usual, USE_CASE, [day], threads=1)
    assert bits(stored(s3_lake)) == bits(stored(usual))
    of_executors = [file for file in executor_logs(spark).rglob("std*") if file.stat().st_size]
    assert len(of_executors) >= 2
    written = [file for file in spark_log.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in written) > 1000
    written += of_executors
    for file in written:
        assert s3.secret_key.encode() not in file.read_bytes()
    assert s3.secret_key not in "".join(capfd.readouterr())
