"""A feature that knows the outcome is found, however it tells it; honest features are not."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.learning.leaks import Settled, settled_when_decided, single_feature_auc, telling_values
from ml_assets.learning.statistics import roc_auc
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


def test_a_value_that_alone_tells_the_outcome_is_pointed_out(rows):
    """Guards: one category had the outcome in .959 of 415 cases, and its AUC was below the limit."""
    labels = rows["label"].to_numpy()
    assert telling_values(FEATURES, rows) == []
    told = np.full(len(labels), "other", dtype=object)
    told[np.flatnonzero(labels == 1)[:96]] = "withdrawn"
    told[np.flatnonzero(labels == 0)[:4]] = "withdrawn"
    told[np.flatnonzero(labels == 1)[96:120]] = "rare"
    for kind, values in (("categorical", told), ("numeric", (told == "withdrawn").astype(float))):
        feature = Feature("state", "", kind=kind)
        (found,) = telling_values([*FEATURES, feature], rows.append_column("state", pa.array(values)))
        assert (found.feature, found.rate, found.n) == ("state", 0.96, 100)
    none = np.where(told == "withdrawn", None, told)
    (found,) = telling_values([Feature("state", "", kind="categorical")], rows.append_column("state", pa.array(none)))
    assert found.value == "missing"


def decided(group, early, dated, label) -> pa.Table:
    types = {"group": pa.string(), "early": pa.int8(), "dated": pa.bool_(), "label": pa.int8()}
    columns = zip(types, (group, early, dated, label), strict=True)
    return pa.table({name: pa.array(column, types[name]) for name, column in columns})


def test_positives_that_had_happened_are_counted():
    early = [1] * 83 + [0] * 17 + [0] * 300
    table = decided(["a 0"] * 400, early, [False] * 400, [1] * 100 + [0] * 300)
    assert settled_when_decided(table) == Settled(83, 100)
    assert settled_when_decided(table).share == pytest.approx(0.83)
    assert settled_when_decided(table.slice(0, 0)).share == 0


def test_labels_that_are_1_until_something_happens_hide_no_others():
    """Guards: in one slot a label is 1 for lack of a confirmation, in another because it has happened."""
    open_ = decided(["morning 0"] * 100, [1] * 100, [False] * 100, [1] * 6 + [0] * 94)
    happened = decided(["evening 0"] * 50, [1] * 50, [False] * 50, [1] * 50)
    assert settled_when_decided(open_) == Settled(0, 6)
    assert settled_when_decided(pa.concat_tables([open_, happened])) == Settled(50, 56)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0, 1, None]), st.booleans(), st.integers(0, 1))))
def test_never_more_had_happened_than_did(rows):
    table = decided(*(list(column) for column in zip(*rows, strict=True))) if rows else decided([], [], [], [])
    found = settled_when_decided(table)
    assert 0 <= found.settled <= found.positives <= len(rows)
    assert found.settled >= sum(early == 1 and dated for _, early, dated, _ in rows)


def test_an_outcome_known_before_its_decision_counts_though_it_has_no_label():
    """Such decisions never get into the training set: the label is left out, and the list was full of them."""
    table = decided(["a"] * 4, [1, 1, None, 0], [True, True, None, True], [None, None, 1, 0])
    assert settled_when_decided(table) == Settled(2, 3)
