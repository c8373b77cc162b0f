"""Dagster's event logs are purged without losing what they say of runs and assets."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from sqlalchemy import create_engine, make_url, text

from ml_assets.database.event_logs import purge


@dg.asset
def curated(context: dg.AssetExecutionContext) -> None:
    context.log.info("a line that nobody reads a quarter later")


@pytest.fixture
def instance(database_url: str, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with its storage in PostgreSQL, as in production."""
    url = make_url(database_url).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    config = {"storage": {"postgres": {"postgres_url": url}}, "telemetry": {"enabled": False}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        yield made


def events(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    return {log.dagster_event.event_type_value for log in instance.all_logs(run_id) if log.dagster_event} | {
        "log" for log in instance.all_logs(run_id) if not log.dagster_event
    }


def test_old_step_logs_go_and_history_stays(instance: dg.DagsterInstance, database_url: str) -> None:
    old, new = (dg.materialize([curated], instance=instance).run_id for _ in range(2))
    assert {"log", "STEP_START"} <= (before := events(instance, new))
    engine = create_engine(make_url(database_url))
    with engine.begin() as connection:
        for table, column in (("runs", "update_timestamp"), ("event_logs", "timestamp")):
            connection.execute(
                text(f"UPDATE {table} SET {column} = {column} - interval '100 days' WHERE run_id = :run"), {"run": old}
            )
    engine.dispose()
    url = instance.event_log_storage.postgres_url
    deleted = purge(url, older_than_days=90)
    assert deleted > 0
    assert purge(url, older_than_days=90) == 0
    assert events(instance, new) == before, "a recent run keeps its logs"
    left = events(instance, old)
    assert not {"log", "STEP_START", "STEP_SUCCESS"} & left
    assert {"ASSET_MATERIALIZATION", "PIPELINE_SUCCESS"} <= left
    assert len(instance.fetch_materializations(curated.key, limit=5).records) == 2
    assert instance.get_run_by_id(old).is_success


def test_a_run_that_still_goes_on_keeps_its_logs(instance: dg.DagsterInstance, database_url: str) -> None:
    run = dg.materialize([curated], instance=instance).run_id
    engine = create_engine(make_url(database_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE runs SET status = 'STARTED', update_timestamp = now() - interval '1 year'"))
        connection.execute(text("UPDATE event_logs SET timestamp = now() - interval '1 year'"))
    engine.dispose()
    assert purge(instance.event_log_storage.postgres_url, older_than_days=90) == 0
    assert "log" in events(instance, run)
