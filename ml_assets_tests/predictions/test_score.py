"""Expected cost, rank and provenance of predictions."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import Event
from ml_assets.database.predictions import UpsertCount, upsert_predictions
from ml_assets.database.schema import PREDICTIONS_SCHEMA
from ml_assets.features import features_schema
from ml_assets.predictions.score import Provenance, flagged, predictions_for, retain_provenance
from ml_assets.spec import ActionSpec, Candidate, ControlSpec, EventSpec, Feature, LabelSpec, Slot, SplitSpec, UseCase

MORNING = datetime(2026, 1, 5, 7, tzinfo=UTC)
AFTERNOON = MORNING + timedelta(hours=8)
SOURCE = Provenance(
    model_name="fails",
    model_version=3,
    mlflow_run_id="run-of-model-3",
    feature_set_hash="0123456789ab",
    data_versions={"features/fails": 7},
    git_commit="c0ffee",
    dagster_run_id="first",
    scored_at=AFTERNOON,
)
LATER = replace(SOURCE, dagster_run_id="second", git_commit="beef", data_versions={"features/fails": 8})


def no_model(*_: object) -> object:
    raise AssertionError("these tests fit no model")


@pytest.fixture(scope="module")
def usecase(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    folder = tmp_path_factory.mktemp("fails")
    (folder / "features").mkdir()
    Path(folder / "features" / "decisions.sql").write_text("SELECT 1")
    return UseCase(
        name="fails",
        title="Fails",
        description="For tests of scoring",
        entity="instruction",
        owner="team:markets",
        tier="low",
        folder=folder,
        calendar=BusinessCalendar("ECB"),
        first_partition=date(2026, 1, 5),
        events=(EventSpec("events", "events", Event, "Events"),),
        slots=(Slot("morning", time(7)), Slot("afternoon", time(15))),
        features=(Feature("size", "Size"),),
        label=LabelSpec("failed", "Failed", lambda day: datetime.combine(day, time(20), tzinfo=UTC)),
        split=SplitSpec(10, 2, 2),
        candidates=(Candidate("rule", "The rule", no_model, is_rule=True),),  # type: ignore[arg-type]
        capacity=2,
    )


def decisions(*rows: tuple[str, datetime, float]) -> pa.Table:
    """A features table of (entity, decision time, cost if it fails)."""
    return pa.Table.from_pylist(
        [
            {
                "entity_id": entity,
                "decision_time": at,
                "decision_date": at.date(),
                "slot": "morning" if at == MORNING else "afternoon",
                "outcome_date": date(2026, 1, 6),
                "cost_if_fail": cost,
                "attributes": json.dumps({"isin": "DE000A1EWWW0"}),
                "size": 1.0,
            }
            for entity, at, cost in rows
        ],
        schema=features_schema((Feature("size", "Size"),)),
    )


def test_expected_cost_ranks_within_each_decision_time(usecase: UseCase) -> None:
    features = decisions(("B", MORNING, 10.0), ("A", MORNING, 20.0), ("C", MORNING, 90.0), ("A", AFTERNOON, 1.0))
    made = predictions_for(usecase, features, np.array([0.4, 0.2, 0.1, 0.5], np.float32), SOURCE)
    assert made.schema == PREDICTIONS_SCHEMA
    rows = made.select(["entity_id", "slot", "rank"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("A", "morning", 2),
        ("B", "morning", 3),
        ("C", "morning", 1),
        ("A", "afternoon", 1),
    ]
    assert made.column("expected_cost").to_pylist() == pytest.approx([4.0, 4.0, 9.0, 0.5])
    assert set(made.column("feature_set_hash").to_pylist()) == {SOURCE.feature_set_hash}


@given(order=st.permutations(range(6)), costs=st.lists(st.sampled_from([1.0, 2.0]), min_size=6, max_size=6))
def test_ranks_depend_on_the_rows_and_not_on_their_order(
    usecase: UseCase, order: list[int], costs: list[float]
) -> None:
    """Guards a work-list that changes when a partition is read in another order; ties go by entity."""
    features = decisions(*((f"E{n}", MORNING if n < 4 else AFTERNOON, costs[n]) for n in range(6)))
    probabilities = np.full(6, 0.5)
    made = predictions_for(usecase, features, probabilities, SOURCE)
    assert predictions_for(usecase, features.take(order), probabilities, SOURCE).equals(made)
    for slot in ("morning", "afternoon"):
        rows = [row for row in made.to_pylist() if row["slot"] == slot]
        dearest = sorted(rows, key=lambda row: (-row["expected_cost"], row["entity_id"]))
        assert [row["rank"] for row in dearest] == list(range(1, len(rows) + 1))


def test_no_decisions_make_no_predictions(usecase: UseCase) -> None:
    made = predictions_for(usecase, decisions(), np.array([]), SOURCE)
    assert made.num_rows == 0
    assert made.schema == PREDICTIONS_SCHEMA


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.array([0.5, 0.5]), r"shape \(2,\); 1 decisions need \(1,\)"),
        (np.array([[0.5]]), r"shape \(1, 1\)"),
        (np.array([np.nan]), r"1 of 1 probabilities are not in \[0, 1\]"),
        (np.array([1.5]), r"1 of 1 probabilities are not in \[0, 1\]"),
    ],
)
def test_what_is_not_a_probability_a_row_is_refused(usecase: UseCase, probabilities: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictions_for(usecase, decisions(("A", MORNING, 1.0)), probabilities, SOURCE)


def test_scoring_again_gives_the_rows_that_are_there(usecase: UseCase) -> None:
    """Guards 'materializing any partition twice changes no row of Delta', null reason codes included."""
    features = decisions(("A", MORNING, 1.0), ("B", MORNING, 2.0))
    first = predictions_for(usecase, features, np.array([0.1, 0.2]), SOURCE)
    again = predictions_for(usecase, features, np.array([0.1, 0.2]), LATER)
    assert not again.equals(first)
    assert retain_provenance(again, first).equals(first)
    assert retain_provenance(again, first.slice(0, 0)).equals(again)


def test_only_changed_rows_take_the_new_provenance_in_the_lake_and_in_postgresql(
    usecase: UseCase, application_url: str
) -> None:
    """Guards the two stores against telling different stories of one prediction."""
    features = decisions(("A", MORNING, 1.0), ("B", MORNING, 0.5))
    first = predictions_for(usecase, features, np.array([0.1, 0.1]), SOURCE)
    grown = decisions(("A", MORNING, 1.0), ("B", MORNING, 0.5), ("C", MORNING, 0.7))
    again = retain_provenance(predictions_for(usecase, grown, np.array([0.1, 0.1, 0.1]), LATER), first)
    assert again.column("dagster_run_id").to_pylist() == ["first", "second", "second"]  # B is third now
    upsert_predictions(application_url, first)
    assert upsert_predictions(application_url, again) == UpsertCount(inserted=1, updated=1, unchanged=1)
    assert upsert_predictions(application_url, again) == UpsertCount(inserted=0, updated=0, unchanged=3)


@pytest.mark.parametrize("cost", [float("inf"), float("nan"), -1.0])
def test_a_cost_by_which_no_list_can_be_ordered_is_refused_by_name(usecase: UseCase, cost: float) -> None:
    """Guards: a penalty rate of nan or inf put its decisions at the top of the work-list."""
    features = decisions(("A", MORNING, 1.0), ("B", MORNING, cost))
    with pytest.raises(ValueError, match=f"that of 'B' is {cost / 2}"):
        predictions_for(usecase, features, np.array([0.5, 0.5]), SOURCE)


def test_what_is_not_worth_acting_on_gets_no_reasons(usecase: UseCase) -> None:
    """Guards: reasons and actions were given for rows that cost more to act on than they save."""
    rows = decisions(("A", MORNING, 100.0), ("B", MORNING, 10.0), ("C", MORNING, 50.0))
    asked = replace(usecase, capacity=2, action=ActionSpec(cost=5.0, effectiveness=0.5))
    at_the_line = np.array([0.1, 0.99, 0.2])  # 10 of expected cost, 9.9, 10
    assert flagged(asked, rows, at_the_line).tolist() == [True, False, True]
    assert flagged(replace(asked, capacity=1), rows, at_the_line).tolist() == [True, False, False]
    assert flagged(asked, rows, at_the_line * 0.9).tolist() == [False, False, False]


def test_the_control_group_is_marked_in_what_people_read(usecase: UseCase) -> None:
    control = replace(usecase, control=ControlSpec(share=0.5, max_cost=100.0))
    features = decisions(
        *((f"I{n}", MORNING, 50.0) for n in range(40)), *((f"D{n}", MORNING, 500.0) for n in range(40))
    )
    made = predictions_for(control, features, np.full(80, 0.1), SOURCE)
    usual = {row["entity_id"] for row in made.to_pylist() if "usual way" in (row["attributes"] or "")}
    assert 5 < len(usual) < 35
    assert all(name.startswith("I") for name in usual), "never a dear one"
    plain = predictions_for(usecase, features, np.full(80, 0.1), SOURCE)
    columns = [name for name in plain.column_names if name != "attributes"]
    assert made.select(columns).equals(plain.select(columns)), "neither the place on the list nor anything else changes"
