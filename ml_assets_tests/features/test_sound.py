"""The last look at decisions: what cannot be scored is left out by name, and the others stay."""

from datetime import date

import pyarrow as pa
import pytest

from ml_assets.features.sound import sound

DAY = date(2026, 1, 5)


def decided(**changes: object) -> pa.Table:
    """A sound decision, and one that is changed."""
    row = {"entity_id": "A", "cost_if_fail": 1.0, "outcome_date": DAY}
    schema = pa.schema([("entity_id", pa.string()), ("cost_if_fail", pa.float64()), ("outcome_date", pa.date32())])
    return pa.Table.from_pylist([row, {**row, "entity_id": "B", **changes}], schema=schema)


def test_sound_decisions_are_handed_on_as_they_are() -> None:
    rows = decided(cost_if_fail=0.0)
    assert sound(rows) == (rows, [])
    assert sound(rows.slice(0, 0))[0].num_rows == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cost_if_fail": float("inf")}, "cost_if_fail is inf"),
        ({"cost_if_fail": float("nan")}, "cost_if_fail is nan"),
        ({"cost_if_fail": -1.0}, "cost_if_fail is -1.0"),
        ({"cost_if_fail": None}, "cost_if_fail is None"),
        ({"entity_id": None}, "entity_id is empty"),
        ({"entity_id": ""}, "entity_id is empty"),
        ({"entity_id": "x" * 501}, "longer than 500"),
        ({"outcome_date": None}, "no outcome_date"),
    ],
)
def test_what_cannot_be_scored_is_left_out_by_name(change: dict[str, object], why: str) -> None:
    """Guards: one cost without a value failed all features of a date; one that was infinite led the work-list."""
    rows, refused = sound(decided(**change))
    assert rows["entity_id"].to_pylist() == ["A"]
    ((entity, reason),) = refused
    assert entity == str(change.get("entity_id", "B"))[:500]
    assert why in reason
