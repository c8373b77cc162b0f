"""Daily tables: a day's features from kept parts are those of all history, and only what has changed is made again."""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings

from ml_assets.contracts import TIMESTAMP, roll_to_weekday
from ml_assets.features import AsOfDatabase, features_schema
from ml_assets.lake import Lake, curated_table, daily_table, features_table, reference_table, source_tables
from ml_assets.lifecycle.daily import PartInputs, PartOrigin
from ml_assets.lifecycle.features import compute_features
from ml_assets.local.simulation.market import MarketConfig
from ml_assets.spec import UseCase
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.usecases.settlement import curated
from ml_assets_tests.usecases.test_point_in_time import DAYS as RANDOM_DAYS
from ml_assets_tests.usecases.test_point_in_time import EVENINGS, FIRST, TRADES, landed

pytestmark = pytest.mark.long

DAYS = 18
MARKET = MarketConfig(days=DAYS, instructions_per_day=25, counterparties=6, securities=20)
# What daily/outcomes.sql and features/track_record.sql say together, as one query over all that was known.
WHOLE = """
WITH reported AS (
    SELECT
        i.counterparty_lei,
        securities.asset_class,
        i.intended_settlement_date,
        (failed.instruction_id IS NOT NULL)::INT AS failed
    FROM settlement_instructions AS i
    LEFT JOIN securities USING (isin)
    LEFT JOIN (SELECT DISTINCT instruction_id FROM settlement_status WHERE status = 'PENF') AS failed
        USING (instruction_id)
    WHERE i.intended_settlement_date < getvariable('decision_date')
        OR (i.intended_settlement_date = getvariable('decision_date') AND getvariable('slot') = 'end_of_trade_date')
),
dated AS (
    SELECT *, sum(failed) OVER one_date AS date_fails, count(*) OVER one_date AS date_instructions
    FROM reported WHERE intended_settlement_date < getvariable('decision_date')
    WINDOW one_date AS (PARTITION BY intended_settlement_date)
),
usual AS (
    SELECT median(rate) AS rate
    FROM (SELECT DISTINCT intended_settlement_date, date_fails / date_instructions AS rate FROM dated)
),
outcomes AS (
    SELECT
        dated.*,
        CASE
            WHEN abs(date_fails - date_instructions * usual.rate) <= 3 * sqrt(date_instructions * usual.rate) THEN 1
            ELSE (10 + date_fails) / (10 + date_instructions * usual.rate)
        END AS counts_as
    FROM dated CROSS JOIN usual
),
classes AS (
    SELECT asset_class, (sum(failed) + 1) / (sum(counts_as) + 20) AS rate FROM outcomes GROUP BY asset_class
),
counterparties_compared AS (
    SELECT counterparty_lei, ln((sum(failed) + 3) / (sum(classes.rate * counts_as) + 3)) AS relative_rate
    FROM outcomes JOIN classes USING (asset_class)
    GROUP BY counterparty_lei
),
newest AS (
    SELECT sum(failed) AS fails, sum(classes.rate * exp(c.relative_rate)) AS expected
    FROM reported JOIN classes USING (asset_class) JOIN counterparties_compared AS c USING (counterparty_lei)
    WHERE intended_settlement_date = (SELECT max(intended_settlement_date) FROM reported WHERE failed = 1)
)
SELECT
    entity_id,
    c.relative_rate AS counterparty_relative_rate,
    ln(classes.rate / (1 - classes.rate)) + coalesce(c.relative_rate, 0) + coalesce(
        CASE
            WHEN fails > expected + 2 * sqrt(expected) THEN ln((100 + fails - 2 * sqrt(expected)) / (100 + expected))
            WHEN fails < expected - 2 * sqrt(expected) THEN ln((100 + fails + 2 * sqrt(expected)) / (100 + expected))
        END,
        0
    ) AS prior_log_odds
FROM decisions
LEFT JOIN counterparties_compared AS c USING (counterparty_lei)
LEFT JOIN classes USING (asset_class)
CROSS JOIN newest
"""


def without_daily() -> UseCase:
    """The same use case, whose track record is made of the whole history at each decision."""
    long = {"settlement_instructions", "settlement_status"}
    events = tuple(
        dataclasses.replace(event, history=timedelta(days=60)) if event.name in long else event
        for event in USE_CASE.events
    )
    whole = dataclasses.replace(USE_CASE, events=events, daily=())
    whole.__dict__["feature_sql"] = {**USE_CASE.feature_sql, "track_record": WHOLE}
    return whole


@pytest.fixture(scope="module")
def days(market) -> list[date]:
    return list(market.world.calendar[:DAYS])


def write(lake: Lake, events: dict[str, pa.Table], dates=None) -> None:
    """Make the partitions of curated tables; of all dates if none are given."""
    for name, rows in events.items():
        held = dates or rows["business_date"].unique().to_pylist()
        mine = rows.filter(pc.is_in(rows["business_date"], pa.array(held, pa.date32())))
        lake.replace(curated_table(USE_CASE, USE_CASE.event(name)), mine, "business_date", held)


def lake_of(folder, events, reference_data) -> Lake:
    lake = Lake(str(folder))
    write(lake, events)
    for reference in USE_CASE.references:
        lake.overwrite(reference_table(USE_CASE, reference), reference_data[reference.name])
    return lake


def known_by(events: dict[str, pa.Table], moment: datetime) -> dict[str, pa.Table]:
    return {
        name: rows.filter(pc.less_equal(rows["known_at"], pa.scalar(moment, TIMESTAMP)))
        for name, rows in events.items()
    }


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two feature tables have the same decisions, and values that agree to 1e-9."""
    order = [("decision_time", "ascending"), ("entity_id", "ascending")]
    one, other = one.sort_by(order), other.select(one.column_names).sort_by(order)
    for field in one.schema:
        a, b = one[field.name], other[field.name]
        if pa.types.is_floating(field.type):
            if len(a) != len(b) or not np.allclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True):
                return False
        elif not a.equals(b):
            return False
    return True


def at_once(usecase: UseCase, events, reference_data, days) -> pa.Table:
    """Features made of nothing but events: no part is kept."""
    with AsOfDatabase(usecase, events, reference_data, threads=2) as db:
        return db.features_at([decision for day in days for decision in usecase.decision_times(day)])


def test_day_by_day_is_as_all_at_once_and_as_one_query_over_all_history(
    tmp_path, market, events, market_references, days
):
    """Each day sees what had landed by then: late and corrected events come when they are known."""
    lake = lake_of(tmp_path, known_by(events, datetime.combine(days[11], datetime.min.time(), UTC)), market_references)
    made = []
    for day in days[12:]:
        write(lake, known_by(events, datetime.combine(day, datetime.max.time(), UTC)))
        made.append(compute_features(lake, USE_CASE, [day], threads=1).daily_made)
    stored = lake.read(features_table(USE_CASE))
    assert [len(those) for those in made[1:]] == [1] * (len(made) - 1), "yesterday's part, and no other"
    expected = at_once(USE_CASE, events, market_references, days[12:])
    assert stored.num_rows == expected.num_rows > 300
    assert same(stored, expected)
    assert same(expected, at_once(without_daily(), events, market_references, days[12:]))
    rates = stored["counterparty_relative_rate"].to_numpy(zero_copy_only=False)
    assert len(set(rates.round(9))) > 20, "the track record moves"


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trades=TRADES, evenings=EVENINGS)
def test_random_histories_give_the_same_either_way(tmp_path_factory, reference_data, trades, evenings):
    """Late, corrected, cancelled and rebooked: kept parts, no kept parts, and one query over all history agree."""
    history = landed(reference_data, trades, evenings)
    events = {spec.name: curated(spec, history[spec.name]) for spec in USE_CASE.events if history[spec.name]}
    days = [USE_CASE.calendar.add(FIRST, ahead) for ahead in (2, 3, RANDOM_DAYS - 1)]
    lake = lake_of(tmp_path_factory.mktemp("random"), events, reference_data)
    for day in days:
        compute_features(lake, USE_CASE, [day], threads=1)
    stored = lake.read(features_table(USE_CASE))
    assert same(stored, at_once(USE_CASE, events, reference_data, days))
    assert same(stored, at_once(without_daily(), events, reference_data, days))


def failing(events: dict[str, pa.Table], day: date, known_at: datetime) -> dict[str, pa.Table]:
    """The events, and a fail of an instruction of that business date that became known at that time."""
    instructions, status = events["settlement_instructions"], events["settlement_status"]
    mine = instructions.filter(pc.equal(instructions["business_date"], pa.scalar(day)))
    quiet = set(mine["instruction_id"].to_pylist()) - set(
        status.filter(pc.equal(status["status"], "PENF"))["instruction_id"].to_pylist()
    )
    row = status.slice(0, 1).to_pylist()[0] | {
        "event_id": f"late-{day}-{known_at}",
        "event_time": datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=15),
        "instruction_id": min(quiet),
        "status": "PENF",
        "known_at": known_at,
        "business_date": roll_to_weekday(day),
    }
    return {**events, "settlement_status": pa.concat_tables([status, pa.Table.from_pylist([row], status.schema)])}


def test_a_late_event_makes_the_parts_anew_that_could_see_it(tmp_path, events, market_references, days):
    lake = lake_of(tmp_path, events, market_references)
    today = days[-1]
    assert compute_features(lake, USE_CASE, [today], threads=1).daily_made[-1] == days[-2]
    assert compute_features(lake, USE_CASE, [today], threads=1).daily_made == ()

    # Known this morning, of a trade of two weeks ago: no day that is over knew it.
    now = datetime.combine(today, datetime.min.time(), UTC) + timedelta(hours=6)
    late = failing(events, days[-12], now)
    write(lake, late, [days[-12]])
    assert compute_features(lake, USE_CASE, [today], threads=1).daily_made == ()
    stored = lake.read(features_table(USE_CASE))
    assert same(stored, at_once(USE_CASE, late, market_references, [today]))
    assert not same(stored, at_once(USE_CASE, events, market_references, [today])), "the fail counts"

    # Landed now, known ten days ago, as after an outage of a lander that replays: those days are made anew.
    then = datetime.combine(days[-10], datetime.min.time(), UTC) + timedelta(hours=6)
    replayed = failing(late, days[-12], then)
    write(lake, replayed, [days[-12]])
    assert compute_features(lake, USE_CASE, [today], threads=1).daily_made == tuple(
        day for day in weekdays_of(days[-10], today) if day <= days[-12] + timedelta(days=20)
    )
    assert same(lake.read(features_table(USE_CASE)), at_once(USE_CASE, replayed, market_references, [today]))


def weekdays_of(first: date, end: date) -> list[date]:
    ahead = [first + timedelta(days=n) for n in range((end - first).days)]
    return [day for day in ahead if day.weekday() < 5]


def test_other_files_of_the_same_rows_change_nothing(tmp_path, events, market_references, days):
    """Guards against making months anew after a compaction, or after a partition has been made again."""
    lake = lake_of(tmp_path, events, market_references)
    compute_features(lake, USE_CASE, [days[-1]], threads=1)
    kept = lake.read(daily_table(USE_CASE, "outcomes"))
    write(lake, events)
    assert compute_features(lake, USE_CASE, [days[-1]], threads=1).daily_made == ()
    again = lake.read(daily_table(USE_CASE, "outcomes"))
    rows = [[(c, "ascending") for c in kept.column_names if c != "origin"]] * 2
    bare = [t.filter(pc.is_null(t["origin"])).sort_by(by) for t, by in zip((kept, again), rows, strict=True)]
    assert bare[0].equals(bare[1])
    assert not kept["origin"].equals(again["origin"]), "the new files are written down, and not read again"


def test_another_definition_makes_all_parts_anew(tmp_path, events, market_references, days):
    lake = lake_of(tmp_path, events, market_references)
    first = compute_features(lake, USE_CASE, [days[-1]], threads=1).daily_made
    changed = dataclasses.replace(USE_CASE)
    changed.__dict__["daily_sql"] = {"outcomes": USE_CASE.daily_sql["outcomes"] + "-- changed"}
    assert compute_features(lake, changed, [days[-1]], threads=1).daily_made == first
    assert changed.feature_set_hash != USE_CASE.feature_set_hash
    assert features_schema(changed.features) == features_schema(USE_CASE.features)


def make_dates(root: str, dates: list[date]) -> None:
    compute_features(Lake(root), USE_CASE, dates, threads=1)


def parts_of(lake: Lake) -> tuple[list[str], dict[date, object]]:
    """The rows of the kept parts, and what each was made of, by the day."""
    rows = lake.read(daily_table(USE_CASE, "outcomes"))
    heads = rows.filter(pc.is_valid(rows["origin"])).to_pylist()
    origins = {head["known_date"]: msgspec.json.decode(head["origin"], type=PartOrigin) for head in heads}
    assert len(origins) == len(heads), "each part is kept once"
    known = {day: {key: one.known for key, one in of.inputs.items()} for day, of in origins.items()}
    return sorted(map(repr, rows.filter(pc.is_null(rows["origin"])).to_pylist())), known


def test_two_processes_that_share_the_dates_make_what_one_makes(tmp_path, events, market_references, days):
    """Guards a backfill side by side: kept parts are the same, whoever makes one first, and so are the features.

    Parts are kept in another order, by which the SQL's sums of floats may differ in their last bit.
    """
    one, two = (lake_of(tmp_path / name, events, market_references) for name in ("one", "two"))
    make_dates(one.root, days[2:])
    chunks = [days[at : at + 4] for at in range(2, DAYS, 4)]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(make_dates, [two.root] * len(chunks), chunks))
    made = [lake.read(features_table(USE_CASE)) for lake in (one, two)]
    assert made[0].num_rows == made[1].num_rows > 300
    assert same(*made)
    assert parts_of(one) == parts_of(two)
    assert parts_of(one)[0]


def test_a_part_is_noted_as_made_of_what_it_was_made_of(tmp_path, market, events, market_references, days):
    """Guards a part of old rows that was kept as one of the new rows that an ingestion beside it had just written."""
    lake = lake_of(tmp_path, events, market_references)
    versions = lake.versions(source_tables(USE_CASE))
    before = PartInputs(lake, USE_CASE, versions).origin("outcomes", days[9])
    write(lake, failing(events, days[8], datetime.combine(days[8], datetime.max.time(), UTC)), [days[8]])
    assert PartInputs(lake, USE_CASE, versions).origin("outcomes", days[9]) == before
    assert PartInputs(lake, USE_CASE).origin("outcomes", days[9]) != before
