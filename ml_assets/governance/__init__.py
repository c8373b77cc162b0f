"""The model-risk pack: what a reviewer reads before a model may score. It knows neither Dagster nor MLflow."""

from ml_assets.governance.pack import Pack, PackError, render_pack

__all__ = ["Pack", "PackError", "render_pack"]
