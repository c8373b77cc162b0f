"""The work-list rule: who stands on a list, in which order, and who is acted on."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.learning.metrics import worklist
from ml_assets.learning.window import Window
from ml_assets.predictions.work_list import listed, priorities, standing
from ml_assets.spec import ActionSpec, OutcomeDates

START = datetime(2026, 1, 5, 7, tzinfo=UTC)
DAY = date(2026, 1, 6)
TODAY = OutcomeDates(DAY, DAY)


def hours(*after: int) -> np.ndarray:
    return np.array([(START + timedelta(hours=hour)).replace(tzinfo=None) for hour in after], dtype="datetime64[us]")


def stands(decisions: dict[tuple[str, int], date], scorings: dict[int, OutcomeDates | None], as_of: int | None = None):
    """The (entity, hour) that stand, of decisions about an outcome date each."""
    mask = standing(
        np.array([entity for entity, _ in decisions]),
        np.array(list(decisions.values()), dtype="datetime64[D]"),
        hours(*(hour for _, hour in decisions)),
        {START + timedelta(hours=hour): decided for hour, decided in scorings.items()},
        None if as_of is None else START + timedelta(hours=as_of),
    )
    return [decision for decision, chosen in zip(decisions, mask, strict=True) if chosen]


def test_who_is_not_decided_again_leaves_the_list():
    """Guards an instruction that had settled or was cancelled and stayed on the list by its earlier decision."""
    decisions = {("A", 0): DAY, ("B", 0): DAY, ("A", 8): DAY}
    assert stands(decisions, {0: TODAY, 8: TODAY}) == [("A", 8)]
    assert stands(decisions, {0: TODAY, 8: TODAY}, as_of=7) == [("A", 0), ("B", 0)]


def test_a_slot_that_decides_a_part_takes_nobody_off():
    decisions = {("A", 0): DAY, ("B", 0): DAY, ("A", 8): DAY, ("C", 8): DAY}
    assert stands(decisions, {0: TODAY, 8: None}) == [("B", 0), ("A", 8), ("C", 8)]


def test_a_scoring_that_decides_nothing_empties_the_list_of_its_dates_alone():
    """Guards the morning on which everything has settled: no row, and still a scoring."""
    later = DAY + timedelta(days=1)
    decisions = {("A", 0): DAY, ("B", 0): later}
    assert stands(decisions, {0: None, 24: TODAY}) == [("B", 0)]
    assert stands(decisions, {0: None, 24: OutcomeDates(DAY)}) == []
    assert stands(decisions, {0: None, 24: OutcomeDates(later, None)}) == [("A", 0)]


def test_an_entity_that_moved_to_another_outcome_date_leaves_the_first_when_that_is_decided_again():
    moved = DAY + timedelta(days=2)
    decisions = {("A", 0): DAY, ("A", 8): moved}
    assert stands(decisions, {0: None, 8: OutcomeDates(moved, moved)}) == [("A", 0), ("A", 8)]
    assert stands(decisions, {0: None, 8: OutcomeDates(moved, moved), 9: TODAY}) == [("A", 8)]


def test_no_decisions_stand_on_no_list():
    assert stands({}, {0: TODAY}) == []
    nothing = np.array([], dtype=np.float64)
    assert len(priorities(nothing, nothing.astype(str), nothing)) == 0


spans = st.tuples(st.integers(-1, 3), st.integers(0, 2) | st.none()).map(
    lambda span: OutcomeDates(
        DAY + timedelta(days=span[0]), None if span[1] is None else DAY + timedelta(days=sum(span))
    )
)


@given(
    decisions=st.dictionaries(
        st.tuples(st.sampled_from("ABC"), st.integers(0, 5)),
        st.integers(0, 3).map(lambda days: DAY + timedelta(days=days)),
        max_size=12,
    ),
    scorings=st.dictionaries(st.integers(0, 6), st.none() | spans),
    as_of=st.none() | st.integers(0, 6),
)
def test_a_decision_stands_unless_a_later_one_or_a_later_scoring_replaces_it(decisions, scorings, as_of):
    """The rule said row by row, for any decisions and scorings."""

    def replaced(entity: str, hour: int, day: date) -> bool:
        end = 99 if as_of is None else as_of
        again = any(e == entity and d == day and hour < h <= end for (e, h), d in decisions.items())
        decided = any(
            span and span.first <= day and (span.last is None or day <= span.last) and hour < h <= end
            for h, span in scorings.items()
        )
        return again or decided or hour > end

    expected = [key for key, day in decisions.items() if not replaced(*key, day)]
    assert stands(decisions, scorings, as_of) == expected


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0, 2.0, 50.0])), min_size=1, max_size=20),
    capacity=st.integers(1, 5),
    cost=st.sampled_from([0.0, 1.0, 10.0]),
)
def test_each_list_has_its_dearest_and_no_more_than_is_worth_it(rows, capacity, cost):
    lists, costs = (np.array(column) for column in zip(*rows, strict=True))
    names = np.array([f"{'aB_Ä'[n % 4]}{n}" for n in range(len(rows))])
    places = priorities(lists, names, costs)
    action = ActionSpec(cost=cost, effectiveness=0.5)
    chosen = listed(lists, names, costs, capacity=capacity, action=action)
    for one in np.unique(lists):
        order = sorted(np.flatnonzero(lists == one), key=lambda n: (-costs[n], str(names[n]).encode()))
        assert [places[n] for n in order] == list(range(1, len(order) + 1))
        assert [n for n in order if chosen[n]] == [n for n in order[:capacity] if costs[n] * 0.5 >= cost]


@given(
    open_at=st.lists(st.sets(st.integers(0, 5), max_size=6), min_size=2, max_size=6),
    seed=st.integers(0, 99),
    capacity=st.integers(1, 4),
)
def test_metrics_cut_the_list_as_it_stands_after_the_scoring_of_each_slot(open_at, seed, capacity):
    """Guards gate metrics of lists that nobody sees: two slots a day, each of which decides all of one outcome date."""
    draws, at, rows, scorings = np.random.default_rng(seed), [], [], {}
    for number, entities in enumerate(open_at):
        moment, outcome = START + timedelta(hours=12 * number), DAY + timedelta(days=(number + 1) // 2)
        scorings[moment] = OutcomeDates(outcome, outcome)
        at += [moment.replace(tzinfo=None)] * len(entities)
        rows += [(f"E{entity}", outcome, f"slot {number % 2}") for entity in sorted(entities)]
    if not rows:
        return
    names, outcomes, slots = (np.array(column, dtype=object) for column in zip(*rows, strict=True))
    times = np.array(at, dtype="datetime64[us]")
    window = Window(
        entity_ids=names,
        decision_times=times,
        dates=times.astype("datetime64[D]"),
        slots=slots,
        labels=np.zeros(len(rows), dtype=np.int8),
        costs=draws.choice([1.0, 2.0, 30.0], len(rows)),
        outcome_dates=outcomes.astype("datetime64[D]"),
        values=np.full(len(rows), np.nan),
    )
    p, action = draws.random(len(rows)).round(1), ActionSpec(cost=1.0, effectiveness=0.5)
    chosen = worklist(window, p, capacity=capacity, action=action)
    for moment, decided in scorings.items():
        there = standing(names, window.outcome_dates, times, scorings, moment)
        there &= window.outcome_dates == np.datetime64(decided.first)
        on_list = np.flatnonzero(there)[
            listed(np.zeros(there.sum()), names[there], (p * window.costs)[there], capacity=capacity, action=action)
        ]
        slot = times == np.datetime64(moment.replace(tzinfo=None), "us")
        assert on_list.tolist() == np.flatnonzero(slot & chosen).tolist()
