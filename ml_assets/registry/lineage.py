"""Where a model comes from: what its MLflow run says beside parameters and metrics."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Lineage:
    """Code, run and data of one training. `data_versions` maps lake tables to the Delta versions read.

    Dates are decision dates; `window_hash` tells the rows of the unseen window.
    """

    git_commit: str
    dagster_run_id: str
    feature_set_hash: str
    data_versions: Mapping[str, int]
    train_first: date
    train_last: date
    test_first: date
    test_last: date
    window_hash: str

    def tags(self) -> dict[str, str]:
        """Return the lineage as tags of an MLflow run; the commit also under the name that MLflow's UI shows."""
        return {
            "mlflow.source.git.commit": self.git_commit,
            "git_commit": self.git_commit,
            "dagster_run_id": self.dagster_run_id,
            "feature_set_hash": self.feature_set_hash,
            "data_versions": json.dumps(dict(self.data_versions), sort_keys=True),
            "train_dates": f"{self.train_first} to {self.train_last}",
            "test_dates": f"{self.test_first} to {self.test_last}",
            "window_hash": self.window_hash,
        }
