from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.contracts import Event, to_columns
from ml_assets.landing.curate import curate, read_landed
from ml_assets.landing.schemas import DEAD_LETTERS, event_schema
from ml_assets.spec import EventSpec
from ml_assets_tests.landing.conftest import MONDAY, Moved, moved

NINE = datetime(2026, 1, 5, 9, tzinfo=UTC)
EVENT = moved("moved")
NO_DEAD_LETTERS = DEAD_LETTERS.empty_table()


class Judged(Event, frozen=True, kw_only=True):
    reason: str | None


def landed(*rows: tuple, event: EventSpec = EVENT) -> pa.Table:
    """Rows of (event, minutes after nine at which it was known), in the order of their offsets."""
    events = [row[0] for row in rows]
    times = [NINE + timedelta(minutes=row[1]) for row in rows]
    columns = {
        **to_columns(event.contract, events),
        "kafka_epoch": ["e"] * len(rows),
        "kafka_partition": [0] * len(rows),
        "kafka_offset": list(range(len(rows))),
        "broker_time": times,
        "known_at": times,
        "business_date": [one.business_date for one in events],
    }
    return pa.table([pa.array(columns[f.name], f.type) for f in event_schema(event)], schema=event_schema(event))


def an_event(number: int, quantity: int = 5, isin: str = "US0378331005") -> Moved:
    return Moved(event_id=str(number), event_time=NINE, isin=isin, side="DELI", quantity=quantity)


def test_of_several_copies_the_first_known_stays():
    result = curate(EVENT, landed((an_event(1, 7), 30), (an_event(1, 5), 10), (an_event(2), 0)), NO_DEAD_LETTERS)
    assert result.curated.select(["event_id", "quantity"]).to_pylist() == [
        {"event_id": "1", "quantity": 5},
        {"event_id": "2", "quantity": 5},
    ]
    assert result.duplicates == {MONDAY: 1}


def test_a_row_that_breaks_rules_is_quarantined_with_all_reasons_and_its_payload():
    result = curate(EVENT, landed((an_event(1, -5, "SHORT"), 0), (an_event(2), 0)), NO_DEAD_LETTERS)
    (bad,) = result.quarantine.to_pylist()
    assert bad["reason"] == "quantity is not positive; ISIN is not 12 characters"
    assert '"quantity":-5' in bad["payload"]
    assert result.curated["event_id"].to_pylist() == ["2"]


def test_a_bad_copy_does_not_hide_the_good_one():
    """Guards: a malformed first copy that takes the place of the good event would lose it."""
    result = curate(EVENT, landed((an_event(1, -5), 0), (an_event(1, 5), 10)), NO_DEAD_LETTERS)
    assert result.curated["quantity"].to_pylist() == [5]
    assert result.duplicates == {}


def test_a_contract_may_have_a_field_called_reason():
    """Guards: the quarantine's own column of that name once swallowed every event that had a reason."""
    event = EventSpec("judged", "judged", Judged, "Judged.")
    rows = landed(
        (Judged(event_id="1", event_time=NINE, reason="LACK"), 0),
        (Judged(event_id="2", event_time=NINE, reason=None), 0),
        event=event,
    )
    result = curate(event, rows, NO_DEAD_LETTERS)
    assert result.curated["reason"].to_pylist() == ["LACK", None]
    assert result.quarantine.num_rows == 0


def test_dead_letters_are_readable_in_the_quarantine():
    dead = pa.table(
        {
            "reason": ["truncated", "no text"],
            "key": [b"1", b"2"],
            "value": [b'{"event_id"', b"\xff\xfe"],
            "kafka_epoch": ["e", "e"],
            "kafka_partition": [0, 0],
            "kafka_offset": [8, 9],
            "broker_time": [NINE, NINE],
            "known_at": [NINE, NINE],
            "business_date": [MONDAY, MONDAY],
        }
    ).cast(DEAD_LETTERS)
    rows = curate(EVENT, landed(), dead).quarantine.to_pylist()
    assert [row["reason"] for row in rows] == ["not decodable: truncated", "not decodable: no text"]
    assert [row["payload"] for row in rows] == ['{"event_id"', "base64://4="]


def test_a_rule_that_is_no_sql_names_the_event():
    broken = EventSpec("moved", "moved", Moved, "Moved.", rules={"odd": "quantty <= 0"})
    with pytest.raises(ValueError, match="event moved: a quarantine rule failed"):
        curate(broken, landed((an_event(1), 0)), NO_DEAD_LETTERS)


EVENTS = st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 3), st.integers(0, 50)), max_size=25)


@given(EVENTS)
def test_every_landed_row_is_accounted_for(rows):
    result = curate(EVENT, landed(*((an_event(n, q), at) for n, q, at in rows)), NO_DEAD_LETTERS)
    assert result.curated.num_rows + sum(result.duplicates.values()) + result.quarantine.num_rows == len(rows)
    assert result.curated["event_id"].to_pylist() == sorted({str(n) for n, q, _ in rows if q > 0})


@given(EVENTS, st.randoms(use_true_random=False))
def test_the_order_in_which_files_are_read_does_not_matter(rows, chance):
    table = landed(*((an_event(n, q), at) for n, q, at in rows))
    shuffled = table.take(pa.array(chance.sample(range(len(rows)), len(rows)), pa.int64()))
    one, other = curate(EVENT, table, NO_DEAD_LETTERS), curate(EVENT, shuffled, NO_DEAD_LETTERS)
    assert one.curated.equals(other.curated)
    assert one.quarantine.equals(other.quarantine)


def test_a_date_without_events_is_empty(lake):
    rows, dead = read_landed(lake, EVENT, [MONDAY])
    result = curate(EVENT, rows, dead)
    assert (result.curated.num_rows, result.quarantine.num_rows) == (0, 0)
