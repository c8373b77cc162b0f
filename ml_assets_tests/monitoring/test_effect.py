"""The effect of acting: the control group tells it, and without one nobody can."""

import dataclasses
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.monitoring.effect import Effect, acted_on, effect_of_acting, handling, untouched
from ml_assets.monitoring.estimate import estimates
from ml_assets.monitoring.performance import performance
from ml_assets.spec import ControlSpec, UseCase
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.monitoring.made import outcomes

TRIED = dataclasses.replace(USE_CASE, control=ControlSpec(share=0.2, max_cost=2000.0))


def acting(usecase: UseCase) -> UseCase:
    """The use case of a team that acts on its lists."""
    gate = dataclasses.replace(usecase.gate, min_saved_per_day=-math.inf)
    return dataclasses.replace(usecase, action=dataclasses.replace(usecase.action, taken=True), gate=gate)


def acted(usecase: UseCase = TRIED, *, effectiveness: float = 0.5, share: float = 0.2, **options: Any) -> pa.Table:
    """Outcomes after a team has acted on its lists but for the control group, which prevents some of the fails."""
    rows = outcomes(usecase, days=20, rate=0.2, **options)
    rng = np.random.default_rng(3)
    control = rng.random(rows.num_rows) < share
    listed = rows["on_list"].to_numpy().astype(np.bool_)
    label = rows["label"].to_numpy().copy()
    label[listed & ~control & (rng.random(rows.num_rows) < effectiveness)] = 0
    for name, values in (("label", pa.array(label, pa.int8())), ("control", pa.array(control))):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), values)
    return rows


def test_the_control_group_tells_what_acting_avoids_and_what_it_costs_itself() -> None:
    rows = acted()
    made = effect_of_acting(TRIED, rows)
    listed = rows.filter(rows["on_list"])
    usual = np.array(listed["control"])
    of_usual = np.array(listed["label"])[usual].mean()
    assert made.usual_way == usual.sum()
    assert made.avoided.low < of_usual / 2 < made.avoided.high
    assert 0 < made.avoided.low < made.avoided.value
    assert made.cost_avoided.value == pytest.approx(made.control_cost.value * made.acted_on / made.usual_way)
    assert made.sentence("EUR").startswith("Acting avoided ")
    assert "of the control group cost " in made.sentence("EUR")


def test_acting_that_helps_nobody_has_an_interval_around_nothing() -> None:
    made = effect_of_acting(TRIED, acted(effectiveness=0.0))
    assert made.avoided.low < 0 < made.avoided.high


def test_what_is_too_dear_for_the_control_group_is_not_compared() -> None:
    cheap = dataclasses.replace(TRIED, control=ControlSpec(share=0.2, max_cost=500.0))
    rows = acted()
    assert 0 < effect_of_acting(cheap, rows).acted_on < effect_of_acting(TRIED, rows).acted_on / 2


@pytest.mark.parametrize("share", [0.0, 0.002])
def test_without_a_control_group_it_cannot_be_told(share: float) -> None:
    usecase = dataclasses.replace(USE_CASE, control=ControlSpec(share, 2000.0) if share else ControlSpec())
    made: Effect = effect_of_acting(usecase, acted(usecase, share=share))
    assert made.why
    assert made.sentence("EUR").startswith("What acting avoids is unknown: ")
    assert not [
        row for row in performance(usecase, acted(usecase, share=share)).to_pylist() if row["dimension"] == "acting"
    ]


def test_performance_tells_all_untouched_acted_on_and_the_usual_way_apart() -> None:
    rows = acted()
    table = performance(TRIED, rows).to_pylist()
    rates = {row["value"]: row["measured"] for row in table
             if row["dimension"] in ("all", "handling") and row["metric"] == "base_rate"}  # fmt: skip
    assert set(rates) == {"all", "untouched", "acted on", "usual way"}
    assert rates["acted on"] < 0.7 * rates["usual way"]
    (avoided,) = [row for row in table if row["dimension"] == "acting" and row["metric"] == "avoided"]
    assert avoided["low"] <= avoided["measured"] <= avoided["high"]
    before = rows.drop_columns(["control"])
    assert set(handling(before)) == {"acted on", "untouched"}
    assert effect_of_acting(TRIED, before).usual_way == 0


def test_what_the_team_acts_on_is_left_out_of_the_estimate_and_of_nothing_if_it_does_not_act() -> None:
    """Guards a morning that calls it drift, and retrains, because the team has prevented what was predicted."""
    takes = acting(TRIED)
    rows = acted(takes, effectiveness=0.9)
    seen = {metric: [] for metric in ("believed", "acted on")}
    for name, usecase in (("believed", TRIED), ("acted on", takes)):
        of_all = [row for row in estimates(usecase, rows).to_pylist() if row["metric"] == "base_rate"]
        seen[name] = [row["realised"] / row["estimated"] for row in of_all]
    assert np.mean(seen["believed"]) < 0.85, "without saying that the team acts, fails seem to have become rare"
    assert abs(np.mean(seen["acted on"]) - 1) < 0.1
    listed = {row["entity_id"] for row in rows.to_pylist() if row["on_list"] and not row["control"]}
    assert set(acted_on(takes, rows)["entity_id"].to_pylist()) == listed
    assert set(untouched(takes, rows)["entity_id"].to_pylist()) == set(rows["entity_id"].to_pylist()) - listed
    assert acted_on(TRIED, rows).num_rows == 0
    assert untouched(TRIED, rows).num_rows == rows.num_rows


def test_a_team_that_acts_cannot_ask_the_gate_what_lists_of_the_rest_save() -> None:
    """Guards a gate that refuses every retrained model: what is worth acting on is not in its test window."""
    with pytest.raises(ValueError, match=r"set gate.min_saved_per_day to -math.inf"):
        dataclasses.replace(TRIED, action=dataclasses.replace(TRIED.action, taken=True))
    assert acting(TRIED).action.taken
