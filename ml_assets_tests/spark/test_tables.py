"""Spark, with Delta's own connector, reads every table of the lake as it is: nothing is exported or declared for it."""

import inspect
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from ml_assets.lake import Lake, names, predictions_table, shadow_table, tables_of
from ml_assets.lake.maintenance import maintain
from ml_assets.lifecycle.features import compute_features
from ml_assets.lifecycle.scoring import write_predictions
from ml_assets.local.simulation.market import MarketConfig
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests import late_payments
from ml_assets_tests.lifecycle.test_backfill import fill

pytestmark = pytest.mark.spark

MARKET = MarketConfig(days=6, instructions_per_day=20, counterparties=6, securities=20)
# What a later contract may add.
GROWN = pa.schema(
    [
        pa.field("rate", pa.decimal128(18, 4)),
        pa.field("agreed_at", pa.timestamp("us", tz="UTC")),
        pa.field("urgent", pa.bool_()),
        pa.field("remark", pa.string()),
    ]
)
VALUES = [Decimal("-12345678901234.5678"), datetime(2026, 3, 29, 1, 59, 59, 999_999, UTC), True, "né à Zürich\n"]


@pytest.fixture(scope="module")
def lakes(bank, market, events, market_references, tmp_path_factory) -> dict[str, Lake]:
    """The lakes in which, together, there is every kind of table, with the rows that the lifecycle has written."""
    topic, day = bank.usecase.events[0].topic, bank.days[-1]
    at = datetime.combine(day, time(10), UTC)
    bank.land([late_payments.message(topic, at, event_id="bare", invoice_id="bare", payer="P1", amount=1.0)])
    bank.runs.run("ingest", [day])
    bank.runs.run("monitor", bank.days[-2:])
    grown = Lake(shutil.copytree(bank.lake.root, tmp_path_factory.mktemp("bank") / "lake").as_posix())
    # As `score_shadow` writes them, of another model.
    scored = grown.read(predictions_table(bank.usecase))
    write_predictions(grown, shadow_table(bank.usecase), scored, bank.days[-2:])
    daily = fill(Lake(str(tmp_path_factory.mktemp("daily"))), events, market_references)
    for day in market.world.calendar[3:6]:
        compute_features(daily, USE_CASE, [day], threads=1)
    return {"bank": grown, "daily": daily}


def there(lake: Lake) -> list[str]:
    """The tables of a lake."""
    root = Path(lake.root)
    return sorted(str(log.parent.relative_to(root)) for log in root.rglob("_delta_log"))


def kinds(tables: list[str]) -> set[str]:
    """The kinds of tables, as the first part of their names has it; quarantine has two."""
    return {name.partition("/")[0] + ("/reference" if "/reference/" in name else "") for name in tables}


def comparable(rows: pa.Table) -> Iterator[tuple[object, ...]]:
    """Yield the rows as values that can be sorted: doubles by their bits, times in UTC, what is missing first."""
    for row in zip(*(rows[name].to_pylist() for name in sorted(rows.column_names)), strict=True):
        yield tuple(
            (value is not None, value.hex() if isinstance(value, float) else str(value), type(value).__name__)
            for value in row
        )


def read_by_spark(spark, lake: Lake, table: str) -> pa.Table:
    return spark.read.format("delta").load(lake.uri(table)).toArrow()


def same(spark, lake: Lake, table: str) -> int:
    """Compare all rows and the types of all columns; return the number of rows."""
    ours, theirs = lake.read(table), read_by_spark(spark, lake, table)
    kind = {field.name: str(field.type).replace("large_", "") for field in ours.schema}
    assert {field.name: str(field.type).replace("large_", "") for field in theirs.schema} == kind, table
    assert sorted(comparable(theirs)) == sorted(comparable(ours)), table
    return ours.num_rows


def grow(lake: Lake, table: str) -> None:
    """Write a row with more columns than the table has, as a later contract would."""
    row = lake.read(table).slice(0, 1)
    for field, value in zip(GROWN, VALUES, strict=True):
        row = row.append_column(field, pa.array([value] * row.num_rows, field.type))
    write_deltalake(lake.table(table), row, mode="append", schema_mode="merge")


def test_every_kind_of_table_is_looked_at(lakes):
    """Guards a new kind of table that this module would not look at."""
    found = kinds([name for lake in lakes.values() for name in there(lake)])
    wanted = kinds(tables_of([USE_CASE]))
    assert found >= wanted, f"no test lake has {wanted - found}"
    assert len(found) >= len(
        [1 for name, _ in inspect.getmembers(names, inspect.isfunction) if name.endswith("_table")]
    )


def test_spark_reads_what_is_there_then_compacted_then_grown(spark, lakes):
    rows, filled = 0, list[str]()
    for lake in lakes.values():
        tables = there(lake)
        rows += sum(same(spark, lake, table) for table in tables)
        assert any(len(lake.table(table).file_uris()) > 1 for table in tables)
        maintain(lake, tables, keep_hours=0)
        for table in tables:
            same(spark, lake, table)
        for table in tables:
            grow(lake, table)
        for table in tables:
            same(spark, lake, table)
            newest = read_by_spark(spark, lake, table).filter(pc.field("urgent")).select(GROWN.names).to_pylist()
            assert [list(row.values()) for row in newest] == [VALUES] * bool(lake.read(table).num_rows), table
            filled += [table] * bool(newest)
    assert rows > 2000
    assert kinds(filled) >= kinds(tables_of([USE_CASE])) - {"quarantine/reference"}, "the others have no row"
