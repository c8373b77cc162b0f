"""DuckDB within a limit: what exceeds it goes to a folder of our choice, and the rows are the same."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from duckdb._sources.pyarrow import PyArrowDatasetSource, PyArrowScannerSource

import ml_assets
from ml_assets import duck
from ml_assets.contracts import TIMESTAMP
from ml_assets.duck import Room, in_words, open_duckdb, query_duckdb, use_duckdb
from ml_assets.errors import InputError
from ml_assets.features import AsOfDatabase
from ml_assets.lake import Lake
from ml_assets.memory import MIB
from ml_assets.settings import Settings
from ml_assets_tests import late_payments

DECIDED = late_payments.CALENDAR.add(late_payments.FIRST, 4)


@pytest.fixture(autouse=True)
def room_of_before() -> Iterator[None]:
    before = duck._room
    yield
    duck._room = before


class Watched:
    """The largest size of the files in a folder while a block runs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._over, self.bytes = folder, threading.Event(), 0

    def __enter__(self) -> "Watched":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            sizes = []
            for file in self._folder.glob("*"):
                try:
                    sizes.append(file.stat().st_size)
                except FileNotFoundError:
                    continue
            self.bytes = max(self.bytes, sum(sizes))
            time.sleep(0.01)


@pytest.fixture(scope="module")
def history() -> dict[str, pa.Table]:
    """The events of 200,000 invoices, many times what the small room below holds."""
    first = late_payments.FIRST
    with open_duckdb() as db:
        invoices = db.sql(
            f"SELECT hash(i)::VARCHAR || '-' || i AS event_id, TIMESTAMPTZ '{first} 09:00' + to_days((i % 5)::INT) AS "
            f"event_time, hash(-i)::VARCHAR AS invoice_id, 'P' || i % 12 AS payer, (i % 997)::DOUBLE AS amount, "
            f"DATE '{first}' + (i % 5)::INT + 2 AS due_date FROM range(200_000) AS t(i)"
        ).to_arrow_table()
        payments = db.sql(
            "SELECT 'paid ' || event_id AS event_id, event_time + INTERVAL 1 DAY AS event_time, invoice_id, payer "
            "FROM invoices WHERE hash(invoice_id) % 7 <> 0"
        ).to_arrow_table()
    known = {}
    for name, rows in (("invoices", invoices), ("payments", payments)):
        at = rows["event_time"].cast(TIMESTAMP)
        rows = rows.set_column(1, "event_time", at).append_column("known_at", at)
        known[name] = rows.append_column("business_date", at.cast(pa.date32()))
    return known


def test_a_history_larger_than_the_limit_spills_and_gives_the_same_features(tmp_path, history):
    """Guards a run whose pod is killed, or evicted for what it wrote to its working folder."""
    usecase = late_payments.usecase_of(late_payments.make_package(tmp_path))
    decisions = usecase.decision_times(DECIDED)

    def features() -> pa.Table:
        with AsOfDatabase(usecase, history, {}, threads=2) as db:
            return db.features_at(decisions)

    usual = features()
    use_duckdb(Room(memory=40 * MIB, spill=tmp_path / "deep" / "spill"))
    with Watched(tmp_path / "deep" / "spill") as spilled:
        limited = features()
    assert limited.equals(usual)
    assert usual.num_rows == 40_000
    assert spilled.bytes > 4 * MIB
    assert not list((tmp_path / "deep" / "spill").glob("*")), "left behind"


@pytest.mark.parametrize("scanned", [False, True])
def test_what_the_lake_holds_is_read_as_a_stream(tmp_path, history, monkeypatch, scanned):
    """Guards a process that hangs for ever: pyarrow's `to_reader` holds the GIL that the lake's own files wait for."""

    def held(*_: object) -> None:
        raise AssertionError("DuckDB asks pyarrow for a reader of a dataset")

    for source in (PyArrowDatasetSource, PyArrowScannerSource):
        monkeypatch.setattr(source, "stream", held)
    usecase = late_payments.usecase_of(late_payments.make_package(tmp_path))
    decisions = usecase.decision_times(DECIDED)
    lake = Lake(str(tmp_path / "lake"))
    for name, rows in history.items():
        lake.replace(name, rows, "business_date", rows["business_date"].unique().to_pylist())
    datasets = {name: lake.dataset(name) for name in history}
    read = {name: found.scanner() if scanned else found for name, found in datasets.items()}
    with AsOfDatabase(usecase, read, {}) as of_lake, AsOfDatabase(usecase, history, {}) as of_rows:
        assert of_lake.features_at(decisions).equals(of_rows.features_at(decisions))


def test_a_history_that_finds_no_room_says_which_settings_give_more(tmp_path, history):
    usecase = late_payments.usecase_of(late_payments.make_package(tmp_path))
    use_duckdb(Room(memory=16 * MIB, spill=tmp_path / "spill", spill_bytes=MIB))
    says = r"the history of invoices .* ML_ASSETS_MEMORY_MIB, and ML_ASSETS_SPILL_MIB .* ML_ASSETS_SPILL_ROOT"
    with pytest.raises(InputError, match=says):
        AsOfDatabase(usecase, history, {}, threads=1)


def test_other_errors_are_told_as_they_are():
    with open_duckdb(1) as db, pytest.raises(duckdb.Error) as caught:
        db.execute("SELECT nothing")
    assert in_words(caught.value) == str(caught.value)


def test_two_fifths_of_what_the_settings_allow(tmp_path):
    use_duckdb(Room.of(Settings(home=tmp_path, memory_mib=1000, spill_mib=3)))
    with open_duckdb(1) as db:
        asked = "memory_limit", "temp_directory", "max_temp_directory_size", "TimeZone", "threads"
        found = [db.execute(f"SELECT current_setting('{name}')").fetchall()[0][0] for name in asked]
    assert found == ["400.0 MiB", str(tmp_path / "spill"), "3.0 MiB", "UTC", 1]


def test_nobody_else_opens_duckdb():
    """Guards a database without a limit, which is found when a pod dies."""
    folder = Path(ml_assets.__file__).parent
    opens = [str(at.relative_to(folder)) for at in folder.rglob("*.py") if "duckdb.connect(" in at.read_text("utf-8")]
    assert opens == ["duck.py"]


def test_queries_at_once_do_not_see_each_other_and_leave_nothing_behind(tmp_path: Path) -> None:
    """Guards a database that stays open: two threads register rows under one name, as all do."""
    seen: list[int] = []

    def ask(number: int) -> None:
        for _ in range(30):
            with query_duckdb() as db:
                db.register("rows", pa.table({"a": [number]}))
                db.execute("CREATE TEMP TABLE kept AS SELECT a + 1 AS b FROM rows")
                seen.extend(db.sql("SELECT b - a - 1 + a FROM rows, kept").to_arrow_table().column(0).to_pylist())

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted([*range(4)] * 30)
    with query_duckdb() as db:
        assert db.sql("SHOW ALL TABLES").fetchall() == []
        assert db.sql("SELECT current_setting('timezone')").fetchall() == [("UTC",)]
    use_duckdb(Room(100 * MIB, tmp_path))
    with query_duckdb() as db:
        assert db.sql("SELECT current_setting('memory_limit')").fetchall() == [("100.0 MiB",)]
