"""Replay of the SEC's fails-to-deliver files as events, each known when its file was published.

A file as a whole is true or refused; a single bad row of a true file is sent on as it is, so that it shows up as a
dead letter. What the files look like: `simulation.sec_files`.

The id of an event comes from its content and the time of its publication, so that a file may be replayed again. A
corrected file is published later than the one it replaces: as of a time, the newest published one counts.

Source: https://www.sec.gov/data-research/sec-markets-data/fails-deliver-data
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ml_assets.errors import InputError
from ml_assets.local.simulation.messages import Message
from ml_assets.local.simulation.sec_files import (
    COLUMNS,
    NAMES,
    Name,
    SecFileError,
    columns_of,
    parse_name,
    read_text,
    split_trailer,
)
from ml_assets.usecases.cns_fails.publication import TOPIC, Period

_END_OF_DAY = time(21, tzinfo=UTC)
_BESIDE = ("SOURCE.TXT", "README.TXT", "README.MD")


class Edition(NamedTuple):
    """A file and when it was published, in order of publication."""

    published: datetime
    period: Period
    path: Path


def replay(folder: Path, until: date | None = None, corrected_on: date | None = None) -> "Replay":
    """Return the replay of the files of a folder that were published by the end of a date (None: all).

    Every file is read and checked first. One that is not true is left out, with the reason in `refused`; so is what
    else lies in the folder. `corrected_on` says that the files are corrections, and were published on this date.

    Raises:
        SecFileError: there is no such folder, or no file in it; or a correction is older than what it corrects.
    """
    replayed = Replay()
    for name, path in sorted(_find_files(folder, replayed.refused).items()):
        try:
            rows = sum(1 for _ in read_file(path))
            published = _published(name, path, corrected_on, replayed)
        except SecFileError as error:
            replayed.refused[path.name] = str(error)
            continue
        if until is None or published.date() <= until:
            replayed.counts[path] = rows
            replayed.editions.append(Edition(published, name.period, path))
    replayed.editions.sort()
    return replayed


@dataclass
class Replay:
    """Files that are played again: true ones in order of publication, refused ones with the reason by name."""

    editions: list[Edition] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    counts: dict[Path, int] = field(default_factory=dict)

    topics = (TOPIC,)

    @property
    def message_count(self) -> int:
        """The number of messages."""
        return sum(self.counts.values())

    @property
    def periods(self) -> list[Period]:
        """The periods of which there is a true file, in order."""
        return sorted({edition.period for edition in self.editions})

    @property
    def gaps(self) -> list[str]:
        """The periods between the first and the last of which there is no true file: unknown, not without fails."""
        missing = []
        for period, after in pairwise(self.periods):
            while (period := period.next) < after:
                missing.append(str(period))
        return missing

    def messages(self) -> Iterator[Message]:
        """Yield one message per row, in order of publication."""
        yield from self.between(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

    def between(self, first: datetime, end: datetime) -> Iterator[Message]:
        """Yield the messages of the files that were published in a span of time, its end excluded."""
        for edition in self.editions:
            if not first <= edition.published < end:
                continue
            timestamp = int(edition.published.timestamp() * 1000)
            seen = Counter[bytes]()
            for _, fields in read_file(edition.path):
                event = _event(edition, fields, seen)
                yield Message(TOPIC, str(event.get("symbol", "")).encode(), msgspec.json.encode(event), timestamp)


def read_file(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each row of a file, bad rows included; the check is over with the last row.

    The fields of a row are in the order of `COLUMNS`, if it has them all.

    Raises:
        SecFileError: the name, the header or the trailer is not as published, or the file is truncated.
    """
    period = parse_name(path).period
    lines = read_text(path).lines
    order = columns_of(path, lines[0] if lines else "")
    texts, records, quantity = split_trailer(path, lines, period)
    rows = [_fields(text, order) for text in texts]
    if records is not None and len(rows) != records:
        raise SecFileError(
            f"{path}, line {len(lines) - 1}: the trailer counts {records} records, the file has {len(rows)}. "
            "Download the file again"
        )
    total = sum(int(fields[3]) for fields in rows if len(fields) == len(COLUMNS) and _is_number(fields[3]))
    if quantity is not None and total != quantity and all(_is_good(fields) for fields in rows):
        raise SecFileError(
            f"{path}, line {len(lines)}: the trailer's total quantity is {quantity}, that of the rows {total}. "
            "Download the file again"
        )
    for number, fields in enumerate(rows, start=2):
        if _is_good(fields) and Period.of(_date(fields[0])) != period:
            raise SecFileError(
                f"{path}, line {number}: settlement date {fields[0]} does not lie in {period}; is the file misnamed?"
            )
    yield from enumerate(rows, start=2)


def _find_files(folder: Path, refused: dict[str, str]) -> dict[Name, Path]:
    """Return the files by what their names tell; whatever else is in the folder goes into `refused`."""
    if not folder.is_dir():
        raise SecFileError(f"{folder} is not a folder; give the folder with the SEC's {NAMES}")
    found: dict[Name, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.upper() in _BESIDE:
            continue
        try:
            name = parse_name(path)
        except SecFileError as error:
            refused[path.name] = str(error)
            continue
        if not path.is_file():
            refused[path.name] = f"{path} is not a file" + ("; its link leads nowhere" if path.is_symlink() else "")
        elif name in found:
            refused[path.name] = f"{path}: {name.period} is there already, as {found[name].name}; remove one"
        else:
            found[name] = path
    if not found:
        held = f" It holds {', '.join(list(refused)[:3])}." if refused else ""
        raise SecFileError(
            f"{folder} has no file {NAMES}; download them from sec.gov, 'Fails-to-Deliver Data', and keep their names."
            + held
        )
    return found


def _published(name: Name, path: Path, corrected_on: date | None, replayed: "Replay") -> datetime:
    """Return when a file was published. The first of its period is published by the SEC's calendar.

    Raises:
        SecFileError: it corrects another, and nothing tells when it was published, or it was not later.
    """
    usual = name.period.published
    if corrected_on is not None:
        corrected = datetime.combine(corrected_on, usual.timetz())
        if corrected <= usual:
            raise SecFileError(f"{path}: {name.period} was first published on {usual:%F}, a correction is later")
        return corrected
    before = [edition for edition in replayed.editions if edition.period == name.period]
    if not before:
        return usual
    packed = read_text(path).packed
    if packed is None or packed <= max(edition.published for edition in before):
        raise SecFileError(
            f"{path} corrects {before[-1].path.name}, and does not tell when it was published; put it into a folder of "
            "its own and replay that with --corrected-on <date>"
        )
    return packed


def _fields(text: str, order: Sequence[int]) -> list[str]:
    """Return the fields of a row in the order of `COLUMNS`; a row with too few or too many as it is."""
    fields = text.split("|")
    while len(fields) > len(COLUMNS) and not fields[-1].strip():
        fields.pop()
    if len(fields) > len(COLUMNS) and list(order) == list(range(len(COLUMNS))):
        # A `|` in the description: what stands around it is told by its place.
        fields = [*fields[:4], "|".join(fields[4:-1]), fields[-1]]
    return [fields[place] for place in order] if len(fields) == len(COLUMNS) else fields


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_good(fields: Sequence[str]) -> bool:
    """Return whether the fields are those of an event; prices are left to the contract."""
    if len(fields) != len(COLUMNS) or not _is_number(fields[3]):
        return False
    try:
        _date(fields[0])
    except ValueError:
        return False
    return True


def _event(edition: Edition, fields: list[str], seen: Counter[bytes]) -> dict[str, Any]:
    """Return a row as an event; a bad one keeps its text, and its contract will refuse it.

    `seen` counts the rows of the file by content: two that are equal are two.
    """
    # Without the CUSIP, which may carry a third party's rights.
    content = "|".join((*fields[:1], *fields[2:])).encode()
    seen[content] += 1
    digest = hashlib.blake2b(
        b"%d|%d|%b" % (edition.published.timestamp(), seen[content], content), digest_size=8
    ).hexdigest()
    if not _is_good(fields):
        return {"event_id": f"{edition.period}:{digest}", "line": "|".join(fields)}
    day = _date(fields[0])
    price: float | str | None = None
    if fields[5].strip() not in ("", "."):
        try:
            price = float(fields[5])
        except ValueError:
            price = fields[5]
    return {
        "event_id": f"{day}:{fields[2]}:{digest}",
        "event_time": datetime.combine(day, _END_OF_DAY),
        "settlement_date": day,
        "symbol": fields[2],
        "quantity": int(fields[3]),
        "price": price,
        "description": fields[4],
        "published": edition.published,
    }


def _date(text: str) -> date:
    if len(text) == 10:
        return date.fromisoformat(text)
    if len(text) != 8:
        raise InputError(f"{text!r} is not YYYYMMDD")
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))
