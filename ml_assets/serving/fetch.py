"""Fetch a model from the registry in a separate process: MLflow takes seconds and 200 MB to load, and may not answer.

    python -m ml_assets.serving.fetch <MLflow run> <hash of the files> <file of the golden sample>

The files are written to the cache of models, where the service finds them.
"""

import sys
from pathlib import Path

from ml_assets.learning.golden import GOLDEN_SAMPLE
from ml_assets.platform import open_platform
from ml_assets.settings import Settings


def main() -> None:
    """Fetch the model and the golden sample that the command line names."""
    run_id, expected, golden = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    registry = open_platform(Settings()).registry
    registry.download_model(run_id, expected)
    golden.parent.mkdir(parents=True, exist_ok=True)
    part = golden.with_suffix(".part")
    part.write_text(registry.read_evidence(run_id, GOLDEN_SAMPLE), encoding="utf-8")
    part.replace(golden)


if __name__ == "__main__":
    main()
