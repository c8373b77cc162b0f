"""Replay of the SEC's fails-to-deliver files as events, each known when its file was published.

Files are named `cnsfailsYYYYMM{a|b}.txt`, or `.txt.xz`: a half-month each, in latin-1, separated by `|` without
quoting, with a header and two trailer lines that tell the number of records and their total quantity. A file as a
whole is true or refused; a single bad row of a true file is sent on as it is, so that it shows up as a dead letter.

Source: https://www.sec.gov/data-research/sec-markets-data/fails-deliver-data
"""

import calendar
import lzma
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from ml_assets.simulation.messages import Message

TOPIC = "cns_fails"
_HEADER = ("SETTLEMENT DATE", "CUSIP", "SYMBOL", "QUANTITY (FAILS)", "DESCRIPTION", "PRICE")
_NAME = re.compile(r"cnsfails(\d{4})(\d{2})([ab])\.txt(\.xz)?")
_RECORDS = re.compile(r"Trailer record count (\d+)")
_QUANTITY = re.compile(r"Trailer total quantity of shares (\d+)")
# The files do not tell the hour; after the close of business in New York.
_PUBLISHED_AT = time(23, tzinfo=UTC)
_END_OF_DAY = time(21, tzinfo=UTC)


class SecFileError(ValueError):
    """A file, or the folder of files, is not what the SEC publishes."""


class HalfMonth(NamedTuple):
    """The first (`a`, up to the 14th) or second (`b`) half of a month."""

    year: int
    month: int
    half: str

    @classmethod
    def of(cls, day: date) -> Self:
        """Return the half-month of a date."""
        return cls(day.year, day.month, "a" if day.day < 15 else "b")

    @property
    def next(self) -> "HalfMonth":
        """The half-month after this one."""
        if self.half == "a":
            return self._replace(half="b")
        return HalfMonth(self.year + self.month // 12, self.month % 12 + 1, "a")

    @property
    def published(self) -> datetime:
        """When its file is published: at the month's end, or on the 15th of the next month."""
        if self.half == "a":
            last = date(self.year, self.month, calendar.monthrange(self.year, self.month)[1])
            return datetime.combine(last, _PUBLISHED_AT)
        after = self.next
        return datetime.combine(date(after.year, after.month, 15), _PUBLISHED_AT)

    def __str__(self) -> str:
        return f"{self.year}-{self.month:02}{self.half}"


def publication_time(day: date) -> datetime:
    """Return when the fails of a settlement date are published."""
    return HalfMonth.of(day).published


def replay(folder: Path, until: date | None = None) -> "Replay":
    """Return the replay of the files of a folder that were published by the end of a date (None: all).

    Every file is read and checked first. One that is not true is left out, with the reason in `refused`.

    Raises:
        SecFileError: there is no such folder, or no file in it.
    """
    replayed = Replay()
    for half, path in sorted(_find_files(folder, replayed.refused).items()):
        if until is not None and half.published.date() > until:
            continue
        try:
            replayed.counts[path] = sum(1 for _ in read_file(path))
        except SecFileError as error:
            replayed.refused[path.name] = str(error)
        else:
            replayed.published[half] = path
    return replayed


@dataclass
class Replay:
    """Files that are played again: true ones by half-month, refused ones with the reason by name."""

    published: dict[HalfMonth, Path] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    counts: dict[Path, int] = field(default_factory=dict)

    topics = (TOPIC,)

    @property
    def message_count(self) -> int:
        """The number of messages."""
        return sum(self.counts.values())

    @property
    def gaps(self) -> list[str]:
        """The half-months between the first and the last of which there is no true file: unknown, not without fails."""
        missing = []
        halves = sorted(self.published)
        for half, after in pairwise(halves):
            while (half := half.next) != after:
                missing.append(str(half))
        return missing

    def messages(self) -> Iterator[Message]:
        """Yield a message a row, in order of publication."""
        for half, path in sorted(self.published.items(), key=lambda item: item[0].published):
            timestamp = int(half.published.timestamp() * 1000)
            for line, fields in read_file(path):
                event = _event(path, line, fields)
                yield Message(TOPIC, str(event.get("symbol", "")).encode(), msgspec.json.encode(event), timestamp)


def read_file(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each row of a file, bad rows included; the check is over with the last row.

    Raises:
        SecFileError: the name, the header or the trailer is not as published, or the file is truncated.
    """
    half = _half_month(path)
    lines = _read_lines(path)
    header = tuple(lines[0].split("|")) if lines else ()
    if header != _HEADER:
        unknown = [name for name in header if name not in _HEADER]
        absent = [name for name in _HEADER if name not in header]
        wrong = [f"has unknown {', '.join(unknown)}"] if unknown else []
        wrong += [f"lacks {', '.join(absent)}"] if absent else []
        raise SecFileError(
            f"{path}, line 1: the header {' and '.join(wrong) or 'is in another order'}; it must be "
            f"{'|'.join(_HEADER)}. Download the file again"
        )
    records, quantity = _trailer(path, lines)
    rows = [line.split("|") for line in lines[1:-2]]
    if len(rows) != records:
        raise SecFileError(
            f"{path}, line {len(lines) - 1}: the trailer counts {records} records, the file has {len(rows)}. "
            "Download the file again"
        )
    total = sum(int(fields[3]) for fields in rows if len(fields) == len(_HEADER) and fields[3].isdigit())
    if total != quantity and all(_is_good(fields) for fields in rows):
        raise SecFileError(
            f"{path}, line {len(lines)}: the trailer's total quantity is {quantity}, that of the rows {total}. "
            "Download the file again"
        )
    for number, fields in enumerate(rows, start=2):
        if _is_good(fields) and HalfMonth.of(_date(fields[0])) != half:
            raise SecFileError(
                f"{path}, line {number}: settlement date {fields[0]} does not lie in {half}; is the file misnamed?"
            )
    yield from enumerate(rows, start=2)


def _find_files(folder: Path, refused: dict[str, str]) -> dict[HalfMonth, Path]:
    """Return the files by half-month; one that is misnamed, or there already, goes into `refused`."""
    if not folder.is_dir():
        raise SecFileError(f"{folder} is not a folder; give the folder with the SEC's cnsfailsYYYYMM{{a|b}}.txt.xz")
    found: dict[HalfMonth, Path] = {}
    for path in sorted(folder.glob("cnsfails*.txt*")):
        try:
            half = _half_month(path)
        except SecFileError as error:
            refused[path.name] = str(error)
            continue
        if half in found:
            refused[path.name] = f"{path}: {half} is there already, as {found[half].name}; remove one"
        else:
            found[half] = path
    if not found:
        raise SecFileError(
            f"{folder} has no file cnsfailsYYYYMM{{a|b}}.txt or .txt.xz; download them from sec.gov, "
            "'Fails-to-Deliver Data', and keep their names"
        )
    return found


def _half_month(path: Path) -> HalfMonth:
    match = _NAME.fullmatch(path.name)
    if match is None or not 1 <= int(match[2]) <= 12:
        raise SecFileError(f"{path}: the name is not cnsfailsYYYYMM{{a|b}}.txt or .txt.xz")
    return HalfMonth(int(match[1]), int(match[2]), match[3])


def _read_lines(path: Path) -> list[str]:
    """Return the lines that are not empty.

    Raises:
        SecFileError: the compressed file is truncated or damaged.
    """
    try:
        content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    except (EOFError, lzma.LZMAError) as error:
        raise SecFileError(f"{path} is truncated or damaged ({error}); download it again") from error
    return [line for line in content.decode("latin-1").replace("\r", "").split("\n") if line]


def _trailer(path: Path, lines: Sequence[str]) -> tuple[int, int]:
    """Return the number of records and the total quantity that the file says it has."""
    records, quantity = (
        (_RECORDS.fullmatch(lines[-2]), _QUANTITY.fullmatch(lines[-1])) if len(lines) > 2 else (None,) * 2
    )
    if records is None or quantity is None:
        raise SecFileError(
            f"{path}, line {len(lines)}: the two trailer lines are missing, so the file is truncated. Download it again"
        )
    return int(records[1]), int(quantity[1])


def _is_good(fields: Sequence[str]) -> bool:
    """Return whether the fields are those of an event; prices are left to the contract."""
    if len(fields) != len(_HEADER) or not fields[3].isdigit():
        return False
    try:
        _date(fields[0])
    except ValueError:
        return False
    return True


def _event(path: Path, line: int, fields: list[str]) -> dict[str, Any]:
    """Return a row as an event; a bad one keeps its text, and its contract will refuse it."""
    event_id = f"{path.name.split('.')[0]}:{line}"
    if not _is_good(fields):
        return {"event_id": event_id, "line": "|".join(fields)}
    day = _date(fields[0])
    price: float | str | None = None
    if fields[5] != ".":
        try:
            price = float(fields[5])
        except ValueError:
            price = fields[5]
    return {
        "event_id": event_id,
        "event_time": datetime.combine(day, _END_OF_DAY),
        "settlement_date": day,
        "symbol": fields[2],
        "quantity": int(fields[3]),
        "price": price,
        "description": fields[4],
    }


def _date(text: str) -> date:
    if len(text) != 8:
        raise ValueError(f"{text!r} is not YYYYMMDD")
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))
