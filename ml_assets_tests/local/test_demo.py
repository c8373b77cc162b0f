"""The whole lifecycle on a small market, as `make demo` runs it: broker, lake, PostgreSQL, MLflow, all real."""

import io
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from ml_assets.database.work_list import next_outcome_date, work_list
from ml_assets.defs.resources import Platform
from ml_assets.lifecycle.evaluation import compare_models
from ml_assets.local.demo import Scenario, run_demo
from ml_assets.local.embedded.broker import stop_broker
from ml_assets.local.simulation.market import MarketConfig, simulate
from ml_assets.registry import CHAMPION
from ml_assets.settings import Settings
from ml_assets.usecases import discover
from ml_assets_tests.test_docs import CURL, README

pytestmark = pytest.mark.end_to_end
ENTITY = re.compile(r"\d{8}-\d+")


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
    scenario = Scenario(usecase, market, "a small market", config.start, last, last, (last,), truth=truth)
    try:
        run_demo(settings, scenario, Console(file=said, width=120))
    finally:
        stop_broker(home)
    platform = Platform(home=str(home))
    comparison, _ = compare_models(platform.lake, platform.registry, platform.engine, usecase, last)
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
    answer = ask_as_readme_says(rows[0]["entity_id"])
    assert [one["entity_id"] for one in answer["scores"]] == [rows[0]["entity_id"]]
    assert answer["model"]["version"] == rows[0]["model_version"]


def ask_as_readme_says(entity: str) -> dict[str, Any]:
    """Send the request that README shows, of another entity, to a service beside the demo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = subprocess.Popen([sys.executable, "-m", "ml_assets.cli.main", "serve", "--port", str(port)])
    try:
        ready, ends = f"http://127.0.0.1:{port}/health/ready", time.monotonic() + 300
        while subprocess.run(["curl", "-sf", ready], capture_output=True, check=False).returncode:
            assert time.monotonic() < ends
            assert service.poll() is None
            time.sleep(1)
        shown = CURL.search(README)
        command = shown[0].replace("localhost:8000", f"localhost:{port}").replace(ENTITY.search(shown[2])[0], entity)
        done = subprocess.run(shlex.split(command), capture_output=True, check=True, timeout=60)
    finally:
        service.terminate()
        service.wait(60)
    return msgspec.json.decode(done.stdout)
