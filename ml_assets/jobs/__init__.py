"""Jobs: what is run together, by a sensor, by a schedule or by hand.

Scoring is no job of a sensor or schedule: the predictions ask for themselves when features are ready.
"""

from typing import Literal

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_assets.assets.common import key
from ml_assets.jobs.pods import pod_tags
from ml_assets.spec import UseCase

Verb = Literal["ingest", "retrain", "score"]

# Runs of a use case that carry this tag go one after the other (tag_concurrency_limits in dagster.yaml), in the order
# in which they were requested: features must not overtake the curated events that they look back on.
LAKE_WRITER = "ml_assets/lake_writer"


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
        {LAKE_WRITER: usecase.name},
    )


def retraining_job(usecase: UseCase) -> UnresolvedAssetJobDefinition:
    """Return the job that trains as of a date, evaluates, registers, and promotes if the gate says yes."""
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
        [key(usecase, "predictions")],
        f"{usecase.title}: score a date with the champion. Usually this happens by itself when features are ready.",
    )


def build_jobs(usecase: UseCase) -> list[UnresolvedAssetJobDefinition]:
    """Return all jobs of a use case."""
    return [ingestion_job(usecase), retraining_job(usecase), scoring_job(usecase)]


def _job(
    usecase: UseCase,
    verb: Verb,
    keys: list[dg.AssetKey],
    description: str,
    tags: dict[str, str] | None = None,
) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        job_name(usecase, verb),
        selection=dg.AssetSelection.assets(*keys),
        description=description,
        tags={"use_case": usecase.name, **pod_tags(verb), **(tags or {})},
    )
