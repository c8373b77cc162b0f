"""The test that matters: what becomes known later changes no feature."""

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.contracts import TIMESTAMP, to_columns
from ml_assets.features import AsOfDatabase
from ml_assets.local.simulation.messages import Message
from ml_assets.spec import Feature, UseCase
from ml_assets_tests import late_payments

DECIDED = date(2026, 1, 20)


@pytest.fixture(scope="module")
def usecase(tmp_path_factory) -> UseCase:
    return late_payments.usecase_of(late_payments.make_package(tmp_path_factory.mktemp("as_of")))


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return list(late_payments.messages(16, per_day=24))


def tables(usecase: UseCase, messages: Iterable[Message]) -> dict[str, pa.Table]:
    """The curated events of messages: each known at its message's time."""
    found = {}
    messages = list(messages)
    for event in usecase.events:
        mine = [m for m in messages if m.topic == event.topic]
        rows = [msgspec.json.decode(m.value, type=event.contract) for m in mine]
        known = pa.array([m.timestamp_ms * 1000 for m in mine], pa.int64()).cast(TIMESTAMP)
        dates = pa.array([row.business_date for row in rows], pa.date32())
        found[event.name] = pa.table({**to_columns(event.contract, rows), "known_at": known, "business_date": dates})
    return found


def decide(usecase: UseCase, messages: Iterable[Message], day: date = DECIDED) -> pa.Table:
    (decision,) = usecase.decision_times(day)
    with AsOfDatabase(usecase, tables(usecase, messages), {}, threads=1) as history:
        return history.features(decision)


LATER = st.lists(
    st.tuples(
        st.sampled_from(["invoices", "payments"]),
        st.integers(0, 11),
        st.integers(0, 15),
        st.integers(1, 10_000),
        st.booleans(),
    ),
    min_size=1,
    max_size=20,
)


@settings(deadline=None, max_examples=30)
@given(later=LATER)
def test_what_becomes_known_later_changes_no_feature(usecase, messages, later: Sequence[tuple]):
    """Guards against every leak: new rows, and other versions of old rows, known after the decision."""
    (decision,) = usecase.decision_times(DECIDED)
    known_after = int((decision.as_of + timedelta(seconds=1)).timestamp() * 1000)
    added = []
    for number, (kind, payer, business_day, minutes, same_id) in enumerate(later):
        happened = datetime.combine(
            late_payments.CALENDAR.add(late_payments.FIRST, business_day), decision.as_of.timetz()
        )
        invoice = f"{happened.date()}-{payer}" if same_id else f"new-{number}"
        fields: dict[str, object] = {"event_id": f"later-{number}", "invoice_id": invoice, "payer": f"P{payer}"}
        if kind == "invoices":
            fields |= {"amount": 1.0, "due_date": happened.date()}
        one = late_payments.message(f"late_payments_{kind}", happened, **fields)
        added.append(one._replace(timestamp_ms=known_after + minutes * 1000))
    assert decide(usecase, [*messages, *added]).equals(decide(usecase, messages))


def test_what_was_known_in_time_does_change_features(usecase, messages):
    """Guards the property above against a feature table that never changes."""
    (decision,) = usecase.decision_times(DECIDED)
    fewer = [m for m in messages if m.topic.endswith("invoices")]
    assert not decide(usecase, fewer).equals(decide(usecase, messages))
    assert decision.as_of.date() == DECIDED


def test_a_label_sees_what_was_known_when_it_was_due(usecase, messages):
    decisions = decide(usecase, messages, date(2026, 1, 15))
    due = date(2026, 1, 19)
    with AsOfDatabase(usecase, tables(usecase, messages), {}, threads=1) as history:
        labels = history.labels(due, decisions)
    payments = {msgspec.json.decode(m.value)["invoice_id"] for m in messages if paid_by(m, due)}
    assert labels.num_rows == decisions.num_rows
    expected = [int(e not in payments) for e in labels["entity_id"].to_pylist()]
    assert labels["label"].to_pylist() == expected
    assert 0 < sum(expected) < len(expected)


def paid_by(message: Message, day: date) -> bool:
    return message.topic.endswith("payments") and msgspec.json.decode(message.value)["event_time"][:10] <= str(day)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"payer": "SELECT entity_id, 1 AS undeclared FROM decisions"}, "payer.sql gives 'undeclared'"),
        ({"payer": "SELECT entity_id FROM decisions, (VALUES (1), (2))"}, "payer.sql gives entity .* more than once"),
        ({"payer": "SELECT entity_id, nothing FROM decisions"}, "payer.sql failed"),
        ({"payer": "SELECT entity_id FROM decisions"}, "no SQL gives the declared features"),
        ({"payer": "SELECT * FROM history.invoices"}, "reads history.invoices, which is not cut"),
        ({"payer": 'SELECT * FROM "history".invoices'}, "payer.sql: reads history.invoices, which is not cut"),
        (
            {"payer": "SELECT * FROM read_csv('/etc/hostname')"},
            r"reads read_csv\(...\).* it may read .*invoices",
        ),
        ({"payer": "SET VARIABLE as_of = now(); SELECT 1"}, "Only SELECT"),
    ],
)
def test_sql_that_breaks_its_promise_is_refused(usecase, messages, change, error):
    broken = dataclasses.replace(usecase)
    broken.__dict__["feature_sql"] = {**usecase.feature_sql, **change}
    with pytest.raises(ValueError, match=error):
        decide(broken, messages)


def test_sql_that_fails_at_a_later_time_is_named(usecase, messages):
    """Guards the message where all files are one statement: the first time had run them one by one, and well."""
    later = dataclasses.replace(usecase)
    fails = (
        "SELECT entity_id, 'x' AS payer_country, CASE WHEN getvariable('decision_date') > DATE '2026-01-20' "
        "THEN payer::INT ELSE 1 END AS payer_late_rate FROM decisions"
    )
    later.__dict__["feature_sql"] = {**usecase.feature_sql, "payer": fails}
    first, second = (time for day in (DECIDED, date(2026, 1, 21)) for time in later.decision_times(day))
    with AsOfDatabase(later, tables(later, messages), {}, threads=1) as history:
        assert history.features(first).num_rows
        with pytest.raises(ValueError, match=r"payer\.sql failed: .*'P\d"):
            history.features(second)


def test_the_hash_of_the_feature_set_follows_its_definition(usecase):
    more = dataclasses.replace(usecase, features=(*usecase.features, Feature("x", "x")))
    assert more.feature_set_hash != usecase.feature_set_hash
    assert dataclasses.replace(usecase).feature_set_hash == usecase.feature_set_hash


@pytest.mark.parametrize(
    "payer",
    [
        "SELECT entity_id, amount AS payer_late_rate, payer AS payer_country FROM decisions",
        "SELECT entity_id, (SELECT count(*) FROM payments) AS payer_late_rate, 'x' AS payer_country FROM decisions",
        "SELECT entity_id, epoch(d.outcome_date) AS payer_late_rate, payer AS payer_country "
        "FROM (SELECT * FROM decisions) d",
        "SELECT entity_id, datediff('day', DATE '2026-01-01', getvariable('decision_date')) AS payer_late_rate, "
        "'x' AS payer_country FROM decisions",
    ],
)
def test_what_is_not_made_again_would_have_come_out_the_same(usecase, messages, payer):
    """Guards reuse between decision times: whatever the SQL depends on, each day's features are those made alone.

    The same invoices are decided each day, so that of the decisions only the outcome date tells the days apart.
    """
    daily = dataclasses.replace(usecase)
    spine = (
        "SELECT invoice_id AS entity_id, getvariable('decision_date') + 2 AS outcome_date, 1.0 AS cost_if_fail, "
        "NULL::VARCHAR AS attributes, amount, payer FROM invoices WHERE event_time < TIMESTAMPTZ '2026-01-10'"
    )
    daily.__dict__["feature_sql"] = {"decisions": spine, "payer": payer}
    # Nothing is known anew from the 21st to the 23rd but one payment.
    known = [m for m in messages if m.timestamp_ms < datetime(2026, 1, 20, tzinfo=UTC).timestamp() * 1000]
    late = next(m for m in messages if m.topic.endswith("payments"))
    known.append(late._replace(timestamp_ms=int(datetime(2026, 1, 22, 12, tzinfo=UTC).timestamp() * 1000)))
    days = [date(2026, 1, day) for day in (21, 22, 23, 21)]
    with AsOfDatabase(daily, tables(daily, known), {}, threads=1) as history:
        made = [history.features(decision) for day in days for decision in daily.decision_times(day)]
    assert [table.num_rows for table in made] == [made[0].num_rows] * 4 != [0] * 4
    for day, table in zip(days, made, strict=True):
        assert table.equals(decide(daily, known, day))


@pytest.mark.parametrize(("years", "reached"), [(2, True), (9, True), (-9, True), (40, False)])
def test_business_days_reach_as_far_as_a_horizon_needs_or_fail_by_name(usecase, messages, years, reached):
    """Guards: the table ended between 370 and 430 days ahead, gave NULL, and features broke in another place."""
    far = dataclasses.replace(usecase)
    beyond = usecase.calendar.previous(DECIDED.replace(year=DECIDED.year + years))
    asked = f"(SELECT next FROM business_days WHERE business_date = DATE '{beyond}')"
    decisions = usecase.feature_sql["decisions"].replace("due_date AS", f"{asked} AS")
    far.__dict__["feature_sql"] = {**usecase.feature_sql, "decisions": decisions}
    if reached:
        rows = decide(far, messages)
        assert rows.num_rows == 24
        assert set(rows["outcome_date"].to_pylist()) == {usecase.calendar.next(beyond)}
    else:
        with pytest.raises(ValueError, match=r"decisions\.sql gives no outcome_date .* has the years 2016 to 2036"):
            decide(far, messages)


def test_business_days_reach_back_as_far_as_the_history(usecase, messages):
    """Guards a count of business days since an old event, which was short without a word."""
    old = dataclasses.replace(usecase.events[0], history=timedelta(days=365 * 20))
    long = dataclasses.replace(usecase, events=(old, *usecase.events[1:]))
    count = "(SELECT count(*) FROM business_days WHERE business_date BETWEEN '2007-01-01' AND '2007-12-31')"
    long.__dict__["feature_sql"] = {
        **usecase.feature_sql,
        "payer": f"SELECT entity_id, {count} AS payer_late_rate, 'x' AS payer_country FROM decisions",
    }
    there = len(list(usecase.calendar.between(date(2007, 1, 1), date(2007, 12, 31))))
    assert set(decide(long, messages)["payer_late_rate"].to_pylist()) == {there}


def test_a_history_takes_no_more_rows(usecase, messages):
    """Guards: what is kept between decision times, and when rows came, was made of the rows of the beginning."""
    first, second = usecase.decision_times(DECIDED)[0], usecase.decision_times(date(2026, 1, 21))[0]
    with AsOfDatabase(usecase, tables(usecase, messages), {}, threads=1) as history:
        history.features(first)
        history._db.execute(f"INSERT INTO {history._history}.payments FROM {history._history}.payments LIMIT 1")
        with pytest.raises(ValueError, match="takes no more rows, open another one"):
            history.features(second)
        history.forget_after(second.as_of)
        assert history.features(second).num_rows > 0
