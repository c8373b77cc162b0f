"""An instruction that is amended, or sent again: the newest version known counts, however dates are cut into runs."""

from collections import defaultdict
from datetime import date, timedelta

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.features import AsOfDatabase
from ml_assets.features.days import day_end
from ml_assets.landing.curate import curate
from ml_assets.landing.schemas import DEAD_LETTERS
from ml_assets.spec import DecisionTime
from ml_assets.usecases.settlement_fails.contracts import SettlementInstruction, SettlementStatus
from ml_assets.usecases.settlement_fails.usecase import CALENDAR, USE_CASE
from ml_assets_tests.usecases.settlement import Known, landed_rows, row_of
from ml_assets_tests.usecases.test_settlement_fails import ISD, TRADE_DATE, Desk, at

EVENT = USE_CASE.event("settlement_instructions")
DAYS = [CALENDAR.add(TRADE_DATE, n) for n in range(4)]


def amended(desk: Desk, moment, **changes) -> Known:
    first = desk.instruction
    return msgspec.structs.replace(first, event_time=moment, **changes), moment


def curated_in_runs(known: list[Known], runs: list[list[date]]) -> pa.Table:
    """The curated table after each run has made the dates that are its own, the last of a date's wins."""
    rows = landed_rows(EVENT, known)
    made = {}
    for dates in runs:
        mine = rows.filter(pc.is_in(rows["business_date"], pa.array(dates, pa.date32())))
        table = curate(EVENT, mine, DEAD_LETTERS.empty_table(), threads=1).curated
        for day in dates:
            made[day] = table.filter(pc.equal(table["business_date"], pa.scalar(day)))
    return pa.concat_tables(made[day] for day in sorted(made))


def history(desk: Desk, instructions: pa.Table, **events: pa.Table) -> AsOfDatabase:
    return AsOfDatabase(USE_CASE, {"settlement_instructions": instructions, **events}, desk.references, threads=1)


def runs_of(days: list[date]):
    """Any cut of dates into runs, in any order, some dates more than once."""
    cut = st.permutations(days).flatmap(
        lambda order: st.lists(st.booleans(), min_size=len(order), max_size=len(order)).map(
            lambda ends: _cut(list(order), ends)
        )
    )
    return st.tuples(cut, st.lists(st.sampled_from(days), max_size=2, unique=True)).map(
        lambda both: [*both[0], *([both[1]] if both[1] else [])]
    )


def _cut(order: list[date], ends: list[bool]) -> list[list[date]]:
    runs: list[list[date]] = [[]]
    for day, end in zip(order, ends, strict=True):
        runs[-1].append(day)
        if end:
            runs.append([])
    return [run for run in runs if run]


VERSIONS = st.lists(
    st.tuples(
        st.integers(0, 3),  # day
        st.integers(8, 18),  # hour
        st.sampled_from([0, 0, 1, 30]),  # hours until it is known
        st.sampled_from([90_000.0, 50_000.0]),
        st.sampled_from([ISD, ISD + timedelta(days=1)]),
        st.booleans(),  # an event of its own, or the same id again
        st.integers(1, 2),  # how often it is sent
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=12, deadline=None)
@given(versions=VERSIONS, runs=runs_of(DAYS), day=st.integers(0, 3), slot=st.sampled_from(USE_CASE.slots))
def test_any_cut_of_dates_gives_the_same_rows_and_features(reference_data, versions, runs, day, slot):
    """Guards against an amendment that a run of both dates dropped, and a run of its date alone choked on."""
    desk = Desk(reference_data)
    known: list[Known] = [(desk.instruction, desk.instruction.event_time)]
    for number, (on, hour, later, amount, isd, is_new, times) in enumerate(versions):
        moment = at(DAYS[on], hour, 1)
        fields = {"amount": amount, "intended_settlement_date": isd}
        row, _ = amended(desk, moment, **fields, **({"event_id": f"SI-{number}"} if is_new else {}))
        known += [(row, moment + timedelta(hours=later + again, seconds=number)) for again in range(times)]
    at_once, in_runs = curated_in_runs(known, [DAYS]), curated_in_runs(known, runs)
    assert in_runs.equals(at_once)
    decision = DecisionTime(slot.name, at(DAYS[day], slot.at.hour))
    with history(desk, at_once) as one, history(desk, in_runs) as other:
        features = one.features(decision)
        assert features.equals(other.features(decision))
    # A copy is known since it first came.
    first: dict[SettlementInstruction, object] = {}
    for row, moment in sorted(known, key=lambda each: each[1]):
        first.setdefault(row, moment)
    seen = [(moment, row.event_time, row) for row, moment in first.items() if moment <= decision.as_of]
    newest = max(seen, key=lambda each: each[:2])[2] if seen else None
    settles = {"isd_morning": DAYS[day], "isd_minus_1": CALENDAR.add(DAYS[day], 1)}.get(slot.name)
    is_open = newest and (newest.intended_settlement_date == settles if settles else newest.trade_date == DAYS[day])
    assert features.num_rows == bool(is_open)
    if is_open:
        (row,) = features.to_pylist()
        assert row["outcome_date"] == newest.intended_settlement_date
        assert row["log_amount"] == pytest.approx(float(pc.ln(newest.amount).as_py()))


def test_the_old_settlement_date_keeps_no_label_once_the_amendment_is_known(reference_data):
    """Guards: decided for the old date, it was labelled as failed there, and again on the new one."""
    desk = Desk(reference_data)
    later = CALENDAR.add(ISD, 1)
    known = [(desk.instruction, desk.instruction.event_time), amended(desk, at(ISD, 8), intended_settlement_date=later)]
    with history(desk, curated_in_runs(known, [DAYS])) as db:
        before = db.features(DecisionTime("isd_morning", at(ISD, 7)))
        after = db.features(DecisionTime("isd_morning", at(later, 7)))
        assert row_of(before, "I-1")["outcome_date"] == ISD
        assert row_of(after, "I-1")["outcome_date"] == later
        assert db.labels(ISD, before).num_rows == 0
        assert db.labels(later, after)["label"].to_pylist() == [1]


def test_the_track_record_counts_an_amended_instruction_once_and_a_cancelled_one_not_at_all(reference_data):
    """Guards: a version more was an instruction more, and a cancelled one a fail, for sixty days."""
    desk = Desk(reference_data)
    status = [
        (SettlementStatus(event_id=f"S-{n}", event_time=at(*when), instruction_id="I-1", status=code, reason=None),
         at(*when))
        for n, (code, when) in enumerate([("PENF", (ISD, 11)), ("CANC", (ISD, 13))])
    ]  # fmt: skip
    known = [(desk.instruction, desk.instruction.event_time), amended(desk, at(DAYS[1], 9), amount=1.0)]

    def counted(*statuses: Known) -> dict[date, tuple[int, int]]:
        rows = curated_in_runs(known, [DAYS])
        found: dict[date, list[int]] = defaultdict(lambda: [0, 0])
        told = {"settlement_status": landed_rows(USE_CASE.event("settlement_status"), statuses)} if statuses else {}
        with history(desk, rows, **told) as db:
            db.make_daily(DAYS)
            for row in db.daily_parts(DAYS).tables["outcomes"].to_pylist():
                found[row["known_date"]][0] += row["instructions"]
                found[row["known_date"]][1] += row["fails"]
        assert day_end(DAYS[-1]) > at(ISD, 13)
        return {day: (instructions, fails) for day, (instructions, fails) in found.items()}

    def total(found: dict[date, tuple[int, int]]) -> tuple[int, int]:
        return sum(one for one, _ in found.values()), sum(two for _, two in found.values())

    assert total(counted()) == (1, 0)
    assert total(counted(status[0])) == (1, 1)
    assert total(counted(*status)) == (0, 0)
