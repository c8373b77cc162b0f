"""Jobs: what is run together, by a sensor, by a schedule or by hand.

No sensor or schedule starts the scoring job: an automation condition requests predictions when features are ready.
"""

from typing import Literal

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_assets.defs.assets.reports import report_key
from ml_assets.defs.common import key
from ml_assets.defs.jobs.pods import pod_tags
from ml_assets.lifecycle.reports import reports_of
from ml_assets.spec import UseCase

Verb = Literal["ingest", "retrain", "score", "monitor", "report", "stages"]


def ingestion_keys(usecase: UseCase) -> list[dg.AssetKey]:
    """Return the assets that change with what has landed for a date."""
    return [
        *(key(usecase, "curated", event.name) for event in usecase.events),
        *(key(usecase, "reference", reference.name) for reference in usecase.references),
        *feature_keys(usecase),
    ]


def feature_keys(usecase: UseCase) -> list[dg.AssetKey]:
    """Return the assets that change with what is known on a date."""
    return [key(usecase, "features"), key(usecase, "labels")]


def training_keys(usecase: UseCase) -> list[dg.AssetKey]:
    """Return the assets of a retraining, from the training set to the champion."""
    names = ("training_set", "evaluation", "verdict", "challenger", "champion")
    return [key(usecase, name) for name in names] + [
        key(usecase, "candidates", candidate.name) for candidate in usecase.candidates
    ]


def job_name(usecase: UseCase, verb: Verb) -> str:
    """Return the name of a job."""
    return f"{usecase.name}_{verb}"


def ingestion_job(usecase: UseCase) -> UnresolvedAssetJobDefinition:
    """Return the job that makes a date from what has landed: curated events, features and labels."""
    return _job(
        usecase,
        "ingest",
        ingestion_keys(usecase),
        f"{usecase.title}: curated events, features and labels of a date, from what has landed.",
    )


def retraining_job(usecase: UseCase) -> UnresolvedAssetJobDefinition:
    """Return the job that trains as of a date, evaluates, registers, and promotes if the gate passes."""
    return _job(
        usecase,
        "retrain",
        training_keys(usecase),
        f"{usecase.title}: train the candidates as of a date, compare them with the champion on the same unseen "
        "window, register the best, promote it if it passes the gate.",
    )


def scoring_job(usecase: UseCase) -> UnresolvedAssetJobDefinition:
    """Return the job that scores a date by hand."""
    return _job(
        usecase,
        "score",
        [key(usecase, "predictions"), key(usecase, "shadow_predictions")],
        f"{usecase.title}: score a date with the champion. Usually this happens by itself when features are ready.",
    )


def monitoring_keys(usecase: UseCase) -> list[dg.AssetKey]:
    """Return the assets that say whether the model still holds."""
    return [
        key(usecase, name)
        for name in ("outcomes", "past_cases", "performance", "drift", "shadow_verdict", "retraining_decision")
    ]


def monitoring_job(usecase: UseCase) -> UnresolvedAssetJobDefinition:
    """Return the job that monitors a date by hand."""
    return _job(
        usecase,
        "monitor",
        monitoring_keys(usecase),
        f"{usecase.title}: what came of the predictions of a date, how good they were, what has moved, and whether to "
        "retrain. Usually this happens by itself after scoring and when labels mature.",
    )


def report_keys(usecase: UseCase) -> list[dg.AssetKey]:
    """Return the assets that are reports."""
    return [report_key(usecase, report) for report in reports_of(usecase).values()]


def report_job(usecase: UseCase) -> UnresolvedAssetJobDefinition:
    """Return the job that makes the reports of a date."""
    return _job(
        usecase,
        "report",
        report_keys(usecase),
        f"{usecase.title}: the reports of a date, as pages, Markdown and CSV. Usually a schedule makes them.",
    )


def stages_job(usecase: UseCase) -> UnresolvedAssetJobDefinition:
    """Return the job that shows champion, canary and challenger of the scoring service."""
    return _job(
        usecase,
        "stages",
        [key(usecase, "served_stages")],
        f"{usecase.title}: what champion, canary and challenger said in the scoring service. Usually the sensor "
        "`champions` asks for it.",
    )


def build_jobs(usecase: UseCase) -> list[UnresolvedAssetJobDefinition]:
    """Return the jobs of a use case, but `stages_job`, which comes with its sensor."""
    made = (ingestion_job, retraining_job, scoring_job, monitoring_job, report_job)
    return [job(usecase) for job in made]


def _job(
    usecase: UseCase,
    verb: Verb,
    keys: list[dg.AssetKey],
    description: str,
) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        job_name(usecase, verb),
        selection=dg.AssetSelection.assets(*keys),
        description=description,
        tags={"use_case": usecase.name, **pod_tags(verb)},
    )
