"""The verdict on the shadow: the same decisions, neither model had learned from them, and days are what is drawn."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.monitoring.shadow import SHADOW, ShadowVerdict, Trained, judge_shadow
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.monitoring.made import outcomes

LONG_AGO, LATE = datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC)
CHAMPION, PREDECESSOR = Trained(2, "run-2", LONG_AGO), Trained(1, "run-1", LONG_AGO)


def both(champion: Any = lambda p: p, shadow: Any = lambda p: p, **options: Any) -> pa.Table:
    """What two models said of the same decisions, each its own distortion of the true probability."""
    ours = outcomes(USE_CASE, version=2, distort=champion, **options)
    theirs = outcomes(USE_CASE, version=1, distort=shadow, **options)
    stage = theirs.schema.get_field_index("stage")
    return pa.concat_tables(
        [ours, theirs.set_column(stage, theirs.schema.field(stage), pa.repeat(SHADOW, theirs.num_rows))]
    )


def verdict(rows: pa.Table, champion: Trained = CHAMPION, shadow: Trained = PREDECESSOR) -> ShadowVerdict:
    return judge_shadow(USE_CASE, rows, champion, shadow)


def blurred(p: np.ndarray) -> np.ndarray:
    return np.clip(0.3 * p + 0.7 * np.random.default_rng(5).permutation(p), 0, 1)


def test_the_better_model_is_told_with_its_interval_and_what_it_saves() -> None:
    made = verdict(both(champion=blurred))
    assert made.says == "better"
    assert made.n == 4000
    assert 0 < made.gain.low < made.gain.value == pytest.approx(made.of_shadow - made.of_champion)
    assert made.saved > 0
    assert made.sentence.startswith(
        "version 1 in the shadow: better than champion 2 on 4,000 decisions of 10 dates with "
    )
    other = verdict(both(shadow=blurred))
    assert other.says == "worse"
    assert other.gain.high < 0


def test_models_that_say_the_same_do_not_differ() -> None:
    made = verdict(both())
    assert made.says == "no difference"
    assert made.gain.low == made.gain.high == made.saved == 0


def test_decisions_from_which_either_model_had_learned_do_not_count() -> None:
    rows = both(champion=blurred)
    made = verdict(rows, shadow=Trained(1, "run-1", LATE))
    assert made.days == 2
    assert made.says == "too early"
    assert math.isnan(made.gain.value)
    assert made.sentence.startswith("too early to judge version 1")
    assert verdict(rows, champion=Trained(2, "run-2", LATE)).n == made.n


def test_only_pairs_count_and_only_of_these_two_models() -> None:
    rows = both(champion=blurred)
    assert verdict(rows, shadow=Trained(3, "run-3", LONG_AGO)).n == 0
    half = rows.filter(pa.array(np.arange(rows.num_rows) < 6000))
    assert verdict(half).n == 2000
