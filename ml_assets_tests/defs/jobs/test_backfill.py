"""A backfill of many dates is several runs side by side: real daemon, queue, run processes, PostgreSQL and broker."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pyarrow.compute as pc
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from dagster_graphql.test.utils import execute_dagster_graphql

from ml_assets.definitions import build_definitions
from ml_assets.defs.common import side_by_side
from ml_assets.lake import Lake, curated_table, features_table, labels_table, quarantine_table
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.lifecycle.features import compute_features, mature_labels
from ml_assets.lifecycle.ingestion import curate_dates, load_reference
from ml_assets.local.embedded.environment import environment_for
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets.local.simulation.messages import Message
from ml_assets.settings import Settings
from ml_assets.spec import UseCase
from ml_assets_tests import late_payments
from ml_assets_tests.daemon import Daemon, daemon_of

NAME = "backfilled"
DAYS, PER_RUN, AT_ONCE = 20, 7, 2
SECONDS = 1500.0
AT_WORK = {dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED}
LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


@dataclass
class Site:
    """A use case of which days have landed and nothing is made, the daemon, and what it was seen to run at once."""

    usecase: UseCase
    daemon: Daemon
    lake: Lake
    kafka: KafkaConnection
    home: Path
    at_once: list[set[str]] = field(default_factory=list)

    @property
    def days(self) -> list[date]:
        return list(late_payments.CALENDAR.between(late_payments.FIRST, date(2026, 3, 31)))[:DAYS]

    def land(self, *messages: Message) -> None:
        produce(self.kafka, messages)
        Lander(self.lake, self.usecase.events, self.kafka, clock="replay").land_available()

    def launch(self, *assets: list[str]) -> str:
        """Start a backfill of all days as the UI does; return its id."""
        params = {
            "assetSelection": [{"path": [NAME, *path]} for path in assets],
            "partitionNames": [day.isoformat() for day in self.days],
            "title": "twenty days",
            "tags": [],
        }
        request = self.daemon.workspace.create_request_context()
        said = execute_dagster_graphql(request, LAUNCH, {"params": params}).data["launchPartitionBackfill"]
        assert said["__typename"] == "LaunchBackfillSuccess", said
        return str(said["backfillId"])

    def runs(self, backfill: str | None = None) -> list[dg.DagsterRun]:
        """The runs, the oldest first."""
        tags = {"dagster/backfill": backfill} if backfill else {}
        return list(reversed(self.daemon.instance.get_runs(dg.RunsFilter(tags=tags))))

    def follow(self, backfill: str, meanwhile: Callable[[], None]) -> None:
        """Let the daemon work until the backfill, and all that was asked for beside it, has ended."""
        end = time.monotonic() + SECONDS
        with self.daemon.ticking() as tick:
            while time.monotonic() < end:
                tick()
                self.at_once.append({run.run_id for run in self.runs(backfill) if run.status in AT_WORK})
                meanwhile()
                ended = self.daemon.instance.get_backfill(backfill)
                assert ended is not None
                if ended.status is not BulkActionStatus.REQUESTED and all(run.is_finished for run in self.runs()):
                    assert ended.status is BulkActionStatus.COMPLETED_SUCCESS, ended.status
                    return
                time.sleep(0.5)
        raise TimeoutError(f"{[(run.run_id, run.status) for run in self.runs() if not run.is_finished]}")


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: EmbeddedPostgres, broker: KafkaConnection
) -> Iterator[Site]:
    """Twenty days that have landed."""
    home = tmp_path_factory.mktemp("backfill")
    package = late_payments.make_package(home / "package", NAME)
    postgres_server.create_databases("dagster", "mlflow", "ml_assets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_ASSETS_HOME", str(home))
        patch.setenv("ML_ASSETS_POSTGRES_URL", postgres_server.url("postgres"))
        patch.setenv("ML_ASSETS_KAFKA_BOOTSTRAP", broker.bootstrap)
        patch.setenv("ML_ASSETS_USECASE_PACKAGES", package)
        patch.setenv("ML_ASSETS_MAX_CONCURRENT_RUNS", "4")
        patch.setenv("ML_ASSETS_BACKFILL_RUNS", str(AT_ONCE))
        patch.setenv("ML_ASSETS_BACKFILL_DATES", str(PER_RUN))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(home / "package"), os.environ.get("PYTHONPATH", "")]))
        settings = Settings()
        for name, value in environment_for(settings).items():
            patch.setenv(name, value)
        usecase = late_payments.usecase_of(package)
        ensure_topics(broker, [event.topic for event in usecase.events])
        late_payments.write_reference(Path(settings.reference_uri), NAME)
        lake = Lake(settings.lake_uri)
        load_reference(lake, usecase, usecase.references[0], settings.reference_uri)
        with daemon_of("ml_assets.definitions") as daemon:
            made = Site(usecase, daemon, lake, broker, home)
            made.land(*late_payments.messages(DAYS, name=NAME))
            yield made


def content(lake: Lake, usecase: UseCase) -> dict[str, list[str]]:
    """Every row of what the dates are, whatever its order in files."""
    tables = [features_table(usecase), labels_table(usecase)]
    tables += [of(usecase, event) for event in usecase.events for of in (curated_table, quarantine_table)]
    return {name: sorted(map(repr, lake.read(name).to_pylist())) for name in tables}


def in_one_run(site: Site, where: Path) -> dict[str, list[str]]:
    """What one run of all dates makes of what has landed."""
    shutil.copytree(Path(site.lake.root) / "landing", where / "landing")
    lake = Lake(str(where))
    load_reference(lake, site.usecase, site.usecase.references[0], Settings().reference_uri)
    for event in site.usecase.events:
        curate_dates(lake, site.usecase, event, site.days)
    compute_features(lake, site.usecase, site.days)
    mature_labels(lake, site.usecase, site.days)
    return content(lake, site.usecase)


def kill(run: dg.DagsterRun, instance: dg.DagsterInstance) -> bool:
    """Kill the process of a run as the kernel does, once it is at its step; return whether it came to that."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        logs = [record.dagster_event for record in instance.all_logs(run.run_id) if record.dagster_event]
        kinds = {event.event_type for event in logs}
        if dg.DagsterEventType.STEP_SUCCESS in kinds:
            return False
        if dg.DagsterEventType.STEP_START in kinds:
            told = [one.engine_event_data.metadata for one in logs if one.is_engine_event]
            pid = next(int(str(one["pid"].value)) for one in reversed(told) if "pid" in one)
            assert pid != os.getpid(), "the daemon is this process; a run has its own"
            os.kill(pid, signal.SIGKILL)
            return True
        time.sleep(0.01)
    raise TimeoutError(f"run {run.run_id} does not come to its step")


def is_features(run: dg.DagsterRun) -> bool:
    return run.asset_selection == {dg.AssetKey([NAME, "features"])}


@pytest.mark.end_to_end
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated")  # Dagster calls
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")  # them itself
def test_a_backfill_side_by_side_is_one_run_of_all_dates(site: Site, tmp_path: Path) -> None:
    """In its middle a run is killed, and an event lands late that decisions of many dates can see.

    Guards features of dates that overtook the curated events they look back on, and a run that wrote what it had made
    of older data over what the sensor's run had made of newer.
    """
    instance, killed, landed = site.daemon.instance, [], []
    backfill = site.launch(["curated", "invoices"], ["curated", "payments"], ["features"], ["labels"])

    asked = instance.get_backfill(backfill).asset_backfill_data.target_subset.partitions_subsets_by_asset_key
    days = [str(day) for day in site.days]
    assert [sorted(dates.get_partition_keys()) for dates in asked.values()] == [days] * 4, "what was asked for, no more"

    def meanwhile() -> None:
        working = [run for run in site.runs(backfill) if run.status in AT_WORK and is_features(run)]
        if working and not landed:
            raised = datetime.combine(site.days[4], datetime.min.time(), tzinfo=UTC).replace(hour=9)
            late = {"invoice_id": "late", "payer": "P3", "amount": 70.0, "due_date": site.days[6]}
            site.land(late_payments.message(f"{NAME}_invoices", raised, event_id="i-late", **late))
            landed.append(True)
        if working and not killed and kill(working[0], instance):
            killed.append(working[0].run_id)
        if len(landed) == 1 and killed:
            site.daemon.tick_sensors()
            landed.append(True)

    site.follow(backfill, meanwhile)

    assert len(landed) == 2
    runs = site.runs(backfill)
    (retry,) = [run for run in runs if run.parent_run_id in killed]
    assert retry.status is dg.DagsterRunStatus.SUCCESS
    assert content(site.lake, site.usecase) == in_one_run(site, tmp_path)
    assert len(site.lake.read(features_table(site.usecase)).filter(pc.field("entity_id") == "late")) == 1

    assert max(map(len, site.at_once)) == AT_ONCE, "as many at a time as the setting says"
    ranges = {
        (run.tags["dagster/asset_partition_range_start"], run.tags["dagster/asset_partition_range_end"]) for run in runs
    }
    chunks = [site.days[at : at + PER_RUN] for at in range(0, DAYS, PER_RUN)]
    assert {(str(chunk[0]), str(chunk[-1])) for chunk in chunks} <= ranges
    assert {run.tags[f"ml_assets/{NAME}_lake"] for run in runs} == {"backfill"}
    beside = [run for run in site.runs() if "dagster/backfill" not in run.tags and f"ml_assets/{NAME}_lake" in run.tags]
    assert beside
    assert {run.tags[f"ml_assets/{NAME}_lake"] for run in beside} == {"in turn"}
    assert {run.status for run in beside} == {dg.DagsterRunStatus.SUCCESS}


def test_assets_of_several_runs_are_those_that_go_side_by_side(site: Site) -> None:
    """Guards the queue, which tells them by their keys, against another policy."""
    graph = build_definitions([site.usecase]).resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.materializable_asset_keys]
    several = {node.key for node in nodes if node.backfill_policy == dg.BackfillPolicy.multi_run(PER_RUN)}
    assert several == {node.key for node in nodes if node.is_partitioned and side_by_side(node.key)}
    assert len(several) == 4
