"""The pure middle of scoring: rows and a model in, probabilities and reasons out, with nothing of training."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets.learning import candidates
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.score_checks import ScoresRefusedError
from ml_assets.learning.scorer import Scorer
from ml_assets.predictions.score import flagged, score
from ml_assets.spec import UseCase
from ml_assets_tests.learning.conftest import draw, explained, small_training_set, small_usecase

# What a service does, in a process where nothing of training can be imported.
ALONE = """
import json, sys
from pathlib import Path

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"sklearn", "mlflow", "lightgbm", "pandas", "dagster", "deltalake", "skl2onnx"}:
            raise ModuleNotFoundError(f"{name} is not installed")

sys.meta_path.insert(0, NotInstalled())

import pyarrow.parquet as pq
from ml_assets.learning.scorer import Scorer
from ml_assets.predictions.score import score
from ml_assets_tests.learning.conftest import explained, small_usecase

folder = Path(sys.argv[1])
rows = pq.read_table(folder / "rows.parquet")
scored = score(explained(small_usecase(folder)), Scorer.from_files(folder), rows)
print(json.dumps([scored.probabilities.tolist(), scored.reasons]))
"""


@pytest.fixture(scope="module")
def usecase(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return explained(small_usecase(tmp_path_factory.mktemp("usecase")))


@pytest.fixture(scope="module")
def model(usecase: UseCase) -> Scorer:
    return fit_candidate(usecase, candidates.logistic(), small_training_set(usecase)).scorer


@pytest.fixture(scope="module")
def rows(usecase: UseCase) -> pa.Table:
    """The features of one whole day."""
    features, _, _ = draw()
    return features.slice(features.num_rows - 250)


def test_a_process_without_the_training_libraries_scores_the_same(
    usecase: UseCase, model: Scorer, rows: pa.Table, tmp_path: Path
) -> None:
    """Guards the pod that only scores: an import at the top of a shared module would bring scikit-learn or pandas."""
    model.save(tmp_path)
    pq.write_table(rows, tmp_path / "rows.parquet")
    done = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    scored = score(usecase, model, rows)
    assert json.loads(done.stdout) == [scored.probabilities.tolist(), scored.reasons]


def test_the_decisions_to_act_on_get_reasons_unless_others_are_asked_for(
    usecase: UseCase, model: Scorer, rows: pa.Table
) -> None:
    scored = score(usecase, model, rows)
    assert np.array_equal(scored.probabilities, model.score(rows))
    assert [text is not None for text in scored.reasons] == flagged(usecase, rows, scored.probabilities).tolist()
    one = np.arange(rows.num_rows) == 7
    asked = score(usecase, model, rows, explain=one)
    assert [text is not None for text in asked.reasons] == one.tolist()
    assert json.loads(asked.reasons[7] or "")["contributions"]


def test_refused_scores_are_returned_only_for_a_reason(usecase: UseCase, model: Scorer, rows: pa.Table) -> None:
    at = rows.schema.get_field_index("scarcity")
    broken = rows.set_column(at, rows.schema.field(at), pa.nulls(rows.num_rows, pa.float64()))
    with pytest.raises(ScoresRefusedError, match="missing_features"):
        score(usecase, model, broken)
    assert not score(usecase, model, broken, despite="the feed is down").judged[0].verdict.passed


def test_a_model_of_other_features_is_refused(usecase: UseCase, model: Scorer, rows: pa.Table) -> None:
    with pytest.raises(ValueError, match=r"trained on feature set .* retrain before scoring"):
        score(replace(usecase, features=usecase.features[:-1]), model, rows)
