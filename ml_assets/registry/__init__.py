"""MLflow tracking and model registry, by explicit run ids and versions; no state that other code could change."""

from ml_assets.registry.lineage import Lineage
from ml_assets.registry.registry import (
    CHALLENGER,
    CHAMPION,
    CandidateRun,
    ModelRegistry,
    ModelVersion,
    Trial,
)

__all__ = ["CHALLENGER", "CHAMPION", "CandidateRun", "Lineage", "ModelRegistry", "ModelVersion", "Trial"]
