"""The asset graph: one module per stage, each with a function that makes the stage's assets for a use case.

Assets hold no logic. They call a function of `ml_assets.lifecycle` and show what it returns.
"""

import warnings

import dagster as dg

from ml_assets.defs.assets import evaluation, features, ingestion, monitoring, registration, reports, scoring, training
from ml_assets.spec import UseCase

# Backfills in one run and windows that start before the first partition are beta in Dagster; we use them knowingly.
warnings.filterwarnings("ignore", message=".*is currently in beta", category=dg.BetaWarning)

STAGES = (ingestion, features, training, evaluation, registration, scoring, monitoring, reports)


def build_assets(usecase: UseCase) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets of all stages of a use case, from its topics to its work-list."""
    return [asset for stage in STAGES for asset in stage.build(usecase)]
