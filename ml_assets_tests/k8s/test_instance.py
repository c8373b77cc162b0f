"""The Dagster instance of a cluster is that of a laptop, but for where it runs and keeps logs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import (
    DagsterK8sJobConfig,
    UserDefinedDagsterK8sConfig,
    construct_dagster_k8s_job,
    get_user_defined_k8s_config,
)

from ml_assets.defs.jobs.compute_logs import StoredLogs
from ml_assets.defs.jobs.launcher import RunLauncher
from ml_assets.defs.jobs.pods import pod_tags

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"compute_logs", "local_artifact_storage", "run_launcher"}


def load(path: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return config


def names_of_env(config: object) -> set[str]:
    """The names of all `{env: NAME}` in a configuration."""
    if isinstance(config, dict):
        if set(config) == {"env"}:
            return {config["env"]}
        return set().union(*map(names_of_env, config.values()), set())
    return set().union(*map(names_of_env, config), set()) if isinstance(config, list) else set()


def test_they_differ_in_launcher_and_logs_only() -> None:
    laptop, cluster = load("dagster.yaml"), load("k8s/base/dagster.yaml")
    assert set(cluster) - set(laptop) == {"run_launcher"}
    assert {name for name in laptop if laptop[name] != cluster[name]} <= ELSEWHERE


def test_dagster_accepts_the_instance_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a misspelt key, which would stop every process at its start."""
    cluster = load("k8s/base/dagster.yaml")
    for name in names_of_env(cluster):
        monkeypatch.setenv(name, "1")
    schema = resolve_to_config_type(dagster_instance_config_schema())
    assert process_config(schema, {k: v for k, v in cluster.items() if k != "storage"}).success
    for part, loaded in (("run_launcher", RunLauncher), ("compute_logs", StoredLogs)):
        result = process_config(resolve_to_config_type(loaded.config_type()), cluster[part]["config"])
        assert result.success, result.errors


def test_a_run_has_its_key_of_s3_beside_what_its_job_asks_for() -> None:
    """Guards tags of a job that replace what the launcher says of the container: the run could not reach the store."""
    config = load("k8s/base/dagster.yaml")["run_launcher"]["config"]
    ours = K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(config["run_k8s_config"]))
    asked = get_user_defined_k8s_config({name: json.dumps(value) for name, value in pod_tags("score").items()})
    merged = ours.merge(K8sContainerContext(run_k8s_config=asked)).run_k8s_config
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(
            job_image="image", dagster_home="/opt/dagster", instance_config_map=config["instance_config_map"],
            env_secrets=config["env_secrets"],
        ),
        args=["run"], job_name="dagster-run-1", user_defined_k8s_config=merged,
    )  # fmt: skip
    (container,) = job.spec.template.spec.containers
    found = {source.secret_ref.name: source.secret_ref.optional for source in container.env_from if source.secret_ref}
    assert found == {**dict.fromkeys(config["env_secrets"]), "ml-assets-s3-run": True}
    assert container.resources.limits["memory"] == "2Gi"
