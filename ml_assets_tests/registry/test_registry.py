"""The registry on a real MLflow backend, in PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from ml_assets.registry import CHALLENGER, CHAMPION, Lineage, ModelRegistry

TRAINED = date(2026, 3, 27)
LINEAGE = Lineage(
    git_commit="abc",
    dagster_run_id="run",
    feature_set_hash="f00",
    data_versions={"features/fails": 7},
    train_first=date(2026, 1, 5),
    train_last=date(2026, 3, 2),
    test_first=date(2026, 3, 3),
    test_last=date(2026, 3, 20),
    window_hash="beef",
)


@pytest.fixture(scope="module")
def registry(postgres_server, tmp_path_factory) -> ModelRegistry:
    postgres_server.create_databases("registry")
    root = tmp_path_factory.mktemp("registry")
    return ModelRegistry(postgres_server.url("registry", "psycopg2"), str(root / "artifacts"), cache=root / "cache")


@pytest.fixture
def usecase(request) -> str:
    """A use case of the test's own."""
    return request.node.name


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    """A model that returns its input."""
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", value[:1], value[1:])
    folder = tmp_path_factory.mktemp("model")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "manifest.json").write_text("{}")
    return folder


def log(registry, usecase, model_folder, candidate="logistic", **changes):
    given = {
        "training_date": TRAINED,
        "params": {"C": 1.0},
        "metrics": {"pr_auc": 0.4},
        "plots": {"plots/reliability.png": b"png"},
        "tables": {"metrics_by_slot.csv": "slot,pr_auc\n"},
        "model_folder": model_folder,
        "lineage": LINEAGE,
    }
    return registry.log_candidate(usecase, candidate, **(given | changes))


def test_a_run_tells_code_data_and_orchestration(registry, usecase, model_folder):
    log(registry, usecase, model_folder)
    run = registry.candidate_runs(usecase, TRAINED)["logistic"]
    assert run.metrics == {"pr_auc": 0.4}
    assert run.tags["data_versions"] == '{"features/fails": 7}'
    assert run.tags["git_commit"] == "abc"
    assert run.tags["dagster_run_id"] == "run"
    assert registry.read_evidence(run.run_id, "metrics_by_slot.csv") == "slot,pr_auc\n"


def test_the_newest_run_of_a_candidate_counts(registry, usecase, model_folder):
    log(registry, usecase, model_folder)
    newer = log(registry, usecase, model_folder)
    assert registry.candidate_runs(usecase, TRAINED)["logistic"].run_id == newer
    assert registry.candidate_runs(usecase, date(2026, 3, 26)) == {}


def test_an_undefined_metric_is_named_and_not_zero(registry, usecase, model_folder):
    log(registry, usecase, model_folder, metrics={"pr_auc": float("nan"), "n": 0.0})
    run = registry.candidate_runs(usecase, TRAINED)["logistic"]
    assert run.metrics == {"n": 0.0}
    assert run.tags["undefined_metrics"] == "pr_auc"


def test_a_run_that_fails_half_way_is_never_found(registry, usecase, tmp_path):
    with pytest.raises(FileNotFoundError):
        log(registry, usecase, tmp_path / "no model")
    assert registry.candidate_runs(usecase, TRAINED) == {}


def test_registering_twice_is_one_version(registry, usecase, model_folder):
    run_id = log(registry, usecase, model_folder)
    first = registry.register(usecase, run_id, tags={"candidate": "logistic"})
    assert registry.register(usecase, run_id, tags={}) == first
    assert registry.resolve(usecase, CHALLENGER) == first
    assert registry.resolve(usecase, CHAMPION) is None


def test_promotion_notes_the_way_back(registry, usecase, model_folder):
    first = registry.register(usecase, log(registry, usecase, model_folder), tags={})
    second = registry.register(usecase, log(registry, usecase, model_folder), tags={})
    registry.promote(usecase, first.version)
    promoted = registry.promote(usecase, second.version, override="the feed was down, see the incident")
    assert registry.resolve(usecase, CHAMPION) == promoted
    assert promoted.tags["previous_champion"] == str(first.version)
    assert promoted.tags["gate_override"] == "the feed was down, see the incident"
    assert [version.version for version in registry.versions(usecase)] == [2, 1]


def test_promoting_the_champion_again_changes_nothing(registry, usecase, model_folder):
    first = registry.register(usecase, log(registry, usecase, model_folder), tags={})
    before = registry.promote(usecase, first.version)
    assert registry.promote(usecase, first.version) == before


def test_an_unknown_version_is_named_with_those_that_exist(registry, usecase, model_folder):
    registry.register(usecase, log(registry, usecase, model_folder), tags={})
    with pytest.raises(LookupError, match="has no model version 9; it has 1"):
        registry.promote(usecase, 9)


def test_a_model_is_downloaded_once(registry, usecase, model_folder):
    run_id = log(registry, usecase, model_folder)
    folder = registry.download_model(run_id)
    assert (folder / "model.onnx").is_file()
    assert (folder / "manifest.json").read_text() == "{}"
    written = (folder / "manifest.json").stat().st_mtime_ns
    assert registry.download_model(run_id) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == written


def test_evidence_that_was_never_written_is_missing(registry, usecase, model_folder):
    run_id = log(registry, usecase, model_folder)
    with pytest.raises(FileNotFoundError, match=r"has no artifact evidence\.json"):
        registry.read_evidence(run_id, "evidence.json")
    registry.write_evidence(run_id, "evidence.json", "{}")
    registry.write_evidence(run_id, "evidence.json", '{"again": 1}')
    assert registry.read_evidence(run_id, "evidence.json") == '{"again": 1}'


def test_two_processes_may_open_an_empty_backend_at_once(postgres_server, tmp_path):
    """Guards: MLflow makes its tables without a lock, and the second of two runs that start together failed."""
    postgres_server.create_databases("empty_registry")
    url = postgres_server.url("empty_registry", "psycopg2")
    registries = [ModelRegistry(url, str(tmp_path / "artifacts")) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda r: r.resolve("nobody", CHAMPION), registries)) == [None, None]
