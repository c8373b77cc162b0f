"""Rows as people read them: columns of the use case, what is hidden, filters and order."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.desk.drawn import bar, from_slot_to_slot, steps_of, waterfall
from ml_assets.desk.rows import (
    ORDERS,
    Asked,
    changes,
    chosen,
    cut_off_of,
    facts_of,
    fingerprint,
    ordered,
    rows_of,
    word,
)
from ml_assets.predictions.feedback import Line, standing
from ml_assets.spec import HANDLING, USUAL_WAY, DeskSpec
from ml_assets_tests.desk.made import DAY, MORNING, NOW, USE_CASE, attributes, reasons

NAMELESS = replace(USE_CASE, desk=DeskSpec())
LONG = "L" * 10_000


def found(number: int, probability: float = 0.5, cause: str = "LACK", **more: object) -> dict:
    return {
        "entity_id": f"I{number}", "priority": number, "outcome_date": DAY, "decision_time": MORNING,
        "slot": "isd_morning", "probability": probability, "cost_if_fail": 1000.0, "expected_cost": 1000 * probability,
        "reason_codes": json.loads(reasons(cause, LACK=1.0)), "attributes": json.loads(attributes(number)),
        "model_version": 1, "mlflow_run_id": "run",
    } | more  # fmt: skip


def rows(*given: dict, usecase=USE_CASE):
    return rows_of(usecase, given)[1]


def acted(entity: str, actor: str = "ana") -> dict:
    line = Line(
        id=1, entity_id=entity, what="acted", value="LACK", note="", actor=actor, at=NOW, until=None, undoes=None,
        request_key="k",
    )  # fmt: skip
    return {entity: standing([line], NOW)}


def names(found_rows) -> list[str]:
    return [row.entity_id for row in found_rows]


def test_columns_are_those_of_the_use_case_or_else_all_attributes():
    columns, (row,) = rows_of(USE_CASE, [found(2)])
    assert [column.title for column in columns] == ["Counterparty", "Security", "Amount", "Place of settlement"]
    assert (row.cells[2].text, row.cells[2].detail, row.cells[2].is_number) == ("2,000,000", "deliver", True)
    columns, (row,) = rows_of(NAMELESS, [found(2)])
    assert [column.attribute for column in columns] == list(json.loads(attributes(2)))
    assert rows_of(NAMELESS, [found(1, attributes=None)])[0] == ()


def test_facts_name_everything_but_what_the_page_shows_otherwise():
    columns, (row,) = rows_of(USE_CASE, [found(2, attributes={**json.loads(attributes(2)), HANDLING: USUAL_WAY})])
    facts = dict(facts_of(USE_CASE, row, columns))
    assert facts["Amount (EUR)"] == "2,000,000"
    assert facts["Side"] == "deliver"
    assert not {"Cut off", "Handling"} & set(facts)
    assert row.control
    assert row.action == "nothing: control group"


@pytest.mark.parametrize(
    ("said", "hour"),
    [("09:30", 9), ("09:30:15", 9), (None, 16), ("soon", 16), ("25:00", 16), (9, 16), ("09:30+05:00", 9)],
)
def test_without_a_good_cut_off_that_of_the_use_case_counts(said, hour):
    at = cut_off_of(USE_CASE, DAY, {"cut_off": said})
    assert (at.date(), at.hour, at.tzinfo) == (DAY, hour, UTC)


def test_names_are_one_visible_line_and_cut():
    assert word("a\u202eb\u200b\nc") == "a\ufffdb\ufffd c"
    assert len(word(LONG)) == 40
    assert word(1234567.8) == "1,234,568"
    assert word(0.25) == "0.25"
    assert word(True) == "True"


def test_what_is_past_its_cut_off_or_acted_on_leaves_what_is_to_do():
    early = {**json.loads(attributes(2)), "cut_off": "07:15"}
    listed = rows(found(1), found(2, attributes=early), found(3))
    stands = acted("I3")

    def of(view):
        return names(chosen(listed, stands, Asked(view=view, filters={}), "ana", NOW))

    assert (of("open"), of("past"), of("acted"), of("mine")) == (["I1"], ["I2"], ["I3"], ["I3"])
    assert of("all") == ["I1", "I2", "I3"]


def test_search_and_filters_narrow_together():
    listed = rows(*(found(n, cause="LACK" if n % 2 else "NMAT") for n in range(1, 7)))

    def of(**more):
        return names(chosen(listed, {}, Asked(**{"filters": {}} | more), "ana", NOW))

    assert of(words="counterparty 1") == ["I1", "I4"]
    assert of(words="COUNTERPARTY 1", cause="NMAT") == ["I4"]
    assert of(filters={"market": "XETR"}) == ["I1", "I3", "I5"]
    assert of(words="nowhere") == []


def test_hidden_rows_tell_their_score_by_nothing():
    """Guards the measure of how far people just follow the score: neither place nor order nor filter tells it."""
    usecase = replace(USE_CASE, desk=replace(USE_CASE.desk, hidden_share=0.5))
    listed = rows(*(found(n, 0.9 - n / 20) for n in range(1, 13)), usecase=usecase)
    hidden = [row for row in listed if row.hidden]
    assert hidden
    assert all(row.on_list for row in hidden)
    assert sorted(names(listed)) == sorted(names(rows(*(found(n, 0.9 - n / 20) for n in range(1, 13)))))
    for order in ("probability", "cost"):
        assert names(ordered(listed, {}, order, True))[-len(hidden) :] == names(hidden)
    assert not set(names(hidden)) & set(names(chosen(listed, {}, Asked(cause="LACK", filters={}), "ana", NOW)))
    shown = hidden[0].seen()
    assert (shown.probability, shown.expected_cost, shown.cause) == (None, None, None)
    entity = hidden[0].entity_id
    assert hidden[0].seen(acted(entity)[entity]).probability == hidden[0].probability


@given(
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=8), st.sampled_from([*ORDERS, "0", "2", "99"]), st.booleans()
)
def test_any_order_has_the_same_rows(probabilities, order, falling):
    listed = rows(*(found(n, p) for n, p in enumerate(probabilities, start=1)))
    again = ordered(listed, acted("I1"), order, falling)
    assert sorted(names(again)) == sorted(names(listed))
    if order == "probability":
        assert [row.probability for row in again] == sorted((row.probability for row in listed), reverse=falling)


def test_what_has_changed_since_a_look_is_told_and_moves_the_fingerprint():
    before, now = rows(found(1, 0.5), found(2, 0.5)), rows(found(1, 0.62), found(2, 0.52), found(3))
    assert changes(before, now) == {"I1": "+12 points", "I3": "new"}
    assert fingerprint(before) != fingerprint(now)
    assert fingerprint(before) == fingerprint(rows(found(1, 0.5), found(2, 0.5)))


@given(st.dictionaries(st.sampled_from(["LACK", "NMAT", "CLAC", "OTHER"]), st.floats(-4, 4)), st.floats(-5, 2))
def test_the_waterfall_sums_to_the_log_odds(contributions, base):
    codes = {"base": base, "contributions": contributions, "log_odds": base + sum(contributions.values())}
    steps = steps_of(USE_CASE, codes)
    assert abs(steps[-1].stands - codes["log_odds"]) < 1e-9
    assert 0 < steps[-1].probability < 1
    assert str(waterfall(steps)).count("<rect") == len(steps) + 1


def test_what_is_drawn_is_escaped():
    codes = {"base": 0.0, "contributions": {"<script>alert(1)</script>": 1.0}}
    assert "<script>" not in waterfall(steps_of(USE_CASE, codes))
    assert "<b>" not in from_slot_to_slot([(datetime(2026, 3, 30, tzinfo=UTC), "<b>", 0.5)])
    assert 'width="100.0"' in bar(1.5)
    assert waterfall([]) == from_slot_to_slot([]) == ""
    assert "<polyline" in from_slot_to_slot([(MORNING, "one", 0.5), (MORNING + timedelta(hours=1), "two", 0.0)])
