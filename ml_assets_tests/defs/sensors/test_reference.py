"""The sensor on reference files: a new file is loaded, and the decisions that should have known it are made again."""

from datetime import UTC, datetime

import dagster as dg
import pyarrow as pa
import pytest

from ml_assets.definitions import build_definitions
from ml_assets.defs.resources import Platform
from ml_assets.defs.sensors.reference import reference_files_sensor
from ml_assets.lake import reference_quarantine_table, reference_table
from ml_assets.landing.reference import read_reference
from ml_assets.landing.schemas import event_schema
from ml_assets.lifecycle.ingestion import load_reference
from ml_assets_tests import late_payments
from ml_assets_tests.landing.conftest import append_events
from ml_assets_tests.landing.messages import NINE

DAYS = list(late_payments.CALENDAR.between(late_payments.FIRST, datetime(2026, 1, 20, tzinfo=UTC).date()))


@pytest.fixture
def platform(tmp_path):
    return Platform(home=str(tmp_path))


@pytest.fixture(scope="module")
def usecase(tmp_path_factory):
    return late_payments.usecase_of(late_payments.make_package(tmp_path_factory.mktemp("reference"), "referred"))


@pytest.fixture
def drop(platform):
    """A function that drops a file of payers."""

    def drop(name, *rows):
        folder = platform.settings.home_path / "reference" / "referred" / "payers"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(["payer,country,valid_from,published_at", *rows]) + "\n")

    return drop


@pytest.fixture
def tick(platform, usecase):
    cursor = None

    def tick():
        nonlocal cursor
        with dg.build_sensor_context(cursor=cursor, resources={"platform": platform}) as context:
            result = reference_files_sensor(usecase).evaluate_tick(context)
        cursor = result.cursor
        return result

    return tick


def land(platform, usecase):
    """Land an invoice a day."""
    event = usecase.event("invoices")
    times = [datetime.combine(day, NINE.timetz()) for day in DAYS]
    columns = {
        "event_id": [f"i-{day}" for day in DAYS],
        "event_time": times,
        "invoice_id": [f"i-{day}" for day in DAYS],
        "payer": ["P1"] * len(DAYS),
        "amount": [1.0] * len(DAYS),
        "due_date": DAYS,
        "known_at": times,
        "broker_time": times,
        "business_date": DAYS,
    }
    schema = event_schema(event)
    rows = [pa.array(columns.get(f.name, [None] * len(DAYS)), f.type) for f in schema]
    append_events(platform.lake, event, pa.table(rows, schema=schema))


def test_nothing_dropped_is_nothing_new(tick):
    assert tick().skip_message == "no reference file is new"


def test_a_new_file_asks_for_the_decisions_from_its_publication_on(tick, drop, platform, usecase):
    land(platform, usecase)
    drop("1.csv", "P1,DE,2026-01-01,2026-01-01T00:00:00Z")
    (spec,) = usecase.references
    rows, _ = read_reference(platform.settings.reference_uri, usecase.name, spec)
    platform.lake.overwrite(reference_table(usecase, spec), rows)
    assert tick().run_requests == [], "the lake has it already"

    drop("2.csv", "P1,FR,2026-01-16,2026-01-15T20:00:00Z")
    (request,) = tick().run_requests
    assert {key.to_user_string() for key in request.asset_selection} == {
        "referred/reference/payers",
        "referred/features",
        "referred/labels",
    }
    assert request.tags["dagster/asset_partition_range_start"] == "2026-01-16"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-01-20"
    assert tick().skip_message == "no reference file is new"


def test_a_file_before_anything_is_ingested_waits_for_the_first_ingestion(tick, drop, platform, usecase):
    """Guards: with the first events, both sensors asked for the same dates."""
    drop("1.csv", "P1,DE,2026-01-01,2026-01-01T00:00:00Z")
    assert "the first ingestion loads" in tick().skip_message
    land(platform, usecase)
    assert "the first ingestion loads" in tick().skip_message


def test_a_file_that_cannot_be_used_is_shown_on_its_asset_and_asks_for_no_features(tick, drop, platform, usecase):
    """Guards: without a new row nothing was asked for, so that nobody saw a broken file."""
    land(platform, usecase)
    drop("1.csv", "P1,DE,2026-01-01,2026-01-01T00:00:00Z")
    (spec,) = usecase.references
    load_reference(platform.lake, usecase, spec, platform.settings.reference_uri)
    assert tick().run_requests == []
    folder = platform.settings.home_path / "reference" / "referred" / "payers"
    (folder / "2.csv").write_bytes("payer,country".encode("utf-16"))
    (request,) = tick().run_requests
    assert request.asset_selection == [dg.AssetKey(["referred", "reference", "payers"])]
    assert request.partition_key is None

    job = build_definitions([usecase], platform).resolve_job_def("referred_ingest")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.get_subset(asset_selection=set(request.asset_selection)).execute_in_process(instance=instance)
    (made,) = result.get_asset_materialization_events()
    assert "files left out" in made.step_materialization_data.materialization.metadata
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("reference_files", False)
    (bad,) = platform.lake.read(reference_quarantine_table(usecase, spec)).to_pylist()
    assert bad["file"].endswith("2.csv")
    assert tick().skip_message == "no reference file is new"
