"""What a producer may put into a record, and what must come of it: it is quarantined by name, and the rest goes on."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.contracts import Event
from ml_assets.database.predictions import ScoredTime, upsert_predictions
from ml_assets.defs.sensors.landed import plan
from ml_assets.features import AsOfDatabase
from ml_assets.lake import curated_table, quarantine_table
from ml_assets.landing.batch import landing_rows
from ml_assets.landing.curate import Curated, curate
from ml_assets.landing.decode import Decoder
from ml_assets.landing.landed import look
from ml_assets.landing.rules import LONGEST_REASON
from ml_assets.landing.schemas import DEAD_LETTER, DEAD_LETTERS, EVENT, LETTER_COLUMNS, event_schema
from ml_assets.lifecycle.ingestion import curate_dates
from ml_assets.predictions.score import predictions_for
from ml_assets.spec import DecisionTime, EventSpec
from ml_assets.usecases.cns_fails.usecase import USE_CASE as CNS
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.landing.conftest import MONDAY, moved
from ml_assets_tests.landing.messages import NINE, Taken, body, land_taken
from ml_assets_tests.predictions.test_score import SOURCE

pytestmark = pytest.mark.hostile

EVENING = DecisionTime("end_of_trade_date", datetime(2026, 1, 5, 20, tzinfo=UTC))
NOW = NINE + timedelta(minutes=1)

# A sound event of each contract; number of the event, and of its instruction, are filled in.
SOUND: dict[str, dict[str, Any]] = {
    "trades": {
        "uti": "U", "isin": "DE0000000001", "mic": "XETR", "side": "BUY", "quantity": 5, "price": 2.5,
        "counterparty_lei": "LEI",
    },
    "settlement_instructions": {
        "instruction_id": "I", "uti": "U", "isin": "DE0000000001", "movement": "DELI", "payment": "APMT",
        "quantity": 100, "amount": 1000.0, "counterparty_lei": "LEI", "account": "A1", "pset": "DAKVDEFFXXX",
        "trade_date": "2026-01-05", "intended_settlement_date": "2026-01-07",
    },
    "settlement_status": {"instruction_id": "I", "status": "MACH", "reason": None},
    "settlement_confirmations": {"instruction_id": "I", "quantity": 1},
    "inventory_positions": {"isin": "DE0000000001", "available_quantity": 3},
    "securities_lending": {"isin": "DE0000000001", "fee_bp": 12.5, "utilisation": 0.5},
}  # fmt: skip

# JSON as it stands in a message: what no encoder of ours would write is among it.
TEXTS = [
    "", " ", "\t", "\0", "x\0y", "A" * 4000, "\u00df" * 500, "\u202egro.knab", "\u2066x", "\ufeffI", "\u200bI",
    "\u2028", "\x7f", "\x85", " I", "I\n", "[/x]", "[red]", "=1+1", "'; DROP TABLE predictions; --", "\U0001f600",
    "\uffff", "NaN", "Infinity", "-0", "noon", "0001-01-01", "9999-12-31", "2200-01-01", "1970-01-01", "2026-03-29",
    "2024-02-29",
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00",
    "9998-12-31T00:00:00Z", "2099-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1899-12-30T00:00:00Z",
    "2026-01-05T10:01:00Z", "2026-01-06T09:00:00Z", "2026-01-05T09:00:00", "2026-03-29T02:30:00+01:00",
    "2026-01-05T09:00:00.9999999Z",
]  # fmt: skip
RAW = [
    b"null", b"true", b"[]", b"{}", b"-0.0", b"0", b"-1", b"1e308", b"-1e308", b"1.8e308", b"1e400", b"1e-400",
    b"5e-324", b"1e15", b"1.1e15", b"9223372036854775807", b"-9223372036854775808",
    b"18446744073709551615", b"1" + b"0" * 30, b"NaN", b"Infinity",
    b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xff"', b"1" * 5000,
]  # fmt: skip
HOSTILE = st.sampled_from([*(msgspec.json.encode(text) for text in TEXTS), *RAW])


def message(name: str, number: str, **changes: bytes) -> bytes:
    """The JSON of an event of settlement_fails with some of its values as they are given, byte by byte."""
    fields = {"event_id": number, "event_time": NINE, **SOUND[name]}
    for own in ("uti", "instruction_id"):
        if own in fields:
            fields[own] = f"{fields[own]}-{number}"
    parts = {field: msgspec.json.encode(value) for field, value in fields.items()} | changes
    return b"{" + b",".join(msgspec.json.encode(field) + b":" + value for field, value in parts.items()) + b"}"


@st.composite
def hostile_messages(draw: st.DrawFn) -> dict[str, list[bytes]]:
    """Up to three messages of each contract, each with one or two values that no feed should send."""
    found: dict[str, list[bytes]] = {}
    for name, sound in SOUND.items():
        fields = ["event_id", "event_time", *sound]
        found[name] = [
            message(
                name, f"H{number}", **draw(st.dictionaries(st.sampled_from(fields), HOSTILE, min_size=1, max_size=2))
            )
            for number in range(draw(st.integers(0, 3)))
        ]
    return found


def take(event: EventSpec, values: list[bytes]) -> tuple[Curated, int]:
    """What becomes of messages, by lander and curation; and how many of them broke the contract."""
    taken = [Taken(offset, value) for offset, value in enumerate(values)]
    landed = landing_rows(event, Decoder(event.contract), "e", taken, clock="replay", now=NOW).rows
    events = landed.filter(pc.equal(landed["kind"], EVENT)).select(event_schema(event).names).cast(event_schema(event))
    letters = landed.filter(pc.equal(landed["kind"], DEAD_LETTER))
    columns = [LETTER_COLUMNS.get(name, name) for name in DEAD_LETTERS.names]
    dead = letters.select(columns).rename_columns(DEAD_LETTERS.names).cast(DEAD_LETTERS)
    return curate(event, events, dead, threads=1), dead.num_rows


def check_stored(url: str, features: pa.Table) -> None:
    """Score the features with any probabilities, and store the predictions where operations read them."""
    probabilities = np.linspace(0, 1, features.num_rows)
    predictions = predictions_for(USE_CASE, features, probabilities, SOURCE)
    assert pc.all(pc.is_finite(predictions["expected_cost"])).as_py()
    assert pc.min(predictions["expected_cost"]).as_py() >= 0
    times = predictions["decision_time"].unique().to_pylist()
    scored = [ScoredTime(USE_CASE.name, at, SOURCE.model_version, SOURCE.mlflow_run_id) for at in times]
    assert upsert_predictions(url, predictions, scored=scored)


@given(hostile_messages())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_value_of_any_field_stops_a_date_and_the_good_rows_beside_it_are_kept(
    application_url: str, reference_data: dict[str, pa.Table], hostile: dict[str, list[bytes]]
) -> None:
    """Guards: a NUL in an id, an id of 4,000 characters, an amount of 1e308 or a date of the year 9999 in a record."""
    tables = {}
    for event in USE_CASE.events:
        values = [message(event.name, "good"), *hostile[event.name]]
        curated, dead = take(event, values)
        rejected = sum(curated.rejected.values())
        assert curated.curated.num_rows + sum(curated.duplicates.values()) + rejected + dead == len(values)
        assert curated.quarantine.num_rows == rejected + dead
        assert "good" in curated.curated["event_id"].to_pylist()
        assert all(len(reason) <= 5 * LONGEST_REASON for reason in curated.quarantine["reason"].to_pylist())
        tables[event.name] = curated.curated
    with AsOfDatabase(USE_CASE, tables, reference_data, threads=1) as history:
        features = history.features(EVENING)
        assert history.refused == []
        assert "I-good" in features["entity_id"].to_pylist()
        for outcome in features["outcome_date"].unique().to_pylist():
            history.labels(outcome, features.filter(pc.equal(features["outcome_date"], pa.scalar(outcome))))
    check_stored(application_url, features)


CNS_AT = datetime(2026, 1, 5, 21, tzinfo=UTC)


def cns_message(number: str, day: date, **changes: bytes) -> bytes:
    """The JSON of a balance of fails, with some of its values as they are given."""
    fields = {
        "event_id": number, "event_time": datetime.combine(day, CNS_AT.timetz()), "settlement_date": day,
        "symbol": "GOOD",
        "quantity": 10_000, "price": 20.0, "description": "GOOD CORP COM", "published": CNS_AT,
    }  # fmt: skip
    parts = {field: msgspec.json.encode(value) for field, value in fields.items()} | changes
    return b"{" + b",".join(msgspec.json.encode(field) + b":" + value for field, value in parts.items()) + b"}"


CNS_FIELDS = ["event_id", "event_time", "settlement_date", "symbol", "quantity", "price", "description", "published"]


@given(st.lists(st.dictionaries(st.sampled_from(CNS_FIELDS), HOSTILE, min_size=1, max_size=3), max_size=4))
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_no_balance_of_fails_stops_a_date_or_changes_another_security(hostile: list[dict[str, bytes]]) -> None:
    """Guards: a price next to 0 made a deviation infinite; one row of 2150 was the newest date of all securities."""
    (event,) = CNS.events
    days = [date(2026, 1, 2), date(2026, 1, 5)]
    good = [cns_message(f"good-{day}", day) for day in days]
    bad = [
        cns_message(f"H{number}", days[0], **{"symbol": b'"BAD"', **changes}) for number, changes in enumerate(hostile)
    ]
    now = CNS_AT + timedelta(minutes=1)
    decision = DecisionTime("noon", datetime(2026, 1, 6, 12, tzinfo=UTC))
    found = []
    for values in (good, good + bad):
        taken = [Taken(offset, value) for offset, value in enumerate(values)]
        landed = landing_rows(event, Decoder(event.contract), "e", taken, now=now).rows
        landed = landed.filter(pc.equal(landed["kind"], EVENT)).select(event_schema(event).names)
        curated = curate(event, landed.cast(event_schema(event)), DEAD_LETTERS.empty_table(), threads=1).curated
        assert {f"good-{day}" for day in days} <= set(curated["event_id"].to_pylist())
        with AsOfDatabase(CNS, {event.name: curated}, {}, threads=1) as history:
            features = history.features(decision)
        found.append(next(row for row in features.to_pylist() if row["entity_id"] == "GOOD"))
    same = ("last_fail_value", "days_since_published", "log_price", "cost_if_fail")
    if not any(changes.get("symbol") == b'"GOOD"' for changes in hostile):
        assert [found[0][name] for name in same] == [found[1][name] for name in same]


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59Z", "9998-01-01T00:00:00Z", "2099-06-01T00:00:00Z",
                                  "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])  # fmt: skip
def test_an_implausible_event_time_is_quarantined_on_the_date_on_which_it_came(lake, text):
    """Guards: such a row was in no partition, neither curated nor quarantined, and the sensor overflowed on it."""
    event = USE_CASE.event("settlement_instructions")
    values = [message(event.name, "good"), message(event.name, "odd", event_time=msgspec.json.encode(text))]
    land_taken(lake, event, [Taken(offset, value) for offset, value in enumerate(values)], now=NOW)
    landed, change = look(lake, USE_CASE.events)
    assert change.dates == (MONDAY,)
    assert next(plan(USE_CASE, landed, change, None, NOW)).partition_key == "2026-01-05"
    report = curate_dates(lake, USE_CASE, event, [MONDAY])
    assert (report.rows, report.rejected, report.copies) == (1, {MONDAY: 1}, {})
    (row,) = lake.read(quarantine_table(USE_CASE, event)).to_pylist()
    assert "event_time" in row["reason"]
    assert "odd" in row["payload"]
    assert lake.read(curated_table(USE_CASE, event))["event_id"].to_pylist() == ["good"]


def test_a_date_that_is_no_partition_costs_the_sensor_nothing():
    """Guards: of a lake that has such rows already, each tick overflowed or took 40 seconds."""
    from ml_assets.landing.landed import Change, DateState, Landed

    far = [date(1, 1, 1), date(2099, 1, 1), date(9999, 12, 31)]
    landed = Landed({"trades": {day: DateState(1, NINE) for day in [MONDAY, *far]}})
    change = Change((far[0], MONDAY, *far[1:]), datetime(1, 1, 1, tzinfo=UTC))
    runs = list(plan(USE_CASE, landed, change, NINE, NOW))
    assert runs[0].partition_key == "2026-01-05"


def test_what_landed_on_a_weekend_for_the_monday_is_asked_for_when_the_monday_has_come():
    """Guards: there was no such partition yet when the sensor saw it, and it never looked again."""
    from ml_assets.landing.landed import Change, DateState, Landed

    saturday = datetime(2026, 1, 10, 12, tzinfo=UTC)
    monday = date(2026, 1, 12)
    landed = Landed({"trades": {monday: DateState(1, saturday)}})
    runs = plan(USE_CASE, landed, Change(()), saturday, datetime(2026, 1, 12, 0, 1, tzinfo=UTC))
    assert [run.partition_key for run in runs][:1] == ["2026-01-12"]


def test_an_event_ahead_of_its_broker_is_quarantined_and_a_clock_that_is_off_by_minutes_is_not():
    """Guards: one row that was known before it happened failed the leak check, and so all retraining."""
    event = USE_CASE.event("trades")
    ahead = {"hour": NINE + timedelta(hours=1), "minutes": NINE + timedelta(minutes=5)}
    values = [message("trades", n, event_time=msgspec.json.encode(at)) for n, at in ahead.items()]
    curated, _ = take(event, values)
    assert curated.curated["event_id"].to_pylist() == ["minutes"]
    assert curated.quarantine["reason"].to_pylist() == ["event_time is later than it was known"]


def test_a_bad_value_is_named_by_field_and_all_reasons_are_told():
    event = USE_CASE.event("settlement_instructions")
    curated, _ = take(event, [message(event.name, "1", instruction_id=b'"\\u0000"', amount=b"1e308", quantity=b"-5")])
    (reason,) = curated.quarantine["reason"].to_pylist()
    for part in (
        "the quantity is not positive",
        "amount is beyond 1e+15",
        "instruction_id has characters that cannot be",
    ):
        assert part in reason


def test_what_people_write_is_kept():
    """Guards: rules that refuse the letters of a language, or a joiner that is one of them."""
    event = moved("texts")
    for text in (
        "Zürich §3",
        "株式会社",
        "\u0645\u06cc\u200c\u062e\u0648\u0631\u0645",
        "a-b_c/d:e[1]",
        "\U0001f468\u200d\U0001f469",
    ):
        rows = landing_rows(event, Decoder(event.contract), "e", [Taken(0, body(1, event_id=text))], now=NOW).rows
        landed = rows.select(event_schema(event).names).cast(event_schema(event))
        assert curate(event, landed, DEAD_LETTERS.empty_table()).curated["event_id"].to_pylist() == [text]


def test_a_reason_that_quotes_a_message_is_cut_and_legible(lake):
    """Guards: an enum value of 900 kB put 7 MB of metadata on every run."""
    event = moved("reasons")
    long = body(2, side="\x00\x1b[31m" + "X" * 900_000)
    land_taken(lake, event, [Taken(0, body(1)), Taken(1, long)], now=NOW)
    report = curate_dates(lake, USE_CASE, event, [MONDAY])
    (reason,) = report.quarantined
    assert len(reason) <= LONGEST_REASON
    assert reason.isprintable()
    assert "Invalid enum value" in reason


def test_few_bad_rows_of_a_quiet_date_stop_nothing_and_a_dead_letter_is_counted_once(lake):
    """Guards: one bad row of a file of 51,537 failed the date on which it came, by two checks."""
    from ml_assets.defs.checks.ingestion import judge_curation

    event = moved("quiet")
    land_taken(lake, event, [Taken(0, body(1)), Taken(1, b"{"), Taken(2, body(3, quantity=-1))], now=NOW)
    report = curate_dates(lake, USE_CASE, event, [MONDAY])
    assert report.quarantine_rates == {MONDAY: 0.5}
    assert report.dead_letter_rates == {MONDAY: pytest.approx(1 / 3)}
    assert all(result.passed for result in judge_curation(event, report))


@pytest.mark.parametrize(("bad", "check"), [(b"{", "dead_letter_rate"), (body(0, quantity=-1), "quarantine_rate")])
def test_a_broken_feed_still_stops_its_date(lake, bad, check):
    from ml_assets.defs.checks.ingestion import judge_curation

    event = moved("broken")
    good = [Taken(offset, body(offset)) for offset in range(10)]
    land_taken(lake, event, [*good, *(Taken(offset, bad) for offset in range(10, 16))], now=NOW)
    report = curate_dates(lake, USE_CASE, event, [MONDAY])
    assert {result.check_name: result.passed for result in judge_curation(event, report)} == {
        name: name != check for name in ("quarantine_rate", "dead_letter_rate")
    }


def test_every_contract_has_rules_for_every_text_and_number():
    """Guards: a contract added later, or a type that the rules do not know."""
    for event in USE_CASE.events:
        for field, kind in _fields(event.contract):
            hostile = {str: b'"\\u0000"', float: b"1e300", int: b"9223372036854775807", date: b'"9999-12-31"'}.get(kind)
            if hostile is not None:
                curated, dead = take(event, [message(event.name, "1", **{field: hostile})])
                assert sum(curated.rejected.values()) + dead == 1, f"{event.name}.{field}"


def _fields(contract: type[Event]) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(contract):
        yield field.name, field.type


def test_a_code_of_a_market_is_kept_and_counted():
    """Guards: statuses and reasons that were not in our list were dead letters, nine tenths of a real feed."""
    event = USE_CASE.event("settlement_status")
    values = [
        message(event.name, "1", status=b'"CAND"'),
        message(event.name, "2", status=b'"PENF"', reason=b'"AWSH"'),
        message(event.name, "3", status=b'"PEND"', reason=b'"XYZ1"'),
        message(event.name, "4", status=b'"ODD"'),
    ]
    curated, dead = take(event, values)
    assert (curated.curated.num_rows, dead) == (4, 0)
    assert curated.unknown_codes == {"status ODD": 1, "reason XYZ1": 1}
