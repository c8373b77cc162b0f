"""The use case on fails to deliver: what is known when, and what counts as a large fail."""

import json
from collections.abc import Iterable
from datetime import date, datetime, time

import msgspec
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.contracts import TIMESTAMP, to_columns
from ml_assets.features import AsOfDatabase
from ml_assets.usecases.cns_fails.contracts import CnsFail
from ml_assets.usecases.cns_fails.publication import publication_time
from ml_assets.usecases.cns_fails.usecase import USE_CASE

JUNE = list(USE_CASE.calendar.between(date(2020, 6, 1), date(2020, 6, 30)))
DECIDED = date(2020, 7, 20)  # the second half of June has just been published, on the 15th
(DECISION,) = USE_CASE.decision_times(DECIDED)


def fail(day: date, symbol: str, quantity: int, price: float | None = 10.0, number: int = 0) -> CnsFail:
    return CnsFail(
        event_id=f"{day}-{symbol}-{number}",
        event_time=datetime.combine(day, time(21), tzinfo=DECISION.as_of.tzinfo),
        settlement_date=day,
        symbol=symbol,
        quantity=quantity,
        price=price,
        description=f"{symbol} CORP",
    )


def history(rows: Iterable[CnsFail], known: Iterable[datetime] | None = None) -> AsOfDatabase:
    """The use case's history of these rows, known when published."""
    rows = list(rows)
    table = pa.table(
        {
            **to_columns(CnsFail, rows),
            "known_at": pa.array(known or [publication_time(row.settlement_date) for row in rows], TIMESTAMP),
            "business_date": pa.array([row.business_date for row in rows], pa.date32()),
        }
    )
    return AsOfDatabase(USE_CASE, {"cns_fails": table}, {}, threads=1)


MARKET = [fail(day, symbol, quantity) for day in JUNE for symbol, quantity in (("BIG", 50_000), ("TINY", 10))]


def features(rows: Iterable[CnsFail]) -> dict[str, dict]:
    with history(rows) as db:
        return {row["entity_id"]: row for row in db.features(DECISION).to_pylist()}


def labels(rows: Iterable[CnsFail], outcome_date: date, symbols: Iterable[str]) -> dict[str, int]:
    """The labels of decisions about these securities, made on what was known of a standing market."""
    with history([*MARKET, *rows]) as db:
        decided = db.features(DECISION).slice(0, 1).to_pylist()[0]
        keys = [{**decided, "entity_id": symbol, "outcome_date": outcome_date} for symbol in symbols]
        decisions = pa.Table.from_pylist(keys, schema=db.features(DECISION).schema)
        return {row["entity_id"]: row["label"] for row in db.labels(outcome_date, decisions).to_pylist()}


def test_a_decision_sees_published_balances_only():
    july = [fail(day, "NEW", 10**6) for day in USE_CASE.calendar.between(date(2020, 7, 1), date(2020, 7, 17))]
    seen = features([*MARKET, *july])
    assert set(seen) == {"BIG", "TINY"}, "July is published at its end"
    assert seen["BIG"]["mean_fail_value_20d"] == 500_000
    assert seen["BIG"]["days_since_published"] == (DECIDED - JUNE[-1]).days
    assert seen["BIG"]["outcome_date"] == date(2020, 7, 21)
    assert json.loads(seen["BIG"]["attributes"])["symbol"] == "BIG"


def test_features_are_made_once_a_publication_and_are_those_of_each_day():
    """Guards reuse: within a publication no balance is aggregated again, and no day has another day's features."""
    july = [fail(day, "NEW", 10**5) for day in USE_CASE.calendar.between(date(2020, 7, 1), date(2020, 7, 14))]
    rows = [*MARKET, *july]
    days = list(USE_CASE.calendar.between(date(2020, 7, 13), date(2020, 8, 4)))
    decisions = [decision for day in days for decision in USE_CASE.decision_times(day)]
    aggregated: list[date] = []
    with history(rows) as db:
        (session,) = db._sessions
        query = session.query

        def counted(stem, sql):
            if stem == "balances":
                aggregated.append(decision.decision_date)
            query(stem, sql)

        session.query = counted
        made = []
        for decision in decisions:
            made.append(db.features(decision))
            db.labels(date(2020, 6, 29), made[-1])  # moves the views back in time
    for decision, features_then in zip(decisions, made, strict=True):
        with history(rows) as db:
            assert db.features(decision).equals(features_then)
    # Published at 23:00 of July 15 and 31: seen from noon of the next business day on.
    assert aggregated == [date(2020, 7, 13), date(2020, 7, 16), date(2020, 8, 3)]


def test_a_date_without_a_row_counts_as_no_balance():
    rows = [*MARKET, fail(JUNE[-1], "ONCE", 20_000)]
    assert features(rows)["ONCE"]["mean_fail_value_20d"] == 200_000 / 20
    assert features(rows)["ONCE"]["large_rate_5d"] == 1 / 5


def test_a_missing_price_is_the_last_one_before_it():
    rows = [*MARKET, fail(JUNE[-2], "GAP", 1_000, 7.0), fail(JUNE[-1], "GAP", 1_000, None)]
    assert features(rows)["GAP"]["last_fail_value"] == 7_000


def test_cusips_stay_where_they_are():
    """Guards: these identifiers may carry a third party's rights; nothing that leaves the folder has them."""
    assert "cusip" not in {name.lower() for name in CnsFail.__struct_fields__}


OUTCOME = date(2020, 7, 21)


def test_a_large_balance_is_a_fail_and_a_small_or_absent_one_is_not():
    rows = [fail(OUTCOME, "BIG", 10_001), fail(OUTCOME, "TINY", 10_000)]
    assert labels(rows, OUTCOME, ["BIG", "TINY", "GONE"]) == {"BIG": 1, "TINY": 0, "GONE": 0}


def test_a_date_that_no_file_covers_has_no_outcome():
    assert labels([], OUTCOME, ["BIG", "TINY"]) == {}


def test_no_outcome_is_told_at_the_decision():
    """Guards the check on outcomes before decisions: a large balance may stay until tomorrow without a leak."""
    with history(MARKET) as db:
        assert db.outcomes_at(DECISION, db.features(DECISION)).num_rows == 0
        published = [fail(OUTCOME, "BIG", 50_000)]
    with history([*MARKET, *published], [publication_time(JUNE[0])] * (len(MARKET) + 1)) as db:
        assert db.outcomes_at(DECISION, db.features(DECISION))["early"].to_pylist() == [1, 0]


def test_a_balance_that_never_had_a_price_has_no_outcome():
    rows = [fail(OUTCOME, "BIG", 1), fail(OUTCOME, "ODD", 10**6, None)]
    assert labels(rows, OUTCOME, ["BIG", "ODD"]) == {"BIG": 0}


def test_an_outcome_is_known_when_it_is_published():
    assert USE_CASE.label.known_at(date(2020, 11, 13)).date() == date(2020, 11, 30)
    assert USE_CASE.label.known_at(date(2020, 11, 16)).date() == date(2020, 12, 15)


LATER = st.lists(
    st.tuples(st.sampled_from(JUNE), st.sampled_from(["BIG", "TINY", "NEW"]), st.integers(1, 10**7)),
    min_size=1,
    max_size=15,
)


@settings(deadline=None, max_examples=25)
@given(LATER)
def test_what_is_published_later_changes_no_feature(later):
    """Guards against the classic leak of this data: to use a balance weeks before it was published."""
    known = [publication_time(row.settlement_date) for row in MARKET]
    added = [fail(day, symbol, quantity, 99.0, n + 1) for n, (day, symbol, quantity) in enumerate(later)]
    just_after = DECISION.as_of.replace(second=1)
    with history(MARKET, known) as before, history([*MARKET, *added], [*known, *[just_after] * len(added)]) as after:
        assert after.features(DECISION).equals(before.features(DECISION))


def test_features_of_an_empty_history_are_empty():
    with AsOfDatabase(USE_CASE, {}, {}, threads=1) as db:
        assert db.features(DECISION).num_rows == 0


def test_events_survive_the_wire():
    row = fail(JUNE[0], "BIG", 5, None)
    assert msgspec.json.decode(msgspec.json.encode(row), type=CnsFail) == row


def test_spells_of_large_balances_are_counted_from_the_newest_date():
    """Guards where spells begin and end; a published date without a row ends one."""
    large = [*JUNE[2:5], *JUNE[8:10], *JUNE[-3:]]
    seen = features([*MARKET, *(fail(day, "SPELLS", 20_000) for day in large)])
    spells, never = seen["SPELLS"], seen["TINY"]
    dates = len(JUNE)
    assert spells["large_spell_rate"] == 3 / dates
    assert spells["large_spell_length"] == (len(large) + 1) / (3 + 1)
    assert spells["newest_large_spell"] == 3
    assert spells["large_changes_60d"] == 5, "three beginnings, two ends"
    assert [never[name] for name in ("large_spell_rate", "newest_large_spell", "large_changes_60d")] == [0, 0, 0]
    assert seen["BIG"]["newest_large_spell"] == dates
    assert seen["BIG"]["large_changes_60d"] == 0, "it was large before the first date, for all that is known"
    assert spells["nearly_large_rate_1_5"] > spells["nearly_large_rate_6_10"] == 0
    assert spells["nearly_large_rate_16_25"] > 0, "of the dates that there are"
    assert spells["nearly_large_rate_26_40"] is None, "nothing has been published of these dates"


def test_words_of_the_description_tell_of_the_other_securities_that_have_them():
    """Guards the word rates: the security's own balances are left out, and a word of four says nothing."""

    def market(fails_of_first: int) -> dict[str, dict]:
        rows = []
        for number in range(12):
            quantity = fails_of_first if number == 0 else 100_000 if number < 6 else 10
            words = "LEVERAGED FUND" if number < 6 else "QUIET, CORP." if number < 11 else "SELDOM CORP"
            rows += [msgspec.structs.replace(fail(day, f"S{number}", quantity), description=words) for day in JUNE]
        return features(rows)

    seen = market(100_000)
    assert seen["S1"]["words_mean"] > 0 > seen["S7"]["words_mean"]
    assert seen["S7"]["words_most"] >= seen["S7"]["words_mean"] >= seen["S7"]["words_least"]
    assert seen["S11"]["words_most"] == seen["S11"]["words_least"], "CORP is of six, SELDOM of one"
    # Others see less of the word when the first ceases to fail; the first sees the same of it, in a quieter market.
    calm = market(10)
    assert calm["S1"]["words_mean"] < seen["S1"]["words_mean"]
    assert calm["S0"]["words_mean"] > seen["S0"]["words_mean"]


def test_a_corrected_file_replaces_the_earlier_one_from_its_publication_on():
    """Guards a correction that was added to what it corrects: a removed balance stayed, a changed one counted twice."""
    newest = JUNE[-1]
    corrected = [
        msgspec.structs.replace(row, event_id=f"{row.event_id}-2", quantity=row.quantity * 3, published=at)
        for at in (datetime(2020, 7, 18, 9, tzinfo=DECISION.as_of.tzinfo),)
        for row in MARKET
        if row.settlement_date == newest and row.symbol == "BIG"
    ]
    known = [publication_time(row.settlement_date) for row in MARKET] + [corrected[0].published]
    (before,) = USE_CASE.decision_times(date(2020, 7, 17))
    with history([*MARKET, *corrected], known) as db:
        old = {row["entity_id"]: row for row in db.features(before).to_pylist()}
        new = {row["entity_id"]: row for row in db.features(DECISION).to_pylist()}
    assert old["BIG"]["last_fail_value"] == 500_000
    assert new["BIG"]["last_fail_value"] == 1_500_000
    assert old["TINY"]["last_fail_value"] == 100
    assert new["TINY"]["last_fail_value"] == 0, "it is not in the corrected file"
    assert new["BIG"]["second_last_fail_value"] == 500_000, "other dates stand"


def test_a_history_without_corrections_has_the_features_that_it_had():
    with (
        history(MARKET) as plain,
        history([msgspec.structs.replace(row, published=known_at(row)) for row in MARKET]) as db,
    ):
        assert plain.features(DECISION).equals(db.features(DECISION))


def known_at(row: CnsFail) -> datetime:
    """When the file of a row was published."""
    return publication_time(row.settlement_date)
