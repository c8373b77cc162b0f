"""Which answers of the scoring service count as predictions, and what is known of them."""

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.answers import SERVED_SCORES
from ml_assets.contracts import TIMESTAMP
from ml_assets.landing.schemas import event_schema
from ml_assets.monitoring.answers import ANSWERED, online_decisions
from ml_assets.monitoring.outcomes import OUTCOMES_SCHEMA
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

DAY = date(2026, 3, 5)
NINE = datetime(2026, 3, 5, 9, tzinfo=UTC)
ANSWERS = pa.schema([event_schema(SERVED_SCORES).field(name) for name in ANSWERED])


def answer(entity="a", at=NINE, **more):
    return {
        "entity_id": entity, "decision_time": at, "slot": "isd_morning", "outcome_date": DAY, "model_version": 3,
        "mlflow_run_id": "r", "probability": 0.2, "expected_cost": 10.0, "event_time": at, "stage": "champion",
        "what_if": False, **more,
    }  # fmt: skip


def joined(*answers):
    features = pa.table(
        {
            "entity_id": ["a", "a"],
            "decision_time": pa.array([NINE - timedelta(hours=18), NINE - timedelta(hours=2)], TIMESTAMP),
            "outcome_date": [DAY, DAY],
            "cost_if_fail": [70.0, 90.0],
            "attributes": ['{"market": "XETR"}'] * 2,
            "asset_class": ["etf", "etf"],
            "slot": ["end_of_trade_date", "isd_minus_1"],
        }
    )
    labels = pa.table(
        {
            "entity_id": ["a", "late"],
            "decision_time": pa.array([NINE - timedelta(hours=2)] * 2, TIMESTAMP),
            "outcome_date": [DAY, DAY],
            "label": pa.array([1, 1], pa.int8()),
            "label_known_at": pa.array([NINE + timedelta(hours=21), NINE - timedelta(hours=1)], TIMESTAMP),
            "known_date": [DAY + timedelta(days=1), DAY],
        }
    )
    return online_decisions(USE_CASE, pa.Table.from_pylist(list(answers), schema=ANSWERS), features, labels)


def test_an_answer_has_the_cost_the_attributes_and_the_outcome_of_the_newest_decision_of_the_batch():
    found = joined(answer())
    assert found.predictions.schema.field("model_version").type == OUTCOMES_SCHEMA.field("model_version").type
    (row,) = found.predictions.to_pylist()
    assert (row["cost_if_fail"], row["attributes"], row["decision_date"]) == (90.0, '{"market": "XETR"}', DAY)
    (label,) = found.labels.to_pylist()
    assert (label["decision_time"], label["label"]) == (NINE, 1)
    # A slice by slot, which settlement_fails has, is by that of the answer.
    (described,) = found.features.to_pylist()
    assert described == {"entity_id": "a", "decision_time": NINE, "asset_class": "etf", "slot": "isd_morning"}


def test_of_an_entity_that_the_batch_does_not_know_the_cost_follows_from_the_answer():
    (row,) = joined(answer("new")).predictions.to_pylist()
    assert row["cost_if_fail"] == pytest.approx(50.0)
    assert row["attributes"] is None


def test_an_outcome_that_was_known_before_the_answer_is_none():
    assert joined(answer("late")).labels.num_rows == 0


def test_what_nobody_was_told_does_not_count():
    assert joined(answer(what_if=True), answer(stage="shadow")).predictions.num_rows == 0


ASKED = st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.floats(0.01, 0.9))


@given(st.lists(ASKED, max_size=12, unique_by=lambda one: one[:2]))
def test_the_newest_answer_on_an_entity_at_a_slot_counts_and_no_other(asked):
    answers = [answer(e, NINE + timedelta(minutes=m), probability=p) for e, m, p in asked]
    found = {row["entity_id"]: row["probability"] for row in joined(*answers).predictions.to_pylist()}
    newest = {e: p for e, m, p in sorted(asked, key=lambda one: one[1])}
    assert found == newest
