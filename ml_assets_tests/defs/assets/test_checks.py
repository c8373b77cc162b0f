"""Checks of assets, each seen failing on a real platform: a check that cannot fail is worse than none."""

import dataclasses
from datetime import date

import dagster as dg
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from ml_assets.cli.local_runs import LocalRuns, RunFailedError
from ml_assets.database.work_list import next_outcome_date, work_list
from ml_assets.defs.checks.features import FRESHNESS, ROW_COUNT
from ml_assets.defs.checks.registration import LEDGER, judge_ledger
from ml_assets.defs.checks.scoring import SCORE_DISTRIBUTION
from ml_assets.lake import features_table, predictions_table
from ml_assets.lifecycle.promotion import agreement
from ml_assets.registry import CHAMPION
from ml_assets.spec import BatchSpec
from ml_assets_tests.defs.assets.conftest import Bank

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def watched(make_bank) -> Bank:
    """A bank whose few decisions a day are judged."""
    other = make_bank("watched")
    gate = dataclasses.replace(other.usecase.gate, batch=BatchSpec(min_rows=20, max_psi=3.0))
    other.usecase = dataclasses.replace(other.usecase, gate=gate)
    other.runs.run("ingest", other.days)
    other.runs.run("retrain", [other.days[-1]])
    return other


def newest(bank: Bank, asset: str, check: str) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(dg.AssetKey([bank.usecase.name, asset]), check)
    record = bank.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    return record.event.dagster_event.asset_check_evaluation_data


def break_feature(bank: Bank, day: date, name: str) -> None:
    """A feature of a date that is missing in every row, as after a feed that ended."""
    table = features_table(bank.usecase)
    rows = bank.lake.read(table, where=ds.field("decision_date") == day)
    at = rows.schema.get_field_index(name)
    bank.lake.replace(
        table, rows.set_column(at, rows.schema.field(at), pa.nulls(len(rows), rows.schema.field(at).type)),
        "decision_date", [day],
    )  # fmt: skip


def test_scores_of_broken_features_are_refused_and_nothing_is_published(watched):
    """Guards issue 14.6: a score was judged after it was in PostgreSQL, by a median that no broken feed moves."""
    good, bad = watched.days[-3], watched.days[-2]
    watched.runs.run("score", [good])
    assert newest(watched, "predictions", SCORE_DISTRIBUTION).passed
    before = watched.lake.read(predictions_table(watched.usecase)).to_pylist()
    break_feature(watched, bad, "payer_late_rate")
    with pytest.raises(RunFailedError, match=r"scores of .* are refused; nothing was published\. .*missing_features 1"):
        watched.runs.run("score", [bad])
    refused = newest(watched, "predictions", SCORE_DISTRIBUTION)
    assert (refused.passed, refused.blocking) == (False, True)
    assert "payer_late_rate" in refused.metadata["what does not hold"].value
    assert watched.lake.read(predictions_table(watched.usecase)).to_pylist() == before
    engine, name = watched.platform.engine, watched.usecase.name
    listed = work_list(engine, name, next_outcome_date(engine, name), 100)
    assert {row["decision_time"].date() for row in listed} <= {good}
    # The way out: a person who knows better says why, and it is shown.
    despite = {f"{name}__predictions": {"config": {"despite": "the market is like that"}}}
    LocalRuns(watched.instance, watched.usecase, watched.platform).run("score", [bad], ops=despite)
    published = newest(watched, "predictions", SCORE_DISTRIBUTION)
    assert (published.passed, published.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert published.metadata["published despite that"].value == "the market is like that"
    assert bad in set(watched.lake.read(predictions_table(watched.usecase))["decision_date"].to_pylist())


def test_row_count_and_freshness_fail_on_a_date_that_has_not_landed(watched):
    watched.runs.run("ingest", [watched.days[-1]])
    assert newest(watched, "features", ROW_COUNT).passed
    assert newest(watched, "features", FRESHNESS).passed
    ahead = watched.usecase.calendar.add(watched.days[-1], 3)
    watched.runs.run("ingest", [ahead])
    empty = newest(watched, "features", ROW_COUNT)
    assert (empty.passed, empty.metadata["dates without rows"].value) == (False, str(ahead))
    assert not newest(watched, "features", FRESHNESS).passed


def test_champion_is_in_ledger_fails_where_the_alias_was_moved_by_hand(watched):
    registry, name = watched.platform.registry, watched.usecase.name
    asset = dg.AssetKey([name, "champion"])
    assert newest(watched, "champion", LEDGER).passed
    champion = registry.resolve(name, CHAMPION)
    other = next(
        run for run in registry.candidate_runs(name, watched.days[-1]).values() if run.run_id != champion.run_id
    )
    registry.promote(name, registry.register(name, other.run_id, tags={}).version)
    try:
        assert not judge_ledger(agreement(registry, watched.platform.engine, watched.usecase), asset).passed
    finally:
        registry.promote(name, champion.version)
