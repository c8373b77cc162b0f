"""Every knob of the project, its default and its unit. Nothing else reads the environment.

Set a knob with an environment variable `ML_ASSETS_<NAME>` or a line in `.env`.
"""

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where things are and how much they may use. Empty addresses mean the embedded server below `home`."""

    model_config = SettingsConfigDict(env_prefix="ML_ASSETS_", env_file=".env", extra="ignore")

    home: Path = Field(Path(".ml_assets"), description="folder of everything that is made locally")
    usecase_packages: list[str] = Field(["ml_assets.usecases"], description="packages that are searched for use cases")
    lake_root: str = Field("", description="folder or s3:// prefix of the Delta tables; empty: <home>/lake")
    artifact_root: str = Field("", description="folder or s3:// prefix of MLflow's artifacts; empty: <home>/artifacts")
    reference_root: str = Field("", description="folder of dropped reference files; empty: <home>/reference")
    kafka_bootstrap: str = Field("", description="host:port of the broker; empty: the embedded broker")
    landing_clock: Literal["live", "replay"] = Field(
        "live",
        description="live: known_at is the later of broker time and landing; replay: known_at is broker time, "
        "for history that is played again",
    )
    postgres_url: SecretStr = Field(
        SecretStr(""), description="postgresql://user:password@host:port; empty: the embedded server"
    )
    threads: int = Field(0, ge=0, description="threads of DuckDB, LightGBM and ONNX Runtime; 0: one a core")
    max_concurrent_runs: int = Field(2, ge=1, description="Dagster runs at a time; the others wait in the queue")
    traceback: bool = Field(False, description="show where an error of the command line comes from")
    code_version: str = Field("", description="git commit of the running code; empty: asked from git")

    @cached_property
    def home_path(self) -> Path:
        """`home` as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def lake_uri(self) -> str:
        """Root of the Delta tables."""
        return self.lake_root or str(self.home_path / "lake")

    @property
    def reference_uri(self) -> str:
        """Root of the dropped reference files."""
        return self.reference_root or str(self.home_path / "reference")

    @property
    def artifact_uri(self) -> str:
        """Root of MLflow's artifacts."""
        return self.artifact_root or str(self.home_path / "artifacts")
