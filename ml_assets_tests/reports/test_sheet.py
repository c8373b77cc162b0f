"""What a report hands to a spreadsheet: numbers, and texts that are not run."""

import csv
import io
import re
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml_assets.reports.sheet import BYTE_ORDER_MARK, csv_text, safe

PIECES = st.sampled_from(
    ["=", "+", "-", "@", "\uff1d", "\uff20", "'", '"', ";", ",", "|", "\t", "\r", "\n", " ", "\x00", "\u200b", "\u00a0",
     "cmd|' /C calc'!A0", "HYPERLINK(", "1", "-1", "a", "é"]
)  # fmt: skip
WORDS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=20)
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def read(text: str, delimiter: str = ",") -> list[list[str]]:
    assert text.startswith(BYTE_ORDER_MARK)
    return list(csv.reader(io.StringIO(text.removeprefix(BYTE_ORDER_MARK), newline=""), delimiter=delimiter))


@given(WORDS, WORDS)
@example("=1+1", "  @SUM(A1)")
@example("a;=1+1", '";=1+1')
def test_no_cell_is_run(one: str, other: str) -> None:
    """Guards a counterparty whose name is a formula, read with commas or, as in some countries, with semicolons."""
    text = csv_text([one], [[one], [other]])
    assert all(len(row) == 1 for row in read(text) if row)
    for delimiter in ",;":
        for cell in (cell for row in read(text, delimiter) for cell in row):
            begins = cell.strip().lstrip('"').strip()
            assert NUMBER.fullmatch(begins) or begins[:1] not in {*"=+-@\uff1d\uff0b\uff0d\uff20"} or not begins, text


@given(st.integers(-(10**12), 10**12) | st.decimals(-(10**9), 10**9, places=4, allow_nan=False))
def test_a_number_stays_the_number(number: int | Decimal) -> None:
    """Guards negative numbers, which an apostrophe would turn into texts."""
    ((cell,),) = read(csv_text([], [[number]]))[1:]
    assert Decimal(cell) == number
    assert "e" not in cell.lower()
    assert safe(cell) == cell


@pytest.mark.parametrize("words", ["Bank & Co", "a-b", "50 % = half", "-5", "+1.5e3", "O'Neill", "x@y", "a, -b"])
def test_what_is_harmless_is_not_touched(words: str) -> None:
    assert safe(words) == words


def test_an_unknown_value_is_an_empty_cell() -> None:
    assert read(csv_text(["a", "b"], [[None, "x"]])) == [["a", "b"], ["", "x"]]
