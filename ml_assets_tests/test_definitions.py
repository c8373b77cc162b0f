"""The asset graph as a whole: what every asset must tell, and that a use case is one folder."""

import subprocess
import sys

import dagster as dg
import pytest

from ml_assets.contracts import Event
from ml_assets.definitions import build_definitions
from ml_assets.usecases import discover
from ml_assets_tests import late_payments

STAGES = [
    "kafka",
    "landing",
    "ingestion",
    "features",
    "training",
    "evaluation",
    "registration",
    "scoring",
    "monitoring",
    "reports",
    "alerts",
    "maintenance",
]


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions()


def test_both_use_cases_are_found():
    """Others may be added to the package without a change here."""
    assert {"cns_fails", "settlement_fails"} <= {usecase.name for usecase in discover()}


def test_every_asset_has_a_stage_a_description_a_kind_and_an_owner(definitions):
    for spec in definitions.resolve_all_asset_specs():
        assert spec.group_name in STAGES, spec.key
        assert spec.description, spec.key
        assert spec.kinds, spec.key
        assert spec.owners or spec.group_name in {"kafka", "landing", "maintenance"}, spec.key


def test_stages_follow_each_other(definitions):
    """Guards: an arrow that points back would make the picture of the lifecycle a lie."""
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    for spec in specs.values():
        for dep in spec.deps:
            assert STAGES.index(specs[dep.asset_key].group_name) <= STAGES.index(spec.group_name), spec.key


def test_tables_tell_their_columns(definitions):
    for spec in definitions.resolve_all_asset_specs():
        if spec.group_name in {"ingestion", "features"} and spec.key.path[-1] != "labels":
            assert spec.metadata["dagster/column_schema"].columns, spec.key


def test_each_use_case_has_jobs_a_schedule_and_a_sensor(definitions):
    repository = definitions.get_repository_def()
    for usecase in discover():
        assert {
            f"{usecase.name}_{verb}" for verb in ("ingest", "retrain", "score", "monitor", "report", "stages")
        } <= set(repository.job_names)
        assert repository.get_schedule_def(f"{usecase.name}_nightly_retraining").cron_schedule == "0 22 * * 1-5"
        assert repository.get_sensor_def(f"{usecase.name}_landed_data").default_status.value == "RUNNING"


def test_a_new_use_case_is_one_new_folder(tmp_path):
    """A data scientist adds a folder; nothing is edited elsewhere."""
    usecase = late_payments.usecase_of(late_payments.make_package(tmp_path, "invoices"))
    repository = build_definitions([*discover(), usecase]).get_repository_def()
    assert "invoices_retrain" in repository.job_names
    assert dg.AssetKey(["invoices", "candidates", "logistic"]) in repository.asset_graph.get_all_asset_keys()


def test_two_use_cases_may_read_one_topic(tmp_path):
    import dataclasses

    one = late_payments.usecase_of(late_payments.make_package(tmp_path, "first"))
    other = dataclasses.replace(one, name="second")
    keys = [asset.key for asset in build_definitions([one, other]).resolve_all_asset_specs()]
    assert keys.count(dg.AssetKey(["landing", "first_invoices"])) == 1


def test_two_contracts_for_one_topic_are_refused(tmp_path):
    """Guards: the lander decodes a topic once; a second contract for it would silently be ignored."""
    import dataclasses

    class Other(Event, frozen=True, kw_only=True):
        something: str

    one = late_payments.usecase_of(late_payments.make_package(tmp_path, "mine"))
    events = (dataclasses.replace(one.events[0], contract=Other), *one.events[1:])
    with pytest.raises(ValueError, match=r"topic mine_invoices has two contracts, pkg_.*\.contracts\.Invoice and "):
        build_definitions([one, dataclasses.replace(one, name="yours", events=events)])


def test_importing_the_definitions_reads_and_starts_nothing():
    """Guards: a code server that needs a database to start cannot tell what is wrong with the database."""
    program = (
        "import sys, ml_assets.definitions\n"
        "heavy = {'mlflow', 'sklearn', 'lightgbm', 'onnxruntime', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={"ML_ASSETS_POSTGRES_URL": "postgresql://nowhere:1"}
    )
