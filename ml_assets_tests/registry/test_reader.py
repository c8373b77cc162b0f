"""What is read from MLflow's tables by SQL is what MLflow's own client says."""

import math

import pytest

from ml_assets.registry import ModelRegistry
from ml_assets.registry.reader import DatabaseReader
from ml_assets_tests.registry.test_registry import log, model_folder, registry, usecase  # noqa: F401 - fixtures


def test_reader_and_client_agree_on_versions_and_runs(registry, usecase, model_folder):  # noqa: F811
    """Guards against a release of MLflow that keeps aliases, versions, tags or metrics elsewhere."""
    runs = [
        log(registry, usecase, model_folder, candidate, metrics={"pr_auc": 0.1 + 0.2, "lift": 1e-300})
        for candidate in ("logistic", "lightgbm")
    ]
    for run in runs:
        registry.register(usecase, run, tags={"candidate": run})
    registry.promote(usecase, 1)
    client, reader = registry._client, registry._reader
    for alias, number in (("champion", 1), ("challenger", 2)):
        version, theirs = reader.by_alias(usecase, alias), client.get_model_version_by_alias(usecase, alias)
        assert version.version == int(theirs.version) == number
        assert (version.run_id, version.tags) == (theirs.run_id, dict(theirs.tags))
        assert reader.by_run(usecase, version.run_id) == version
    for run in runs:
        read, theirs = reader.run(run), client.get_run(run)
        assert read.metrics == theirs.data.metrics
        assert read.tags == theirs.data.tags
        assert read.params == theirs.data.params
    assert reader.by_alias(usecase, "nobody") is reader.by_run(usecase, "0" * 32) is reader.run("0" * 32) is None


def test_a_metric_that_is_no_number_stays_none(registry, usecase, model_folder):  # noqa: F811
    """Guards NaN, which MLflow keeps as a zero with a mark beside it."""
    run = log(registry, usecase, model_folder, "logistic")
    registry._client.log_metric(run, "undefined", float("nan"))
    assert math.isnan(registry._reader.run(run).metrics["undefined"])


def test_deleted_versions_are_not_read(registry, usecase, model_folder):  # noqa: F811
    """Guards versions that MLflow keeps in its table and marks as deleted."""
    run = log(registry, usecase, model_folder, "logistic")
    registry.register(usecase, run, tags={})
    registry._client.delete_model_version(usecase, "1")
    assert registry._reader.by_run(usecase, run) is None
    assert registry._reader.by_alias(usecase, "challenger") is None


def test_a_database_without_mlflow_has_no_versions(database_url):
    assert DatabaseReader(database_url).by_alias("cns_fails", "champion") is None
    with pytest.raises(LookupError, match="there is no MLflow run"):
        ModelRegistry(database_url, "nowhere").run("0" * 32)
