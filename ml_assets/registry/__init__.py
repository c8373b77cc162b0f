"""MLflow tracking and model registry, by explicit run ids and versions; no state that other code could change."""

from ml_assets.registry.integrity import MODEL_HASH, ModelChangedError
from ml_assets.registry.lineage import Lineage
from ml_assets.registry.reader import CandidateRun, ModelVersion
from ml_assets.registry.registry import CHALLENGER, CHAMPION, ModelRegistry, TrackedTrial

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "MODEL_HASH",
    "CandidateRun",
    "Lineage",
    "ModelChangedError",
    "ModelRegistry",
    "ModelVersion",
    "TrackedTrial",
]
