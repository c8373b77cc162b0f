"""Features to predictions, by the champion only, into the lake and into PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray
from sqlalchemy import Engine

from ml_assets.database.predictions import ScoredTime, UpsertCount, upsert_predictions
from ml_assets.database.schema import PREDICTIONS_SCHEMA
from ml_assets.database.work_list import left_work_list
from ml_assets.errors import NotFoundError
from ml_assets.lake import Lake, features_table, predictions_table
from ml_assets.learning.score_checks import DateVerdict
from ml_assets.learning.scorer import Scorer
from ml_assets.lifecycle.champion import settle
from ml_assets.lifecycle.decided import decided_times
from ml_assets.lifecycle.training import RunOrigin
from ml_assets.predictions.score import Provenance, predictions_for, retain_provenance, score
from ml_assets.registry import ModelRegistry, ModelVersion
from ml_assets.spec import UseCase


@dataclass(frozen=True)
class ScoringReport:
    """Which model scored how many rows: `upserted` counts changes in PostgreSQL, `rows` the rows of the partitions.

    `left` entities left the work-lists at these decision times, since they were no longer open.
    """

    champion: ModelVersion
    rows: int
    probabilities: NDArray[np.float64]
    upserted: UpsertCount
    predictions: pa.Table
    judged: Sequence[DateVerdict]
    left: int


def score_dates(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine,
    usecase: UseCase,
    dates: Sequence[date],
    origin: RunOrigin,
    *,
    threads: int = 0,
    despite: str = "",
) -> ScoringReport:
    """Score the decisions of these dates with the champion.

    Scores are judged against the champion's calibration window before anything is written; with a reason in `despite`
    they are published all the same. The decisions that the team is to act on carry their reasons. Entities that are no
    longer open at a decision time leave the work-list, even if none is open (`Slot.days_before`). Scoring the same
    features with the same champion again leaves every row as it is.

    The champion is what the ledger names, and its files are those that were approved. Nothing is published otherwise.

    Raises:
        LookupError: there is no champion.
        ChampionError: the alias in MLflow names another model than the ledger, or the champion is gone.
        ModelChangedError: the champion's files are not those that were approved.
        ValueError: the champion was trained on another definition of the features.
        ScoresRefusedError: the scores of a date break a limit of the use case's `gate.batch`.
    """
    settled = settle(registry, engine, usecase)
    if settled is None:
        raise NotFoundError(
            f"use case {usecase.name} has no champion to score with; run its retraining job, and see in the asset "
            "`champion` why the challenger was not promoted"
        )
    champion = settled.version
    scorer = Scorer.from_files(registry.download_model(champion.run_id, settled.model_hash), threads=threads)
    features, version = decisions_of(lake, usecase, dates)

    scored = score(usecase, scorer, features, despite=despite)
    predictions = predictions_for(
        usecase,
        features,
        scored.probabilities,
        provenance_of(usecase, champion.version, champion.run_id, version, origin),
        scored.reasons,
    )
    times = [
        ScoredTime(usecase.name, decision.as_of, champion.version, champion.run_id, usecase.decides_all(decision))
        for decision in decided_times(lake, usecase, dates, features)
    ]
    predictions = write_predictions(lake, predictions_table(usecase), predictions, dates)
    upserted = upsert_predictions(engine, predictions, scored=times)
    return ScoringReport(
        champion=champion,
        rows=predictions.num_rows,
        probabilities=scored.probabilities,
        upserted=upserted,
        predictions=predictions,
        judged=scored.judged,
        left=left_work_list(engine, usecase.name, [one.decision_time for one in times]),
    )


def decisions_of(lake: Lake, usecase: UseCase, dates: Sequence[date]) -> tuple[pa.Table, int]:
    """Return the feature rows of these dates, and the version of the table that they are of."""
    version = lake.version(features_table(usecase))
    where = ds.field("decision_date").isin(list(dates))
    return lake.read(features_table(usecase), where=where, version=version), version or 0


def provenance_of(usecase: UseCase, version: int, run_id: str, features: int, origin: RunOrigin) -> Provenance:
    """Return where the predictions of a model version come from, made now from a version of the features table."""
    return Provenance(
        model_version=version,
        model_name=usecase.name,
        mlflow_run_id=run_id,
        feature_set_hash=usecase.feature_set_hash,
        data_versions={features_table(usecase): features},
        git_commit=origin.code_version,
        dagster_run_id=origin.dagster_run_id,
        scored_at=datetime.now(UTC),
    )


def write_predictions(lake: Lake, name: str, predictions: pa.Table, dates: Sequence[date]) -> pa.Table:
    """Replace the partitions and return their rows: a row with equal values keeps its first provenance."""
    dataset = lake.dataset(name)
    if dataset is not None:
        stored = dataset.to_table(columns=PREDICTIONS_SCHEMA.names, filter=ds.field("decision_date").isin(list(dates)))
        predictions = retain_provenance(predictions, stored)
    lake.replace(name, predictions, "decision_date", dates)
    return predictions
