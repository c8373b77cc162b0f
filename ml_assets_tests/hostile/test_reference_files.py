"""What somebody may drop as a reference file: it is quarantined with its name and the reason, and the others go on."""

import csv
import gzip
import io
import os
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.defs.checks.ingestion import judge_reference
from ml_assets.features import AsOfDatabase
from ml_assets.lake import reference_quarantine_table, reference_table
from ml_assets.landing.reference import read_reference, reference_files
from ml_assets.lifecycle.ingestion import load_reference, new_reference
from ml_assets.spec import DecisionTime, ReferenceSpec
from ml_assets.usecases.settlement_fails.contracts import SettlementInstruction
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.usecases.settlement import curated_by_hand

pytestmark = pytest.mark.hostile

RATES = next(spec for spec in USE_CASE.references if spec.name == "penalty_rates")
CUT_OFFS = next(spec for spec in USE_CASE.references if spec.name == "cut_offs")
HEADER = "asset_class,bp_per_day,valid_from,published_at"
GOOD = "share,1.0,2026-01-01,2025-12-31T06:00:00Z"
TEXT = f"{HEADER}\n{GOOD}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of penalty rates, with a good file in it."""
    folder = tmp_path / "files" / USE_CASE.name / RATES.name
    folder.mkdir(parents=True)
    (folder / "a_good.csv").write_text(f"{HEADER}\nbond,0.2,2026-01-01,2025-12-31T06:00:00Z\n", encoding="utf-8")
    return folder


def read(folder: Path, spec: ReferenceSpec = RATES) -> tuple[pa.Table, pa.Table]:
    return read_reference(str(folder.parents[1]), USE_CASE.name, spec)


BROKEN = {
    "utf-16": TEXT.encode("utf-16"),
    "utf-16 without a mark": TEXT.encode("utf-16-le"),
    "utf-32": TEXT.encode("utf-32"),
    "latin-1": TEXT.replace("share", "Anteilsschein für").encode("latin-1"),
    "cr only": TEXT.replace("\n", "\r").encode(),
    "empty": b"",
    "blank": b" \r\n\n",
    "gzip": gzip.compress(TEXT.encode()),
    "xlsx": b"PK\x03\x04" + b"\0" * 100,
    "a field over 128 KiB": f"{HEADER}\n{'s' * 200_000},1.0,2026-01-01,2025-12-31T06:00:00Z\n".encode(),
    "an open quote": f'{HEADER}\n"share,1.0,2026-01-01,2025-12-31T06:00:00Z\n{GOOD}\n'.encode(),
    "header twice": f"asset_class,{HEADER}\nshare,{GOOD}\n".encode(),
    "missing column": b"asset_class,valid_from,published_at\nshare,2026-01-01,2025-12-31T06:00:00Z\n",
    "column without a name": f"{HEADER},\n{GOOD},\n".encode(),
    "semicolons": TEXT.replace(",", ";").encode(),
    "no header": f"{GOOD}\n".encode(),
    "nul": TEXT.replace("share", "sh\0are").encode(),
    "zeros": b"\0" * 4096,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_and_the_others_go_on(folder, kind):
    """Guards: one such file failed the whole reference, and no message named it."""
    (folder / "b_broken.csv").write_bytes(BROKEN[kind])
    rows, bad = read(folder)
    assert rows["asset_class"].to_pylist() == ["bond"]
    (row,) = bad.to_pylist()
    assert row["file"].endswith("b_broken.csv")
    assert row["line"] is None
    assert row["reason"].startswith("the file is left out: ")


def test_a_byte_order_mark_and_crlf_are_taken(folder):
    """Guards: a CSV that Excel saved as 'CSV UTF-8' failed on its first three bytes."""
    (folder / "b.csv").write_bytes(TEXT.replace("\n", "\r\n").encode("utf-8-sig"))
    rows, bad = read(folder)
    assert rows["asset_class"].to_pylist() == ["bond", "share"]
    assert bad.num_rows == 0


def _link_out(path: Path) -> None:
    secret = path.parents[3] / "secret.csv"
    secret.write_text(TEXT)
    path.symlink_to(secret)


WEIRD = {
    "link to nothing": lambda path: path.symlink_to(path.parent / "gone.csv"),
    "link to itself": lambda path: path.symlink_to(path),
    "link out of the folder": _link_out,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to a folder": lambda path: path.symlink_to(path.parent),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", WEIRD)
def test_what_is_no_file_of_the_folder_is_named_and_not_read(folder, kind):
    """Guards: a link could show what only this service may read, and a pipe waits for ever."""
    WEIRD[kind](folder / "b_odd.csv")
    rows, bad = read(folder)
    assert rows["asset_class"].to_pylist() == ["bond"]
    assert [row["file"].rsplit("/", 1)[-1] for row in bad.to_pylist()] == ["b_odd.csv"]
    assert len(reference_files(str(folder.parents[1]), USE_CASE.name, RATES)) == 2


def test_a_link_within_the_folder_is_a_file_of_it(folder):
    (folder / "b.csv").symlink_to(folder / "a_good.csv")
    assert read(folder)[0]["asset_class"].to_pylist() == ["bond", "bond"]


@pytest.mark.parametrize("rate", ["inf", "-inf", "nan", "-5", "1e308", "1e400", "20000", "", "x", "-1e-9"])
def test_a_penalty_rate_that_is_none_is_quarantined_by_line(folder, rate):
    """Guards: rates of inf, -5 and nan reached the work-list as costs, at its top."""
    (folder / "b.csv").write_text(f"{HEADER}\n{GOOD}\nfund,{rate},2026-01-01,2025-12-31T06:00:00Z\n")
    rows, bad = read(folder)
    assert rows["asset_class"].to_pylist() == ["bond", "share"]
    (row,) = bad.to_pylist()
    assert (row["file"].rsplit("/", 1)[-1], row["line"]) == ("b.csv", 3)
    assert "fund" in row["payload"]


@pytest.mark.parametrize("row", [
    "share,1.0,0001-01-01,2025-12-31T06:00:00Z", "share,1.0,9999-12-31,2025-12-31T06:00:00Z",
    "share,1.0,2026-01-01,0001-01-01T00:00:00+14:00", "share,1.0,2026-01-01,9999-12-31T23:59:59-14:00",
    "share,1.0,2026-01-01,2025-12-31T06:00:00Z,and,more", "share,1.0", " share,1.0,2026-01-01,2025-12-31T06:00:00Z",
    f"{'s' * 501},1.0,2026-01-01,2025-12-31T06:00:00Z", '"sh\nare",1.0,2026-01-01,2025-12-31T06:00:00Z',
    "sh\u202eare,1.0,2026-01-01,2025-12-31T06:00:00Z",
])  # fmt: skip
def test_a_row_that_cannot_be_meant_is_quarantined_by_line(folder, row):
    (folder / "b.csv").write_text(f"{HEADER}\n{row}\n{GOOD}\n", encoding="utf-8")
    rows, bad = read(folder)
    assert rows["asset_class"].to_pylist() == ["bond", "share"]
    assert bad["line"].to_pylist() == [3 if "\n" in row else 2]


# Values of a cell as people, exports and spreadsheets write them.
CELLS = st.one_of(
    st.sampled_from(
        [
            "", " ", "noon", "16.00", "17h30", "24:00", "25:61", "9:00", "16:00", "16:00:00", "inf", "-inf", "nan",
            "-5",
            "1e308", "1e400", "-0.0", "1e-400", "0.1", "1,5", "'16:00", "=1+1", "#REF!", "9999-12-31", "0001-01-01",
            "2026-01-01", "2025-12-31T06:00:00Z", "2025-12-31", "1900-01-00", "A" * 4000, "\u202ex", "DAKVDEFFXXX",
            "equity",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)  # fmt: skip

INSTRUCTION = SettlementInstruction(
    event_id="1", event_time=datetime(2026, 1, 5, 10, tzinfo=UTC), instruction_id="I", uti="U", isin="X",
    movement="DELI", payment="APMT", quantity=100, amount=1e9, counterparty_lei="L", account="A", pset="DAKVDEFFXXX",
    trade_date=date(2026, 1, 5), intended_settlement_date=date(2026, 1, 7),
)  # fmt: skip


@given(st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), max_size=6), st.sampled_from([RATES, CUT_OFFS]))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_row_of_a_file_breaks_features_and_each_is_good_or_quarantined(tmp_path_factory, reference_data, rows, spec):
    """Guards: a cut-off 'noon' of a place that nobody uses was accepted, and all features failed."""
    folder = tmp_path_factory.mktemp("files") / USE_CASE.name / spec.name
    folder.mkdir(parents=True)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*spec.contract.__struct_fields__[2:], *spec.contract.__struct_fields__[:2]])
    writer.writerows(rows)
    (folder / "1.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    good, bad = read(folder, spec)
    assert (
        good.num_rows + bad.num_rows == len([row for row in rows if any(row)]) or "left out" in bad["reason"][0].as_py()
    )
    tables = {**reference_data, spec.name: pa.concat_tables([reference_data[spec.name], good])}
    with AsOfDatabase(
        USE_CASE, curated_by_hand({"settlement_instructions": [INSTRUCTION]}), tables, threads=1
    ) as history:
        features = history.features(DecisionTime("end_of_trade_date", datetime(2026, 1, 5, 20, tzinfo=UTC)))
        assert features["entity_id"].to_pylist() == ["I"]
        assert pc.all(
            pc.and_(pc.is_finite(features["cost_if_fail"]), pc.greater_equal(features["cost_if_fail"], 0))
        ).as_py()
        history.labels(INSTRUCTION.intended_settlement_date, features)


def test_a_broken_file_does_not_take_away_what_was_in_force(lake, folder):
    """Guards: with the only file broken, all features would have been made as if there were no reference."""
    root = str(folder.parents[1])
    assert judge_reference(load_reference(lake, USE_CASE, RATES, root)).passed
    (folder / "a_good.csv").write_bytes(TEXT.encode("utf-16"))
    report = load_reference(lake, USE_CASE, RATES, root)
    assert (report.rows, report.kept) == (0, 1)
    assert lake.read(reference_table(USE_CASE, RATES))["asset_class"].to_pylist() == ["bond"]
    result = judge_reference(report)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    (bad,) = lake.read(reference_quarantine_table(USE_CASE, RATES)).to_pylist()
    assert "UTF-16" in bad["reason"]
    assert new_reference(lake, USE_CASE, [RATES.name], root).bad is False, "it is in the lake already"


def test_a_reference_without_any_row_stops_the_run(lake, folder):
    (folder / "a_good.csv").write_bytes(b"")
    result = judge_reference(load_reference(lake, USE_CASE, RATES, str(folder.parents[1])))
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
