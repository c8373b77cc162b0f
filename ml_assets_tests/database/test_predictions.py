"""Writing predictions is idempotent and counts what it did."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from sqlalchemy import text

from ml_assets.database.connect import begin, connect
from ml_assets.database.predictions import (
    _DELETE_UNDECIDED,
    _UPSERT,
    UpsertCount,
    _stage,
    retire_predictions,
    upsert_predictions,
)
from ml_assets.database.schema import KEY, PREDICTIONS_SCHEMA, PROVENANCE_COLUMNS, VALUE_COLUMNS
from ml_assets_tests.database.factories import DECISION_TIME, prediction, predictions, scored
from ml_assets_tests.database.plans import nodes


def stored(url: str) -> list[tuple[object, ...]]:
    """Every row with its place on disk and the transaction that wrote it: a rewritten row differs."""
    with begin(url) as connection:
        rows = connection.execute(text("SELECT *, ctid::text, xmin::text FROM predictions ORDER BY entity_id"))
        return [tuple(row) for row in rows]


def test_the_columns_are_keys_values_and_provenance() -> None:
    assert KEY == ("use_case", "decision_time", "mlflow_run_id", "entity_id")
    assert PROVENANCE_COLUMNS == ("data_versions", "git_commit", "dagster_run_id", "scored_at")
    assert {*KEY, *VALUE_COLUMNS, *PROVENANCE_COLUMNS} == set(PREDICTIONS_SCHEMA.names)


def test_writing_equal_values_again_touches_no_row(application_url: str) -> None:
    """Guards 'materializing any partition twice changes no row of PostgreSQL', whatever the new run is called."""
    first = predictions(prediction("A", 0.1 + 0.2), prediction("B", 1e-17, attributes=None))
    assert upsert_predictions(application_url, first) == UpsertCount(2, 0, 0)
    before = stored(application_url)
    later = {"dagster_run_id": "second", "git_commit": "beef", "scored_at": datetime(2026, 2, 1, tzinfo=UTC)}
    again = predictions(prediction("A", 0.1 + 0.2, **later), prediction("B", 1e-17, attributes=None, **later))
    assert upsert_predictions(application_url, again, scored=[scored()]) == UpsertCount(0, 0, 2)
    assert stored(application_url) == before


def test_a_changed_value_brings_its_provenance(application_url: str) -> None:
    upsert_predictions(application_url, predictions(prediction("A"), prediction("B")))
    counts = upsert_predictions(
        application_url,
        predictions(
            prediction("A", dagster_run_id="second"),
            prediction("B", reason_codes='["LACK"]', dagster_run_id="second"),
            prediction("C", dagster_run_id="second"),
        ),
    )
    assert counts == UpsertCount(inserted=1, updated=1, unchanged=1)
    with begin(application_url) as connection:
        runs = connection.execute(text("SELECT dagster_run_id FROM predictions ORDER BY entity_id")).scalars()
        assert list(runs) == ["first", "second", "second"]


@pytest.mark.parametrize("statement", [_DELETE_UNDECIDED, _UPSERT], ids=["delete", "upsert"])
def test_no_plan_goes_through_all_staged_rows_for_each_row_before(application_url: str, statement) -> None:
    """Guards the second scoring of a month on PostgreSQL 15, whose planner expects one row of the month at most."""
    rows = predictions(*(prediction(f"E{number}") for number in range(2_000)))
    upsert_predictions(application_url, rows)
    with begin(application_url) as connection:
        _stage(connection, rows, [scored()])
        for joins_by in ("enable_hashjoin", "enable_mergejoin"):
            connection.execute(text(f"SET LOCAL {joins_by} = off"))
        ((plan,),) = connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement.text}")).all()
    found = list(nodes(plan[0]["Plan"]))
    repeated = [node["Plans"][1] for node in found if node["Node Type"] == "Nested Loop"]
    assert any(node.get("Relation Name") == "staged" for node in found)
    assert repeated
    for part in repeated:
        scans = [node for node in nodes(part) if node.get("Relation Name") == "staged"]
        assert [node["Node Type"] for node in scans if "Index" not in node["Node Type"]] == []


def test_every_value_comes_back_as_it_was_given(application_url: str) -> None:
    """Guards the way through CSV: quotes, newlines, empty and missing texts, the last bit of a double."""
    row = prediction('a,"b"\n\\N', 0.1 + 0.2, slot="", attributes='{"text": "\\"\\n\\\\N,"}', reason_codes=None)
    upsert_predictions(application_url, predictions(row))
    with begin(application_url) as connection:
        found = connection.execute(text("SELECT * FROM predictions")).mappings().one()
    assert found["attributes"] == {"text": '"\n\\N,'}
    assert found["data_versions"] == {"features/fails": 3}
    plain = [name for name in row if name not in {"attributes", "data_versions"}]
    assert {name: found[name] for name in plain} == {name: row[name] for name in plain}


def test_complete_deletes_what_is_no_longer_decided(application_url: str) -> None:
    """Guards against an instruction that stays on the list though late data has withdrawn it."""
    upsert_predictions(application_url, predictions(prediction("A"), prediction("B")))
    other_time = prediction("B", decision_time=datetime(2026, 1, 5, 15, tzinfo=UTC))
    upsert_predictions(application_url, predictions(other_time, prediction("B", use_case="other")))
    assert upsert_predictions(application_url, predictions(prediction("A"))).deleted == 0
    assert upsert_predictions(application_url, predictions(prediction("A")), scored=[scored()]).deleted == 1
    with begin(application_url) as connection:
        left = connection.execute(text("SELECT use_case, entity_id, decision_time FROM predictions")).all()
    assert {tuple(row) for row in left} == {
        ("fails", "A", DECISION_TIME),
        ("fails", "B", other_time["decision_time"]),
        ("other", "B", DECISION_TIME),
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (predictions(prediction("A"), prediction("A")), "more than once"),
        (predictions(prediction("A"), prediction("B", model_version=2)), "two models"),
        (predictions(prediction("A")).drop_columns(["rank"]), "lack the columns rank"),
        (pa.Table.from_pylist([prediction("A", slot=None)]), "1 nulls in slot"),
    ],
)
def test_rows_that_cannot_be_written_are_refused_with_the_reason(rows: pa.Table, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upsert_predictions("postgresql+psycopg://nowhere", rows)


def test_an_error_leaves_the_table_as_it_was(application_url: str) -> None:
    upsert_predictions(application_url, predictions(prediction("A")))
    before = stored(application_url)
    with pytest.raises(Exception, match="COPY staged, line 2, column attributes"):
        upsert_predictions(application_url, predictions(prediction("A", 0.9), prediction("B", attributes="{broken")))
    assert stored(application_url) == before


def test_an_engine_serves_many_writes_and_other_drivers_are_refused(application_url: str) -> None:
    engine = connect(application_url)
    assert upsert_predictions(engine, predictions(prediction("A"))).inserted == 1
    assert upsert_predictions(engine, predictions(prediction("A"))).unchanged == 1
    assert upsert_predictions(engine, predictions()) == UpsertCount(0, 0, 0)
    engine.dispose()
    with pytest.raises(ValueError, match="psycopg 3"):
        upsert_predictions(application_url.replace("+psycopg:", "+psycopg2:"), predictions(prediction("A")))


def times(url: str, table: str) -> list[datetime]:
    with begin(url) as connection:
        return list(connection.execute(text(f"SELECT decision_time FROM {table} ORDER BY 1")).scalars())


@pytest.mark.parametrize(("months", "kept"), [(1, 1), (2, 3), (24, 4)])
def test_what_is_past_its_retention_goes_by_whole_months(application_url: str, months: int, kept: int) -> None:
    """Months are those of UTC, whatever the session's time zone; a month is kept or dropped as a whole."""
    moments = [
        datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 2, 1, tzinfo=UTC),
    ]
    with begin(application_url) as connection:
        connection.execute(text("ALTER DATABASE " + connection.engine.url.database + " SET timezone = 'Asia/Tokyo'"))
    upsert_predictions(application_url, predictions(*(prediction("A", decision_time=moment) for moment in moments)))
    now = datetime(2026, 3, 15, tzinfo=UTC)
    dropped = retire_predictions(application_url, months=months, now=now)
    assert times(application_url, "predictions") == moments[-kept:]
    assert times(application_url, "scorings") == moments[-kept:]
    assert dropped == ["predictions_2025_12", "predictions_2026_01"][: {1: 2, 3: 1, 4: 0}[kept]]
    assert retire_predictions(application_url, months=months, now=now) == []


def test_writers_that_begin_a_month_at_once_both_write(application_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        rows = [predictions(prediction(entity)) for entity in "ABCD"]
        counts = list(pool.map(lambda each: upsert_predictions(application_url, each), rows))
    assert sum(count.inserted for count in counts) == 4


def test_a_scoring_adds_up_what_it_decided_and_follows_each_change(application_url: str) -> None:
    """Guards rules that would have to read millions of predictions, or would read what was decided before."""

    def added_up() -> list[tuple[object, ...]]:
        with begin(application_url) as connection:
            query = text("SELECT slot, decisions, round(mean_probability::numeric, 6)::text, xmin::text FROM scorings")
            return [tuple(row) for row in connection.execute(query)]

    rows = [prediction("A", 0.2), prediction("B", 0.3), prediction("C", 0.1)]
    upsert_predictions(application_url, predictions(*rows), scored=[scored()])
    ((slot, number, mean, first),) = added_up()
    assert (slot, number, mean) == (rows[0]["slot"], 3, "0.200000")
    upsert_predictions(application_url, predictions(*reversed(rows)), scored=[scored()])
    assert added_up()[0][3] == first, "the same again writes nothing"
    upsert_predictions(application_url, predictions(rows[0], prediction("B", 0.5)), scored=[scored()])
    assert added_up()[0][:3] == (slot, 2, "0.350000")
    upsert_predictions(application_url, predictions(), scored=[scored()])
    assert added_up()[0][:3] == (None, 0, None)
