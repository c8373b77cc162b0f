"""The whole lifecycle on a small market, as `make demo` runs it: broker, lake, PostgreSQL, MLflow, all real."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from ml_assets.database.work_list import next_outcome_date, work_list
from ml_assets.demo import Scenario, run_demo
from ml_assets.embedded.broker import stop_broker
from ml_assets.lifecycle.evaluation import compare_models
from ml_assets.registry import CHAMPION
from ml_assets.resources import Platform
from ml_assets.settings import Settings
from ml_assets.simulation.market import MarketConfig, simulate
from ml_assets.usecases import discover

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def home(monkeypatch, postgres_home) -> Path:
    """The home of the session's PostgreSQL: the demo finds it running."""
    monkeypatch.setenv("ML_ASSETS_HOME", str(postgres_home))
    for name in ("DAGSTER_HOME", "ML_ASSETS_DAGSTER_POSTGRES_URL", "ML_ASSETS_DAGSTER_LOCAL_DIR"):
        monkeypatch.setenv(name, "")  # the demo sets them; this puts them back
    monkeypatch.setenv("ML_ASSETS_MAX_CONCURRENT_RUNS", "2")
    return postgres_home


def test_from_simulated_events_to_tomorrows_work_list(home):
    usecase = next(usecase for usecase in discover() if usecase.name == "settlement_fails")
    settings = Settings()
    config = MarketConfig(days=56, instructions_per_day=500)
    market = simulate(config)
    market.write_reference(settings.reference_uri)
    truth = home / "truth.parquet"
    market.write_truth(truth)
    last = usecase.calendar.add(config.start, config.days - 1)
    said = io.StringIO()
    scenario = Scenario(usecase, market, config.start, last, last, (last,), truth=truth)
    try:
        run_demo(settings, scenario, Console(file=said, width=120))
    finally:
        stop_broker(home)
    platform = Platform(home=str(home))
    comparison, _ = compare_models(platform.lake, platform.registry, usecase, last)
    champion, rule = comparison.of(CHAMPION), comparison.of(usecase.rule.name)
    assert champion["pr_auc"] > 1.2 * rule["pr_auc"], (
        "far fewer trades than the default, still far better than the rule"
    )
    tomorrow = next_outcome_date(platform.engine, usecase.name)
    assert tomorrow == usecase.calendar.next(last)
    rows = work_list(platform.engine, usecase.name, tomorrow, usecase.capacity)
    platform.close()
    assert len(rows) == usecase.capacity
    assert {row["outcome_date"] for row in rows} == {tomorrow}
    assert rows[0]["entity_id"] in said.getvalue()
    assert "best reachable" in said.getvalue()
