"""The environment that subprocesses get, and the instance that Dagster makes of it."""

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.run_coordinator import QueuedRunCoordinator
from pydantic import SecretStr

from ml_assets.local.embedded.environment import database_url, environment_for, instance_config
from ml_assets.settings import Settings


def test_an_external_server_is_used_as_it_is() -> None:
    settings = Settings(postgres_url=SecretStr("postgresql://me:a%2Fb@db.bank:5433?sslmode=require"))
    assert (
        database_url(settings, "mlflow", "psycopg2")
        == "postgresql+psycopg2://me:a%2Fb@db.bank:5433/mlflow?sslmode=require"
    )


@pytest.fixture
def dagster_home(postgres_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in environment_for(Settings(home=postgres_home)).items():
        monkeypatch.setenv(name, value)
    return postgres_home / "dagster"


def test_dagster_yaml_loads_on_the_embedded_server_and_keeps_a_run(dagster_home: Path) -> None:
    """Guards the psycopg2 form of the URL, without which the first event of a run is a syntax error."""

    @dg.op
    def hello() -> int:
        return 1

    @dg.job(executor_def=dg.in_process_executor)
    def greet() -> None:
        hello()

    with dg.DagsterInstance.get() as instance:
        assert "postgres" in type(instance.run_storage).__name__.lower()
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert not instance.telemetry_enabled
        result = greet.execute_in_process(instance=instance)
    with dg.DagsterInstance.from_config(str(dagster_home)) as again:
        run = again.get_run_by_id(result.run_id)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert len(again.all_logs(run.run_id)) > 5


def test_a_link_to_a_file_that_has_moved_is_made_anew(postgres_home: Path, dagster_home: Path) -> None:
    """Guards a home that outlives the checkout it was made from."""
    link = dagster_home / "dagster.yaml"
    link.unlink()
    link.symlink_to(dagster_home / "gone.yaml")
    environment_for(Settings(home=postgres_home))
    assert link.resolve() == instance_config()


def test_every_variable_of_dagster_yaml_is_set(postgres_home: Path) -> None:
    """Guards against an `env` in dagster.yaml that nobody sets: every process would fail to start."""

    def variables(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {str(node["env"])} if set(node) == {"env"} else set()
            return own.union(*(variables(child) for child in node.values()))
        return set().union(*(variables(child) for child in node)) if isinstance(node, list) else set()

    wanted = variables(yaml.safe_load(instance_config().read_text()))
    assert wanted
    assert wanted <= set(environment_for(Settings(home=postgres_home)))
