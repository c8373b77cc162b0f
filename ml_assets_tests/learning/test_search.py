from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.learning.candidates import lightgbm, logistic
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.search import search_parameters
from ml_assets.spec import Choice, Integer, SearchSpec, Uniform, UseCase

SPACE = {
    "num_leaves": Integer(2, 31, log=True),
    "learning_rate": Uniform(0.005, 0.3, log=True),
    "colsample_bytree": Choice((0.5, 0.8, 1.0)),
}


@pytest.fixture(scope="module")
def searched(usecase: UseCase) -> UseCase:
    return replace(usecase, split=replace(usecase.split, folds=3, fold_days=2))


def _lightgbm(search: SearchSpec, **params: object):
    return lightgbm(n_estimators=15, search=search, **({"num_leaves": 15} | params))


def test_a_search_begins_with_the_candidate_as_written_and_never_ends_below_it(searched, training_set) -> None:
    search = SearchSpec(SPACE, trials=9, seconds=120)
    found = search_parameters(searched, _lightgbm(search), search, training_set)
    assert found.trials[0].parameters == {"num_leaves": 15, "learning_rate": 0.05, "colsample_bytree": 0.8}
    assert len(found.trials) == 9
    complete = [trial for trial in found.trials if trial.state == "complete"]
    assert max(trial.value for trial in complete) == pytest.approx(complete[0].value + found.gain)
    assert found.gain >= 0
    assert found.best in [trial.parameters for trial in complete]
    for trial in complete:
        assert len(trial.folds) == 3
        assert trial.value == pytest.approx(np.mean(trial.folds))
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned, "with this seed, some trials fall behind"
    assert all(len(trial.folds) < 3 and trial.value is None for trial in pruned)


def test_the_same_seed_finds_the_same(searched, training_set) -> None:
    search = SearchSpec(SPACE, trials=5, seconds=120)
    first, second = (search_parameters(searched, _lightgbm(search), search, training_set) for _ in range(2))
    assert [t.parameters for t in first.trials] == [t.parameters for t in second.trials]
    assert [t.folds for t in first.trials] == [t.folds for t in second.trials]


def test_the_budget_of_seconds_ends_a_search(searched, training_set) -> None:
    search = SearchSpec(SPACE, trials=1000, seconds=0.5)
    found = search_parameters(searched, _lightgbm(search), search, training_set)
    assert 1 <= len(found.trials) < 1000
    assert found.trials[0].state == "complete", "the candidate as written is always measured"


@pytest.mark.parametrize(
    ("space", "params", "message"),
    [
        ({"num_leaves": Integer(2, 8)}, {}, "num_leaves=15 is not in the space"),
        ({"depth": Integer(2, 8)}, {}, "has no parameter 'depth'"),
        ({"colsample_bytree": Choice((0.5, 1.0))}, {}, "colsample_bytree=0.8 is not in the space"),
    ],
)
def test_a_space_that_does_not_fit_the_candidate_is_refused(searched, training_set, space, params, message) -> None:
    search = SearchSpec(space, trials=2)
    with pytest.raises(ValueError, match=message):
        search_parameters(searched, _lightgbm(search, **params), search, training_set)


def test_a_search_without_folds_says_what_to_do(usecase, training_set) -> None:
    search = SearchSpec(SPACE)
    with pytest.raises(ValueError, match="no walk-forward fold to search the parameters of 'lightgbm' on"):
        search_parameters(usecase, _lightgbm(search), search, training_set)


def test_what_a_search_found_makes_the_same_model_again(searched: UseCase, training_set: pa.Table) -> None:
    """Guards reproducing a model: from the record of the search, without another search."""
    candidate = logistic(search=SearchSpec({"C": Uniform(1e-4, 100, log=True)}, trials=4, seconds=120))
    fitted = fit_candidate(searched, candidate, training_set)
    assert fitted.search is not None
    assert fitted.searched == fitted.search.best
    assert fitted.parameters["C"] == fitted.searched["C"]
    assert fitted.metrics["validation"] == pytest.approx(np.mean(fitted.folds))
    again = fit_candidate(searched, candidate, training_set, parameters=fitted.searched)
    assert again.search is None
    assert np.array_equal(again.probabilities, fitted.probabilities)
