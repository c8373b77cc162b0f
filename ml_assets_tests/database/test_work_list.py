"""The work-list shows each open entity once: its latest decision by the model that speaks for it."""

import dataclasses
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from ml_assets.database.connect import begin
from ml_assets.database.predictions import upsert_predictions
from ml_assets.database.status import scored_dates
from ml_assets.database.work_list import left_work_list, next_outcome_date, work_list
from ml_assets.predictions.work_list import priorities, standing
from ml_assets.spec import ActionSpec, OutcomeDates
from ml_assets_tests.database.factories import DECISION_TIME, OUTCOME_DATE, prediction, predictions, scored
from ml_assets_tests.database.plans import nodes

OUTCOME = OutcomeDates(OUTCOME_DATE, OUTCOME_DATE)
AFTERNOON = DECISION_TIME + timedelta(hours=8)


def shown(url: str, limit: int = 10) -> list[tuple[object, ...]]:
    rows = work_list(url, "fails", OUTCOME_DATE, limit)
    return [(row["priority"], row["entity_id"], row["expected_cost"], row["model_version"]) for row in rows]


def test_dearest_first_ties_by_entity_cut_at_capacity(application_url: str) -> None:
    upsert_predictions(application_url, predictions(prediction("C", 0.2), prediction("B", 0.2), prediction("A", 0.1)))
    assert shown(application_url) == [(1, "B", 200.0, 1), (2, "C", 200.0, 1), (3, "A", 100.0, 1)]
    assert shown(application_url, limit=1) == [(1, "B", 200.0, 1)]
    assert work_list(application_url, "fails", date(2026, 1, 7), 10) == []
    assert work_list(application_url, "fails", OUTCOME_DATE, 1)[0]["attributes"]["isin"] == "DE000A1EWWW0"


def test_what_costs_more_to_act_on_than_it_saves_stays_below_the_line(application_url: str) -> None:
    """Guards: a list was filled with rows that were not worth an action; on the line a row is still listed."""
    upsert_predictions(application_url, predictions(prediction("A", 0.1), prediction("B", 0.2), prediction("C", 0.09)))
    action = ActionSpec(cost=50.0, effectiveness=0.5)
    listed = work_list(application_url, "fails", OUTCOME_DATE, 10, action)
    assert [row["entity_id"] for row in listed] == ["B", "A"]
    assert work_list(application_url, "fails", OUTCOME_DATE, 10, ActionSpec(cost=500.0)) == []


def test_a_later_decision_replaces_an_earlier_one(application_url: str) -> None:
    upsert_predictions(application_url, predictions(prediction("A", 0.1, decision_time=AFTERNOON)))
    upsert_predictions(application_url, predictions(prediction("A", 0.9), prediction("B", 0.5)))
    assert shown(application_url) == [(1, "B", 500.0, 1), (2, "A", 100.0, 1)]


def test_a_new_champion_and_a_rollback_each_take_the_list_over(application_url: str) -> None:
    """Guards the rollback: the old version's rows are unchanged and so older than those of the failed one."""
    old = predictions(prediction("A", 0.1))
    new = predictions(prediction("A", 0.9, model_version=2, scored_at=datetime(2026, 2, 1, tzinfo=UTC)))
    upsert_predictions(application_url, old)
    upsert_predictions(application_url, new)
    assert shown(application_url) == [(1, "A", 900.0, 2)]
    assert upsert_predictions(application_url, old).unchanged == 1
    assert shown(application_url) == [(1, "A", 100.0, 1)]


def test_who_is_not_decided_again_leaves_the_list(application_url: str) -> None:
    """Guards an instruction that settled or was cancelled, and stayed on the list by its earlier decision."""
    upsert_predictions(application_url, predictions(prediction("A", 0.1), prediction("B", 0.5)), scored=[scored()])
    later = scored(AFTERNOON, OUTCOME)
    upsert_predictions(application_url, predictions(prediction("A", 0.2, decision_time=AFTERNOON)), scored=[later])
    assert shown(application_url) == [(1, "A", 200.0, 1)]
    assert left_work_list(application_url, "fails", [DECISION_TIME]) == 0
    assert left_work_list(application_url, "fails", [AFTERNOON]) == 1
    evening = AFTERNOON + timedelta(hours=5)
    upsert_predictions(application_url, predictions(), scored=[scored(evening, OUTCOME)])
    assert left_work_list(application_url, "fails", [evening]) == 1, "B had left before"
    assert left_work_list(application_url, "fails", [AFTERNOON, evening]) == 2


def test_a_scoring_of_nothing_empties_the_list_and_a_part_does_not(application_url: str) -> None:
    """Guards the slot at which nothing is open any more: no row to write, and still a scoring."""
    upsert_predictions(application_url, predictions(prediction("A", 0.1)), scored=[scored(decides=OUTCOME)])
    part = prediction("B", 0.5, decision_time=AFTERNOON)
    upsert_predictions(application_url, predictions(part), scored=[scored(AFTERNOON)])
    assert shown(application_url) == [(1, "B", 500.0, 1), (2, "A", 100.0, 1)]
    counts = upsert_predictions(application_url, predictions(), scored=[scored(AFTERNOON, OUTCOME)])
    assert counts.deleted == 1, "late data has withdrawn B"
    assert shown(application_url) == []


def test_a_scoring_speaks_for_its_use_case_alone(application_url: str) -> None:
    upsert_predictions(application_url, predictions(prediction("A", 0.1), prediction("A", 0.2, use_case="other")))
    upsert_predictions(application_url, predictions(), scored=[scored(AFTERNOON, OUTCOME)])
    assert shown(application_url) == []
    assert len(work_list(application_url, "other", OUTCOME_DATE, 10)) == 1


def test_a_part_by_another_model_decides_nothing_as_a_whole(application_url: str) -> None:
    """Guards a list that one row of a new model would have emptied of what the old one decided before."""
    upsert_predictions(application_url, predictions(prediction("A", 0.1)), scored=[scored()])
    part = predictions(prediction("B", 0.5, decision_time=AFTERNOON))
    upsert_predictions(application_url, part, scored=[scored(AFTERNOON, OUTCOME)])
    upsert_predictions(application_url, part)
    assert [row[1] for row in shown(application_url)] == ["B"], "the same model's rows change nothing"
    other = predictions(prediction("C", 0.3, decision_time=AFTERNOON, model_version=2))
    upsert_predictions(application_url, other)
    assert [row[1] for row in shown(application_url)] == ["C", "A"]


def test_models_of_one_version_number_do_not_mix(application_url: str) -> None:
    """Guards a registered model that was deleted and made anew: its version 1 took over rows of the old version 1."""
    old = predictions(prediction("A", 0.1), prediction("B", 0.2))
    upsert_predictions(application_url, old, scored=[scored(decides=OUTCOME)])
    anew = prediction("A", 0.9, mlflow_run_id="run-of-the-new-model-1")
    assert upsert_predictions(application_url, predictions(anew)).inserted == 1
    assert shown(application_url) == [(1, "A", 900.0, 1)]
    assert upsert_predictions(application_url, old).unchanged == 2
    assert shown(application_url) == [(1, "B", 200.0, 1), (2, "A", 100.0, 1)]


spans = st.tuples(st.integers(0, 3), st.integers(0, 2) | st.none()).map(
    lambda span: OutcomeDates(
        OUTCOME_DATE + timedelta(days=span[0]),
        None if span[1] is None else OUTCOME_DATE + timedelta(days=sum(span)),
    )
)
writes = st.lists(
    st.tuples(
        st.integers(0, 3),  # hours after the first decision time
        st.integers(1, 2),  # the model
        st.just("part") | st.none() | spans,
        st.dictionaries(
            st.sampled_from(["A", "a", "Ä", "_z", "A 1", "A-1"]),
            st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.2])),
            max_size=5,
        ),
    ),
    max_size=8,
)


@given(writes)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_view_is_the_rule(application_url: str, drawn: list) -> None:
    """Guards the SQL against parting from `predictions.work_list`: any scorings, whole or in part, in any order."""
    engine, use_case = create_engine(application_url), f"fails-{uuid4()}"
    stored: dict[tuple[datetime, int], dict] = defaultdict(dict)
    speaks: dict[datetime, tuple[int, OutcomeDates | None]] = {}
    for hour, model, decides, decided in drawn:
        at = DECISION_TIME + timedelta(hours=hour)
        rows = {
            entity: (OUTCOME_DATE + timedelta(days=days), probability)
            for entity, (days, probability) in decided.items()
        }
        table = predictions(
            *(
                prediction(
                    entity, probability, use_case=use_case, decision_time=at, model_version=model, outcome_date=day
                )
                for entity, (day, probability) in rows.items()
            )
        )
        if decides == "part":
            upsert_predictions(engine, table)
            stored[at, model] |= rows
            if rows:
                known = speaks.get(at)
                speaks[at] = (model, known[1] if known and known[0] == model else None)
        else:
            whole = dataclasses.replace(scored(at, decides, model), use_case=use_case)
            upsert_predictions(engine, table, scored=[whole])
            stored[at, model] = rows
            speaks[at] = (model, decides)
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT outcome_date, priority, entity_id, decision_time, expected_cost FROM work_list "
                "WHERE use_case = :use_case ORDER BY outcome_date, priority"
            ),
            {"use_case": use_case},
        ).all()
    engine.dispose()
    flat = [
        (entity, day, at, 1000 * probability)
        for (at, model), rows in stored.items()
        if speaks.get(at, (None,))[0] == model
        for entity, (day, probability) in rows.items()
    ]
    names = np.array([row[0] for row in flat], dtype=str)
    days = np.array([row[1] for row in flat], dtype="datetime64[D]")
    times = np.array([row[2].replace(tzinfo=None) for row in flat], dtype="datetime64[us]")
    there = standing(names, days, times, {at: decides for at, (_, decides) in speaks.items()})
    costs = np.array([row[3] for row in flat])
    places = priorities(days[there], names[there], costs[there])
    listed = [row for row, chosen in zip(flat, there, strict=True) if chosen]
    expected = sorted(
        (day, int(place), name, at, cost) for (name, day, at, cost), place in zip(listed, places, strict=True)
    )
    assert [tuple(row) for row in found] == expected


def test_a_reader_s_filter_reaches_the_index(application_url: str) -> None:
    """Guards against a view that sorts all of history for one morning's list, or asks all scorings for each row."""
    rows = [prediction(f"E{n}", outcome_date=date(2026, 1, 1 + n % 28)) for n in range(3000)]
    upsert_predictions(application_url, predictions(*rows), scored=[scored(decides=OUTCOME)])
    others = [
        scored(DECISION_TIME + timedelta(hours=8 * n), OutcomeDates(date(2026, 2, 1) + timedelta(days=n)))
        for n in range(1, 750)
    ]
    upsert_predictions(application_url, predictions(), scored=others)
    with begin(application_url) as connection:
        connection.execute(text("ANALYZE predictions, scorings"))
    found = plan_of(application_url, date(2026, 1, 6))
    indexes = {node["Index Name"] for node in found if "Index Name" in node}
    assert any(name.startswith("predictions_2026_01_use_case_outcome_date") for name in indexes), indexes
    assert not [node for node in found if node["Node Type"] == "Seq Scan" and node["Relation Name"] != "scorings"]
    assert asked_scorings(found) == 1


def test_a_date_that_is_newer_than_the_statistics_is_read_once(application_url: str) -> None:
    """Guards minutes for the first list of a morning: of a new date one row is expected, and each asked a join."""
    upsert_predictions(
        application_url, predictions(*(prediction(f"E{n}", outcome_date=OUTCOME_DATE) for n in range(50)))
    )
    with begin(application_url) as connection:
        connection.execute(text("ANALYZE predictions, scorings"))
        # Else its statistics may be made anew at any moment.
        connection.execute(text("ALTER TABLE predictions_2026_01 SET (autovacuum_enabled = false)"))
    new = OUTCOME_DATE + timedelta(days=1)
    rows = [prediction(f"E{n}", outcome_date=new) for n in range(2000)]
    upsert_predictions(application_url, predictions(*rows), scored=[scored(decides=OutcomeDates(new))])
    found = plan_of(application_url, new)
    scans = [node for node in found if str(node.get("Relation Name")).startswith("predictions")]
    assert [(node["Plan Rows"] < 100, node["Actual Rows"], node["Actual Loops"]) for node in scans] == [(True, 2000, 1)]
    assert asked_scorings(found) == 1


def plan_of(url: str, outcome_date: date) -> list[dict[str, Any]]:
    """The nodes of the plan by which a reader's list of a date was made."""
    with begin(url) as connection:
        (plan,) = connection.execute(
            text(
                "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
                "SELECT * FROM work_list WHERE use_case = 'fails' AND outcome_date = :day"
            ),
            {"day": outcome_date},
        ).scalar_one()
    return list(nodes(plan["Plan"]))


def asked_scorings(plan: list[dict[str, Any]]) -> float:
    """How many times it was asked since when the date is decided."""
    (subplan,) = [node for node in plan if node.get("Subplan Name", "").startswith("SubPlan")]
    (scan,) = [node for node in nodes(subplan) if node.get("Relation Name") == "scorings"]
    return float(scan["Actual Loops"])


def test_status_counts_by_date_and_version(application_url: str) -> None:
    assert scored_dates(application_url) == []
    assert next_outcome_date(application_url, "fails") is None
    upsert_predictions(application_url, predictions(prediction("A", 0.25), prediction("B", 0.75)))
    upsert_predictions(application_url, predictions(prediction("A", 0.5, use_case="other")))
    (row,) = scored_dates(application_url, "fails")
    assert (row.predictions, row.mean_probability, row.expected_cost) == (2, 0.5, 1000.0)
    assert len(scored_dates(application_url)) == 2
    assert next_outcome_date(application_url, "fails") == OUTCOME_DATE
    later = OUTCOME_DATE + timedelta(days=1)
    upsert_predictions(application_url, predictions(prediction("C", outcome_date=later)))
    assert next_outcome_date(application_url, "fails") == OUTCOME_DATE
    upsert_predictions(application_url, predictions(), scored=[scored(DECISION_TIME + timedelta(days=1), OUTCOME)])
    assert next_outcome_date(application_url, "fails") == later, "a scoring of nothing is the newest"
