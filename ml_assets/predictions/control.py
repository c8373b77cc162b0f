"""The control group: a few decisions that go the usual way though they are listed, so that acting can be measured.

Acting on a prediction spoils its evidence: what was prevented looks like a false alarm. Only decisions that nobody
acted on, chosen by lot, tell what would have come of the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.lot import lot
from ml_assets.spec import HANDLING, USUAL_WAY, ControlSpec, UseCase

_MARK = json.dumps({HANDLING: USUAL_WAY})[1:-1]


def in_control_group(usecase: UseCase, entities: pa.ChunkedArray, costs: npt.NDArray[np.float64]) -> pa.Array:
    """Return which decisions go the usual way: those of the lot whose fail costs at most `ControlSpec.max_cost`; (n,).

    The lot falls by the entity alone, so that it is the same at each slot and in each run.
    """
    spec = usecase.control
    chosen = np.zeros(len(costs), dtype=np.bool_)
    for at in np.flatnonzero(costs <= spec.max_cost) if spec.share else ():
        chosen[at] = lot("control", usecase.name, entities[int(at)].as_py()) < spec.share
    return pa.array(chosen)


def marked(attributes: pa.ChunkedArray, chosen: pa.Array) -> pa.ChunkedArray:
    """Return the attributes (JSON objects, or null) with the usual way as `handling` where it is chosen."""
    if not pc.any(chosen).as_py():
        return attributes
    texts = [
        json.dumps({**json.loads(text or "{}"), HANDLING: USUAL_WAY}) if usual else text
        for text, usual in zip(attributes.to_pylist(), chosen.to_pylist(), strict=True)
    ]
    return pa.chunked_array([pa.array(texts, pa.string())])


def is_marked(attributes: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which attributes say that the decision goes the usual way: (n,)."""
    near = pc.fill_null(pc.match_substring(attributes.cast(pa.string()), _MARK), False)
    found = np.array(near.to_numpy(), dtype=np.bool_)
    for at in np.flatnonzero(found):
        found[at] = json.loads(attributes[int(at)].as_py()).get(HANDLING) == USUAL_WAY
    return found


def action_of(codes: Mapping[str, Any] | None, attributes: Mapping[str, Any] | None) -> str:
    """Return what is to be done about a decision by its reason codes; empty if they are not known or name nothing.

    The control group goes the usual way: nothing is done about it.
    """
    if codes is None:
        return ""
    if (attributes or {}).get(HANDLING) == USUAL_WAY:
        return "nothing: control group"
    return str(codes["action"] or "")


def said(spec: ControlSpec, currency: str) -> str:
    """Return in words who is in the control group."""
    if not spec.share:
        return "there is no control group"
    return f"{spec.share:.1%} of the decisions that cost at most {spec.max_cost:,.0f} {currency} go the usual way"
