"""The control group: by lot, the same in each run, never dear, and marked for whoever reads the list."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.errors import InputError
from ml_assets.predictions.control import in_control_group, is_marked, marked, said
from ml_assets.spec import ControlSpec
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

ENTITIES = pa.chunked_array([[f"I{n}" for n in range(4000)]])
COSTS = np.linspace(0, 1000, 4000)


def group(share: float, max_cost: float, entities: pa.ChunkedArray = ENTITIES, costs: np.ndarray = COSTS) -> np.ndarray:
    usecase = dataclasses.replace(USE_CASE, control=ControlSpec(share, max_cost) if share else ControlSpec())
    return np.array(in_control_group(usecase, entities, costs))


@given(st.floats(0.01, 0.5), st.floats(1, 2000))
def test_it_is_a_lot_of_the_share_below_the_highest_cost(share: float, max_cost: float) -> None:
    chosen, able = group(share, max_cost), max_cost >= COSTS
    assert not chosen[~able].any()
    assert abs(chosen[able].sum() - share * able.sum()) < 5 * np.sqrt(max(1, able.sum()) * 0.25)
    assert (group(min(0.5, share * 2), max_cost) >= chosen).all(), "who is in a small group is in a larger one"
    back = pa.chunked_array([ENTITIES.to_pylist()[::-1]])
    assert (group(share, max_cost, back, COSTS[::-1])[::-1] == chosen).all(), "the order does not matter"


def test_there_is_none_unless_a_use_case_asks_for_it() -> None:
    assert not group(0.0, 0.0).any()
    assert USE_CASE.control.share == 0
    assert said(ControlSpec(), "EUR") == "there is no control group"
    assert said(ControlSpec(0.05, 300), "EUR") == "5.0% of the decisions that cost at most 300 EUR go the usual way"
    for wrong in ((0.6, 10.0), (-0.1, 10.0), (0.1, 0.0), (0.1, float("nan"))):
        with pytest.raises(InputError, match="ControlSpec: share is"):
            ControlSpec(*wrong)


def test_who_reads_the_list_sees_the_usual_way() -> None:
    attributes = pa.chunked_array([['{"market":"X"}', None, '{"name":"\\"handling\\": \\"usual way\\""}', '{"a":1}']])
    made = marked(attributes, pa.array([True, True, False, False]))
    assert json.loads(made[0].as_py()) == {"market": "X", "handling": "usual way"}
    assert made[2:].to_pylist() == attributes[2:].to_pylist()
    assert is_marked(made).tolist() == [True, True, False, False]
    assert marked(attributes, pa.array([False] * 4)) is attributes
