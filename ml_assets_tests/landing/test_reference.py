from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from ml_assets.contracts import ReferenceRow
from ml_assets.landing.reference import read_reference
from ml_assets.spec import ReferenceSpec


class Rate(ReferenceRow, frozen=True, kw_only=True):
    asset_class: str
    bp: float | None


RATES = ReferenceSpec("rates", Rate, ("asset_class",), "Rates.")
HEADER = "asset_class,bp,valid_from,published_at"


@pytest.fixture
def drop(tmp_path):
    folder = tmp_path / "fails" / "rates"
    folder.mkdir(parents=True)

    def write(name, *lines):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(tmp_path)

    return write


def test_rows_of_all_files_are_typed_and_known_when_published(drop):
    drop("1.csv", HEADER, "share,1.0,2026-01-01,2025-12-31T06:00:00Z")
    root = drop("2.csv", HEADER, "bond,,2026-02-01,2026-01-31T06:00:00Z")
    rows, bad = read_reference(root, "fails", RATES)
    assert bad.num_rows == 0
    assert rows.to_pylist()[1] == {
        "valid_from": date(2026, 2, 1),
        "published_at": datetime(2026, 1, 31, 6, tzinfo=UTC),
        "asset_class": "bond",
        "bp": None,
        "known_at": datetime(2026, 1, 31, 6, tzinfo=UTC),
    }


def test_a_bad_row_is_told_by_file_and_line_and_the_good_ones_are_kept(drop):
    root = drop(
        "1.csv", HEADER, "share,cheap,2026-01-01,2025-12-31T06:00:00Z", "bond,0.2,2026-01-01,2025-12-31T06:00:00Z"
    )
    rows, bad = read_reference(root, "fails", RATES)
    assert rows["asset_class"].to_pylist() == ["bond"]
    (row,) = bad.to_pylist()
    assert row["file"].endswith("1.csv")
    assert row["line"] == 2
    assert "bp" in row["reason"]
    assert "cheap" in row["payload"]


def test_a_row_that_breaks_a_declared_rule_is_in_quarantine_with_that_rule(drop):
    """Guards `ReferenceSpec.rules`, which nothing read: a declared rule quarantined no row."""
    spec = replace(RATES, rules={"bp is negative": "bp < 0"})
    root = drop(
        "1.csv", HEADER, "share,-1.0,2026-01-01,2025-12-31T06:00:00Z", "bond,0.2,2026-01-01,2025-12-31T06:00:00Z"
    )
    rows, bad = read_reference(root, "fails", spec)
    assert rows["asset_class"].to_pylist() == ["bond"]
    assert [(row["line"], row["reason"]) for row in bad.to_pylist()] == [(2, "bp is negative")]


def test_a_wrong_header_names_the_columns(drop):
    root = drop("1.csv", "asset_class,price,valid_from,published_at", "share,1,2026-01-01,2025-12-31T06:00:00Z")
    rows, bad = read_reference(root, "fails", RATES)
    assert rows.num_rows == 0
    (row,) = bad.to_pylist()
    assert "lacks bp and has unknown price" in row["reason"]
    assert row["line"] is None


def test_without_a_file_the_error_says_where_to_drop_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"rates/\*\.csv; drop a CSV file of rates there"):
        read_reference(str(tmp_path), "fails", RATES)
