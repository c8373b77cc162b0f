"""Addresses that people open: a model in the MLflow UI, an asset or a run in the Dagster UI, a report. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

# Where `ml-assets ui` opens them, unless told otherwise.
DAGSTER_PORT, MLFLOW_PORT, DESK_PORT = 3000, 5000, 8080


@dataclass(frozen=True, slots=True)
class Links:
    """The public addresses of both UIs and of the reports, without a slash at the end; an empty one gives no links."""

    mlflow: str = ""
    dagster: str = ""
    reports: str = ""

    def mlflow_run(self, experiment_id: str, run_id: str) -> str:
        """Return the address of an MLflow run."""
        return self.mlflow and f"{self.mlflow}/#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}"

    def model_version(self, name: str, version: int) -> str:
        """Return the address of a registered version."""
        return self.mlflow and f"{self.mlflow}/#/models/{quote(name)}/versions/{version}"

    def asset(self, path: Sequence[str], partition: str = "") -> str:
        """Return the address of an asset, opened at a partition."""
        view = f"?view=partitions&partition={quote(partition)}" if partition else ""
        return self.dagster and f"{self.dagster}/assets/{'/'.join(map(quote, path))}{view}"

    def dagster_run(self, run_id: str) -> str:
        """Return the address of a Dagster run."""
        return self.dagster and f"{self.dagster}/runs/{quote(run_id)}"

    def report(self, path: str) -> str:
        """Return the address of a file below the root of the reports."""
        return self.reports and f"{self.reports}/{quote(path)}"
