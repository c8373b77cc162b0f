"""Features to predictions, by the champion and nothing else, into the lake and into PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray
from sqlalchemy import Engine

from ml_assets.database.predictions import UpsertCount, upsert_predictions
from ml_assets.database.schema import PREDICTIONS_SCHEMA
from ml_assets.lake import Lake, features_table, predictions_table
from ml_assets.learning.reasons import reason_codes
from ml_assets.learning.scorer import Scorer
from ml_assets.lifecycle.training import RunOrigin
from ml_assets.registry import CHAMPION, ModelRegistry, ModelVersion
from ml_assets.scoring import Provenance, flagged, predictions_for, retain_provenance
from ml_assets.spec import UseCase


@dataclass(frozen=True)
class ScoringReport:
    """Who scored how much: `upserted` is what changed in PostgreSQL, `rows` what the partitions hold."""

    champion: ModelVersion
    rows: int
    probabilities: NDArray[np.float64]
    upserted: UpsertCount
    predictions: pa.Table


def score_dates(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine,
    usecase: UseCase,
    dates: Sequence[date],
    origin: RunOrigin,
    *,
    threads: int = 0,
) -> ScoringReport:
    """Score the decisions of these dates with the champion.

    The decisions that the team is to act on carry their reasons. Scoring the same features with the same champion again
    leaves every row as it is.

    Raises:
        LookupError: there is no champion.
        ValueError: the champion was trained on another definition of the features.
    """
    champion = registry.resolve(usecase.name, CHAMPION)
    if champion is None:
        raise LookupError(
            f"use case {usecase.name} has no champion to score with; run its retraining job, and see in the asset "
            "`champion` why the challenger was not promoted"
        )
    scorer = Scorer.from_files(registry.download_model(champion.run_id), threads=threads)
    if scorer.manifest.feature_set_hash != usecase.feature_set_hash:
        raise ValueError(
            f"use case {usecase.name}: champion version {champion.version} was trained on feature set "
            f"{scorer.manifest.feature_set_hash}, now it is {usecase.feature_set_hash}; retrain before scoring"
        )
    version = lake.version(features_table(usecase))
    features = lake.read(features_table(usecase), where=ds.field("decision_date").isin(list(dates)), version=version)
    probabilities = scorer.score(features)
    acted_on = flagged(usecase, features, probabilities)
    reasons: list[str | None] = [None] * features.num_rows
    found = reason_codes(usecase, scorer, features.filter(pa.array(acted_on)), probabilities[acted_on])
    for row, text in zip(np.flatnonzero(acted_on), found, strict=True):
        reasons[row] = text
    predictions = predictions_for(
        usecase,
        features,
        probabilities,
        Provenance(
            model_version=champion.version,
            model_name=champion.name,
            mlflow_run_id=champion.run_id,
            feature_set_hash=usecase.feature_set_hash,
            data_versions={features_table(usecase): version or 0},
            git_commit=origin.code_version,
            dagster_run_id=origin.dagster_run_id,
            scored_at=datetime.now(UTC),
        ),
        reasons,
    )
    predictions = _write(lake, predictions_table(usecase), predictions, dates)
    return ScoringReport(
        champion=champion,
        rows=predictions.num_rows,
        probabilities=probabilities,
        upserted=upsert_predictions(engine, predictions, complete=True),
        predictions=predictions,
    )


def _write(lake: Lake, name: str, predictions: pa.Table, dates: Sequence[date]) -> pa.Table:
    """Replace the partitions and return what they hold: a row that says the same keeps its first provenance."""
    dataset = lake.dataset(name)
    if dataset is not None:
        stored = dataset.to_table(columns=PREDICTIONS_SCHEMA.names, filter=ds.field("decision_date").isin(list(dates)))
        predictions = retain_provenance(predictions, stored)
    lake.replace(name, predictions, "decision_date", dates)
    return predictions
