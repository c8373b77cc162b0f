"""A feature that knows the outcome is found, however it tells it; honest features are not."""

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.learning.leaks import single_feature_auc
from ml_assets.learning.metrics import roc_auc
from ml_assets.learning.training_set import part_of
from ml_assets.spec import Feature
from ml_assets_tests.learning.conftest import FEATURES

LIMIT = 0.95


@pytest.fixture
def rows(training_set) -> pa.Table:
    return part_of(training_set, "train")


def auc_with(rows: pa.Table, leak, kind: str = "numeric") -> dict[str, float]:
    labels = rows["label"].to_numpy()
    column = pa.array(leak(labels, np.random.default_rng(3)), from_pandas=True)
    found = single_feature_auc([*FEATURES, Feature("leak", "", kind=kind)], rows.append_column("leak", column))
    return found.to_dict()


def test_honest_features_are_below_the_limit_and_rank_as_they_do(rows):
    found = single_feature_auc(FEATURES, rows)
    assert found.max() < LIMIT
    assert found.is_monotonic_decreasing
    scarcity = roc_auc(rows["label"].to_numpy().astype(float), rows["scarcity"].to_numpy())
    assert found["scarcity"] == pytest.approx(scarcity, abs=1e-3)
    assert found["empty"] == 0.5


@pytest.mark.parametrize(
    ("how", "leak", "kind"),
    [
        ("rising", lambda y, rng: y + rng.normal(0, 0.1, len(y)), "numeric"),
        ("falling", lambda y, rng: -y + rng.normal(0, 0.1, len(y)), "numeric"),
        ("there only after a fail", lambda y, rng: np.where(y == 1, rng.random(len(y)), np.nan), "numeric"),
        ("missing only after a fail", lambda y, rng: np.where(y == 0, rng.random(len(y)), np.nan), "numeric"),
        ("the reason code of the fail", lambda y, rng: np.where(y == 1, rng.choice(["LACK", "CLAC"], len(y)), "NONE"),
         "categorical"),
    ],
)  # fmt: skip
def test_a_leak_is_found(rows, how, leak, kind):
    found = auc_with(rows, leak, kind)
    assert {name for name, auc in found.items() if auc > LIMIT} == {"leak"}, how


def test_names_that_occur_once_do_not_look_like_a_leak(rows):
    """Guards the check against crying wolf: rates of categories are taken from other rows than they rank."""
    found = auc_with(rows, lambda y, rng: np.array([f"E{n}" for n in range(len(y))]), "categorical")
    assert found["leak"] < 0.6
