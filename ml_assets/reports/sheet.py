"""Rows to CSV for a spreadsheet: numbers stay numbers, and no text is run as a formula.

A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@`, also behind blanks; see OWASP, CSV Injection. Such a
text gets an apostrophe before it, so that it is shown as it is. Some read a semicolon as the border of a cell, so what
follows one counts as a beginning too.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from ml_assets.markdown import shown

Cell = int | Decimal | str | None

# Their full-width forms too, which some spreadsheets take for them.
_RUNS: Final = re.compile(r"((?:^|;)[\s\"']*)([=+\-@\uff1d\uff0b\uff0d\uff20])")
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
# By which Excel knows UTF-8.
BYTE_ORDER_MARK: Final = "\ufeff"


def csv_text(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return headings and rows as CSV (RFC 4180) after a byte order mark; None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([safe(heading) for heading in headings])
    for row in rows:
        writer.writerow([safe(cell) if isinstance(cell, str) else _plain(cell) for cell in row])
    return BYTE_ORDER_MARK + buffer.getvalue()


def safe(words: str) -> str:
    """Return a text in one line that no spreadsheet runs; a text that is a number as a whole stays as it is."""
    line = shown(words)
    return line if _NUMBER.fullmatch(line) else _RUNS.sub(r"\1'\2", line)


def _plain(number: int | Decimal | None) -> str:
    return "" if number is None else f"{number:f}" if isinstance(number, Decimal) else str(number)
