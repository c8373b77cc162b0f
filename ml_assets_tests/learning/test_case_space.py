"""A decision's place among others: what is alike is near, and a distance is one of log-odds."""

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.learning import candidates
from ml_assets.learning.case_space import CaseSpace
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.reasons import Explainer
from ml_assets.learning.training_set import part_of
from ml_assets_tests.learning.conftest import explained

WIDE = 64


@pytest.fixture(scope="module")
def grouped(usecase):
    return explained(usecase)


@pytest.fixture(scope="module")
def model(grouped, training_set):
    return fit_candidate(grouped, candidates.logistic(), training_set).scorer


@pytest.fixture(scope="module")
def explainer(grouped, model):
    return Explainer(grouped, model)


@pytest.fixture(scope="module")
def space(model, explainer):
    return CaseSpace(model.manifest, explainer.causes, WIDE)


@pytest.fixture(scope="module")
def rows(training_set):
    return part_of(training_set, "test").slice(0, 400)


def none_added(rows: pa.Table, space: CaseSpace) -> np.ndarray:
    return np.zeros((rows.num_rows, 4))


def changed(row: pa.Table, **values) -> pa.Table:
    for name, value in values.items():
        at = row.schema.get_field_index(name)
        row = row.set_column(at, row.schema.field(at), pa.array([value], row.schema.field(at).type))
    return row


def apart(space: CaseSpace, one: pa.Table, other: pa.Table) -> float:
    left, right = (space.vectors(row, none_added(row, space))[0] for row in (one, other))
    return float(np.linalg.norm(left - right))


def test_causes_have_what_they_added_and_features_their_weight_in_log_odds(space, explainer, training_set, model):
    added = explainer.contributions(training_set, background=4)
    vectors = space.vectors(training_set, added)
    assert vectors.shape == (training_set.num_rows, WIDE)
    assert np.allclose(vectors[:, :4], added, atol=1e-5)
    assert not vectors[:, space.used :].any()
    spread = model.manifest.reference.drift.features["scarcity"]
    levels, counts = np.array(spread.levels[:-1]), np.sum([c[:-1] for c in spread.counts.values()], axis=0)
    weight = np.sqrt(np.average((levels - np.average(levels, weights=counts)) ** 2, weights=counts))
    alone = [i for i in range(4, space.used) if len(set(vectors[:, i])) == len(spread.edges) + 1]
    assert weight > 0.5, "what the outcome follows most moves the score"
    assert any(abs(vectors[:, i].std() - weight) < 0.02 and abs(vectors[:, i].mean()) < 0.02 for i in alone)


def test_a_rougher_background_gives_contributions_close_to_the_reasons(explainer, rows):
    fine, rough = explainer.contributions(rows), explainer.contributions(rows, background=4)
    # The base is another one, and so each cause is shifted: that sets no decision apart from another.
    assert (fine - rough).std(axis=0).max() < 0.05 * fine.std(axis=0).max()
    said = explainer.explain(rows.slice(0, 5), explainer._scorer.score(rows.slice(0, 5)))
    assert [[one.contributions[cause] for cause in explainer.causes] for one in said] == [
        pytest.approx(row, abs=1e-5) for row in fine[:5]
    ]


def test_what_moves_the_score_most_sets_decisions_apart_most(space, rows):
    one = changed(rows.slice(0, 1), scarcity=0.0, settlement_place="T2S", asset_class="BOND")
    assert apart(space, one, one) == 0
    other_place = apart(space, one, changed(one, settlement_place="EUROCLEAR"))
    far = apart(space, one, changed(one, scarcity=2.5))
    near = apart(space, one, changed(one, scarcity=0.4))
    assert far > near > other_place, "places are drawn by chance and fail alike"
    assert apart(space, one, changed(one, asset_class="ETF")) > other_place


values = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, 1e308]))


@given(scarcity=values, rate=values, asset=st.one_of(st.none(), st.text(max_size=5), st.just("ETF")))
def test_any_row_has_a_finite_place(space, rows, scarcity, rate, asset):
    row = changed(rows.slice(0, 1), scarcity=scarcity, fail_rate_20d=rate, asset_class=asset)
    made = space.vectors(row, none_added(row, space))
    assert made.shape == (1, WIDE)
    assert np.isfinite(made).all()
    assert np.abs(made).max() < 100


def test_without_room_the_features_that_move_the_score_least_are_left_out(model, explainer, rows):
    narrow = CaseSpace(model.manifest, explainer.causes, 8)
    assert narrow.used <= 8
    one = changed(rows.slice(0, 1), scarcity=0.0)
    assert apart(narrow, one, changed(one, scarcity=2.5)) > 0
    assert apart(narrow, one, changed(one, settlement_place="EUROCLEAR")) == 0


def test_a_model_without_its_training_days_and_other_causes_are_refused(model, explainer, space, rows):
    old = msgspec.structs.replace(
        model.manifest, reference=msgspec.structs.replace(model.manifest.reference, drift=None)
    )
    with pytest.raises(ValueError, match="made before its training days were kept"):
        CaseSpace(old, explainer.causes, WIDE)
    with pytest.raises(ValueError, match="contributions have shape"):
        space.vectors(rows, np.zeros((rows.num_rows, 2)))
