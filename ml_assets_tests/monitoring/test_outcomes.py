"""Predictions and what came of them."""

import dataclasses
import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.contracts import TIMESTAMP
from ml_assets.database.schema import PREDICTIONS_SCHEMA
from ml_assets.learning.window import Window
from ml_assets.monitoring.outcomes import (
    BATCH,
    Completeness,
    completeness,
    join_outcomes,
    judged_rows,
    outcome_counts,
    outcomes_schema,
)
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.database.factories import prediction

USECASE = dataclasses.replace(USE_CASE, capacity=2)
MONDAY = date(2026, 1, 5)
LABELS_SCHEMA = pa.schema(
    [
        ("entity_id", pa.string()),
        ("decision_time", TIMESTAMP),
        ("label", pa.int8()),
        ("label_known_at", TIMESTAMP),
        ("known_date", pa.date32()),
    ]
)


def at(day: date, hour: int) -> datetime:
    return datetime.combine(day, time(hour), tzinfo=UTC)


def decided(entity: str, hour: int = 7, *, outcome: date = MONDAY, **changes: Any) -> dict[str, Any]:
    said = json.dumps({"market": "XETR", "counterparty_tier": "1", "amount": 5000})
    changes = {"attributes": said, "slot": "isd_morning", **changes}
    return prediction(entity, decision_time=at(MONDAY, hour), decision_date=MONDAY, outcome_date=outcome, **changes)


def label(entity: str, value: int, hour: int = 7, *, known: date = MONDAY + timedelta(days=1)) -> dict[str, Any]:
    return {
        "entity_id": entity,
        "decision_time": at(MONDAY, hour),
        "label": value,
        "label_known_at": at(known, 6),
        "known_date": known,
    }


def joined(
    predictions: list[dict[str, Any]], labels: list[dict[str, Any]], mature: tuple[date, ...] = (MONDAY,)
) -> pa.Table:
    features = [
        {
            "entity_id": row["entity_id"],
            "decision_time": row["decision_time"],
            "asset_class": "equity",
            "slot": row["slot"],
        }
        for row in predictions
    ]
    return join_outcomes(
        USECASE,
        {BATCH: pa.Table.from_pylist(predictions, schema=PREDICTIONS_SCHEMA)},
        pa.Table.from_pylist(
            features,
            schema=pa.schema(
                [
                    ("entity_id", pa.string()),
                    ("decision_time", TIMESTAMP),
                    ("asset_class", pa.string()),
                    ("slot", pa.string()),
                ]
            ),
        ),
        pa.Table.from_pylist(labels, schema=LABELS_SCHEMA),
        mature,
    )


def test_each_prediction_gets_its_own_outcome_and_what_it_is_about() -> None:
    rows = joined([decided("A"), decided("B"), decided("A", 15)], [label("A", 1), label("B", 0), label("A", 0, 15)])
    assert rows.schema == outcomes_schema(USECASE)
    found = {(row["entity_id"], row["decision_time"].hour): row for row in rows.to_pylist()}
    assert {key: row["label"] for key, row in found.items()} == {("A", 7): 1, ("B", 7): 0, ("A", 15): 0}
    assert found["A", 7]["slice__market"] == "XETR"
    assert found["A", 7]["slice__asset_class"] == "equity"
    assert found["A", 7]["value_at_stake"] == 5000
    window = Window.of(judged_rows(rows))
    assert set(window.slices) == {spec.name for spec in USECASE.gate.slices}


def test_the_newest_prediction_of_an_outcome_is_the_one_that_the_work_list_shows() -> None:
    rows = joined([decided("A"), decided("A", 15), decided("B")], []).to_pylist()
    assert {(row["entity_id"], row["decision_time"].hour) for row in rows if row["is_last"]} == {("A", 15), ("B", 7)}


def test_the_list_ends_at_the_capacity_and_where_acting_does_not_pay() -> None:
    entities = ["A", "B", "C"]
    rows = joined([decided(entity, rank=n + 1) for n, entity in enumerate(entities)], []).to_pylist()
    assert [row["entity_id"] for row in rows if row["on_list"]] == ["A", "B"]
    cheap = joined([decided("A", expected_cost=9.9, rank=1)], []).to_pylist()  # acting costs 5 and helps in half
    assert not cheap[0]["on_list"]


def test_an_outcome_date_is_judged_when_its_labels_have_had_time_and_some_came() -> None:
    """Guards dates whose label run has not happened: all landed, no label there, and every prediction a false alarm."""
    tuesday = MONDAY + timedelta(days=1)
    rows = joined(
        [decided("A"), decided("cancelled"), decided("B", outcome=tuesday), decided("C", outcome=tuesday)],
        [label("A", 1), label("B", 0)],
        mature=(MONDAY,),
    )
    assert completeness(rows) == [Completeness(MONDAY, 2, 1, True), Completeness(tuesday, 2, 1, False)]
    assert completeness(rows)[0].share == 0.5
    assert judged_rows(rows)["entity_id"].to_pylist() == ["A"]
    assert not joined([decided("A")], [])["is_complete"][0].as_py()


def test_stages_are_told_apart_and_nothing_gives_nothing() -> None:
    table = pa.Table.from_pylist([decided("A")], schema=PREDICTIONS_SCHEMA)
    labels = pa.Table.from_pylist([label("A", 1)], schema=LABELS_SCHEMA)
    rows = join_outcomes(USECASE, {BATCH: table, "online": table}, None, labels, [MONDAY])
    assert sorted(rows["stage"].to_pylist()) == [BATCH, "online"]
    assert rows["label"].to_pylist() == [1, 1]
    assert rows["is_last"].to_pylist() == [True, True]
    assert rows["slice__asset_class"].to_pylist() == [None, None]
    empty = join_outcomes(USECASE, {BATCH: table.slice(0, 0)}, None, labels, [MONDAY])
    assert empty.num_rows == 0
    assert empty.schema == outcomes_schema(USECASE)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from("ABCD"), st.sampled_from([7, 15, 20]), st.sampled_from([0, 1, None])),
        unique_by=lambda row: row[:2],
        min_size=1,
    ),
    st.booleans(),
)
def test_the_join_loses_no_prediction_and_makes_up_no_outcome(
    decisions: list[tuple[str, int, int | None]], mature: bool
) -> None:
    rows = joined(
        [decided(entity, hour) for entity, hour, _ in decisions],
        [label(entity, value, hour) for entity, hour, value in decisions if value is not None],
        (MONDAY,) if mature else (),
    ).to_pylist()
    assert {(row["entity_id"], row["decision_time"].hour): row["label"] for row in rows} == {
        (entity, hour): value for entity, hour, value in decisions
    }
    assert sum(row["is_last"] for row in rows) == len({entity for entity, _, _ in decisions})
    some = any(value is not None for _, _, value in decisions)
    assert {row["is_complete"] for row in rows} == {mature and some}


@pytest.mark.parametrize("which", ["predictions", "labels"])
def test_rows_in_any_order_give_the_same_table(which: str) -> None:
    predictions, labels = (
        [decided("A"), decided("B"), decided("A", 15)],
        [label("A", 1), label("B", 0), label("A", 0, 15)],
    )
    turned = (predictions[::-1], labels) if which == "predictions" else (predictions, labels[::-1])
    assert joined(*turned).equals(joined(predictions, labels))


def test_what_came_of_a_date_is_added_up_by_slice_and_each_entity_counts_once() -> None:
    """Guards rules that would count an instruction once for each time that it was decided."""
    paris = json.dumps({"market": "XPAR", "counterparty_tier": "1", "amount": 5000})
    decisions = [decided("A", 7), decided("A", 15), decided("B", 7), decided("C", 7, attributes=paris)]
    rows = joined(decisions, [label("A", 1, 7), label("A", 1, 15), label("C", 0)])
    counts = outcome_counts(USECASE, rows).to_pylist()
    by = {(row["dimension"], row["value"]): row for row in counts}
    whole = by["all", "all"]
    assert (whole["decisions"], whole["labelled"], whole["fails"]) == (3, 2, 1)
    last = [row for row in rows.to_pylist() if row["is_last"] and row["label"] is not None]
    assert whole["promised"] == pytest.approx(sum(row["probability"] for row in last))
    assert whole["cost"] == sum(row["cost_if_fail"] for row in last if row["label"])
    assert (whole["is_complete"], whole["known_at"]) == (True, at(MONDAY + timedelta(days=1), 6))
    assert (by["market", "XETR"]["fails"], by["market", "XPAR"]["fails"]) == (1, 0)
    for dimension in {row["dimension"] for row in counts}:
        parts = [row for row in counts if row["dimension"] == dimension]
        assert {name: sum(row[name] for row in parts) for name in ("decisions", "labelled", "fails")} == {
            "decisions": 3, "labelled": 2, "fails": 1,
        }, dimension  # fmt: skip


def test_of_no_outcome_there_is_no_count() -> None:
    assert outcome_counts(USECASE, outcomes_schema(USECASE).empty_table()).num_rows == 0
