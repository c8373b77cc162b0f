"""Where a row stands by what was said of it: leases, colleagues, what may be taken back."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.predictions.feedback import (
    LONGEST_NOTE,
    OTHER,
    RESULTS,
    TAKEN_OVER,
    UNTOUCHED,
    WHATS,
    Line,
    Said,
    by_entity,
    colleague,
    lease,
    standing,
    why_not,
)

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)
CAUSES = ("LACK", "NMAT")


def line(number: int, what: str, actor: str = "ana", value: str | None = None, **more: object) -> Line:
    at = NOW + timedelta(minutes=number)
    given: dict = {
        "id": number, "entity_id": "A", "what": what, "value": value, "note": "", "actor": actor, "at": at,
        "until": at + HALF_HOUR if what == "claimed" else None, "undoes": None, "request_key": f"k{number}",
    }  # fmt: skip
    return Line(**given | more)


def said(what: str, actor: str = "ana", value: str | None = None, **more: object) -> Said:
    return Said(entity_id="A", what=what, actor=actor, request_key="k", value=value, **more)


def test_a_row_goes_from_open_to_done():
    lines = [line(1, "claimed"), line(2, "acted", value="LACK"), line(3, "resulted", value="averted")]
    states = [standing(lines[:n], NOW + timedelta(minutes=n)).state for n in range(4)]
    assert states == ["open", "in work", "acted on", "done"]
    assert standing([], NOW) == UNTOUCHED


def test_a_claim_is_a_lease_and_what_was_acted_on_stays_with_who_did():
    claimed = [line(0, "claimed")]
    assert standing(claimed, NOW + HALF_HOUR - timedelta(seconds=1)).owner == "ana"
    assert standing(claimed, NOW + HALF_HOUR).state == "open"
    acted = standing([*claimed, line(1, "acted", value="LACK")], NOW + timedelta(days=1))
    assert (acted.owner, acted.lease_until) == ("ana", None)
    assert lease(said("claimed"), NOW, HALF_HOUR) == NOW + HALF_HOUR
    assert lease(said("acted"), NOW, HALF_HOUR) is None


def test_released_is_open_again_and_undo_takes_one_line_back():
    assert standing([line(1, "claimed"), line(2, "released")], NOW).state == "open"
    lines = [line(1, "acted", value="LACK"), line(2, "resulted", value="averted"), line(3, "undone", undoes=2)]
    assert standing(lines, NOW).state == "acted on"
    assert standing([*lines, line(4, "undone", undoes=1)], NOW).state == "open"


def test_two_analysts_on_one_row_see_each_other():
    bens = [line(1, "claimed", "ben")]
    for what, value in (("claimed", None), ("acted", "LACK"), ("judged", "LACK")):
        theirs = colleague(said(what, value=value, seen=1), bens, NOW)
        assert theirs is not None
        assert theirs.actor == "ben"
        assert colleague(said(what, value=value), bens, NOW + HALF_HOUR + timedelta(minutes=1)) is None
        assert colleague(said(what, "ben", value=value), bens, NOW) is None
    assert colleague(said("noted", note="both of us"), bens, NOW) is None
    assert colleague(said("claimed", value=TAKEN_OVER), bens, NOW) is None


def test_what_a_colleague_did_since_one_looked_is_not_overwritten_unseen():
    """Guards two analysts who both call one counterparty: the second page was older than the first one's act."""
    acted = [line(5, "acted", "ben", "LACK")]
    assert colleague(said("acted", value="NMAT", seen=4), acted, NOW) == acted[0]
    assert colleague(said("acted", value="NMAT", seen=5), acted, NOW) is None
    assert colleague(said("acted", value="NMAT"), [*acted, line(6, "undone", "ben", undoes=5)], NOW) is None


@pytest.mark.parametrize(
    ("what", "more", "why"),
    [
        ("acted", {"value": "MAGIC"}, "none of the causes LACK, NMAT, OTHER"),
        ("judged", {"value": OTHER}, "say in the note what it was"),
        ("resulted", {"value": "averted"}, "say first what was done"),
        ("resulted", {"value": "splendid"}, "no result"),
        ("noted", {}, "the note is empty"),
        ("noted", {"note": "x" * (LONGEST_NOTE + 1)}, "2,001 characters"),
        ("released", {}, "no claim of yours"),
        ("undone", {"undoes": 7}, "said yourself"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(what, more, why):
    assert why in why_not(said(what, **more), [], NOW, CAUSES)


def test_nobody_takes_back_what_a_colleague_said_or_the_same_twice():
    lines = [line(1, "acted", "ben", "LACK"), line(2, "acted", value="NMAT"), line(3, "undone", undoes=2)]
    assert why_not(said("undone", undoes=1), lines, NOW, CAUSES)
    assert why_not(said("undone", undoes=2), lines, NOW, CAUSES)
    assert not why_not(said("undone", "ben", undoes=1), lines, NOW, CAUSES)


lines_of = st.lists(
    st.tuples(st.sampled_from([what for what in WHATS if what != "undone"]), st.sampled_from(["ana", "ben"])),
    max_size=8,
)


@given(lines_of, st.integers(0, 7))
def test_taking_a_line_back_is_as_if_it_had_not_been_said(steps, at):
    values = {"acted": "LACK", "resulted": RESULTS[0], "judged": "NMAT"}
    lines = [line(n, what, actor, values.get(what)) for n, (what, actor) in enumerate(steps, start=1)]
    if at < len(lines):
        back = line(99, "undone", lines[at].actor, undoes=lines[at].id)
        without = standing([one for one in lines if one is not lines[at]], NOW)
        with_undo = standing([*lines, back], NOW)
        assert with_undo.lines == without.lines
        assert (with_undo.state, with_undo.owner) == (without.state, without.owner)


@given(lines_of)
def test_a_row_has_an_owner_exactly_while_it_is_not_open(steps):
    lines = [line(n, what, actor, "LACK") for n, (what, actor) in enumerate(steps, start=1)]
    found = standing(lines, NOW)
    assert (found.owner is None) == (found.state == "open")
    assert by_entity(lines) == ({"A": lines} if lines else {})
