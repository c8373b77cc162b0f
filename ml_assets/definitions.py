"""Where everything meets: use cases, assets, jobs, schedules, sensors and resources, as Dagster definitions."""

from collections.abc import Sequence

import dagster as dg

from ml_assets.answers import landed_events
from ml_assets.defs.assets import alerts, build_assets, ingestion, maintenance
from ml_assets.defs.checks.landing import accounting_check, curation_check
from ml_assets.defs.jobs import build_jobs
from ml_assets.defs.jobs.alerts import alerts_job, alerts_schedules
from ml_assets.defs.jobs.executor import metered_executor
from ml_assets.defs.jobs.landing import connect_job, connect_schedule, landing_schedules
from ml_assets.defs.jobs.maintenance import maintenance_job, maintenance_schedule
from ml_assets.defs.resources import Platform
from ml_assets.defs.schedules import report_schedule, retraining_schedule
from ml_assets.defs.sensors import (
    automation_sensor,
    champions_sensor,
    kafka_lag_sensor,
    landed_data_sensor,
    reference_files_sensor,
    retraining_sensor,
)
from ml_assets.lifecycle.check import refuse_two_contracts
from ml_assets.settings import Settings
from ml_assets.spec import UseCase
from ml_assets.usecases import discover


def build_definitions(usecases: Sequence[UseCase] | None = None, platform: Platform | None = None) -> dg.Definitions:
    """Return the definitions of these use cases (all that are found) on a platform (that of the settings).

    Topics that several use cases read appear once.

    Raises:
        ValueError: two use cases have different contracts for one topic.
    """
    if usecases is None:
        usecases = discover(Settings().usecase_packages)
    refuse_two_contracts(usecases)
    assets = {_key(asset): asset for usecase in usecases for asset in build_assets(usecase)}
    assets |= {_key(asset): asset for asset in ingestion.build_answers()}
    assets |= {_key(asset): asset for asset in alerts.build(usecases, alerts.upstream_of(assets.values()))}
    assets |= {_key(asset): asset for asset in maintenance.build(usecases)}
    accounts = [accounting_check(event) for event in landed_events(usecases)]
    accounts += [curation_check(usecase, event) for usecase in usecases for event in usecase.events]
    connect = connect_job(usecases)
    return dg.Definitions(
        assets=list(assets.values()),
        asset_checks=accounts,
        jobs=[*(job for usecase in usecases for job in build_jobs(usecase)), maintenance_job, connect, alerts_job()],
        schedules=[
            *(retraining_schedule(usecase) for usecase in usecases),
            *(report_schedule(usecase) for usecase in usecases),
            maintenance_schedule,
            *alerts_schedules(),
            *landing_schedules(accounts),
            connect_schedule(connect),
        ],
        sensors=[
            *(landed_data_sensor(usecase) for usecase in usecases),
            *(reference_files_sensor(usecase) for usecase in usecases if usecase.references),
            *(retraining_sensor(usecase) for usecase in usecases),
            kafka_lag_sensor(usecases),
            champions_sensor(usecases),
            automation_sensor(),
        ],
        resources={"platform": platform or Platform()},
        executor=metered_executor,
    )


def _key(asset: dg.AssetsDefinition | dg.AssetSpec) -> dg.AssetKey:
    return asset.key


defs = build_definitions()
