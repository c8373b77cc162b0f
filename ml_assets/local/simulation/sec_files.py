"""The SEC's fails-to-deliver files as they are handed out: their names, their packing, their text.

The names that the SEC has given them since 2004: `cnsp_sec_fails_YYYYqN` (a quarter, to June 2009) and
`cnsfailsYYYYMM{a|b}` (a half-month, since), with `_0`, `_1`, ... where one was put in place of an earlier one. As
`.zip` from the SEC, or as `.txt`, `.txt.gz`, `.txt.xz`, in any case of letters.

The text is separated by `|` without quoting, with a header and two trailer lines that tell the number of records and
their total quantity. The columns may stand in any order; the text is latin-1, or what its byte-order mark says.
"""

import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

from ml_assets.errors import InputError
from ml_assets.usecases.cns_fails.publication import Period

COLUMNS = ("SETTLEMENT DATE", "CUSIP", "SYMBOL", "QUANTITY (FAILS)", "DESCRIPTION", "PRICE")
# What a name looks like, for messages.
NAMES = "cnsfailsYYYYMM{a|b} or cnsp_sec_fails_YYYYqN, as .zip, .txt, .txt.gz or .txt.xz"
_NAME = re.compile(
    r"(?:cnsfails(?P<year>\d{4})(?P<month>\d{2})(?P<half>[ab])|cnsp_sec_fails_(?P<of>\d{4})q(?P<quarter>[1-4]))"
    r"(?:_(?P<edition>\d{1,3}))?(?:\.zip|\.txt(?:\.zip|\.gz|\.xz)?)",
    re.IGNORECASE,
)
_ALIASES = {"QUANTITY": "QUANTITY (FAILS)", "QUANTITY(FAILS)": "QUANTITY (FAILS)", "FAILS": "QUANTITY (FAILS)"}
_RECORDS = re.compile(r"Trailer record count:?\s*([\d,]+)", re.IGNORECASE)
_QUANTITY = re.compile(r"Trailer total quantity of shares:?\s*([\d,]+)", re.IGNORECASE)
# The largest of the SEC's files, a quarter, has some 30 MB.
_MOST_BYTES = 512 << 20


class SecFileError(InputError):
    """A file, or the folder of files, is not what the SEC publishes."""


class Name(NamedTuple):
    """What a file's name tells: its period, and the number of a later edition, -1 for the first."""

    period: Period
    edition: int


def parse_name(path: Path) -> Name:
    """Return what the name of a file tells.

    Raises:
        SecFileError: it is none of the names that the SEC gives.
    """
    match = _NAME.fullmatch(path.name)
    if match is None or not 1 <= int(match["month"] or 1) <= 12:
        raise SecFileError(f"{path}: the name is not {NAMES}")
    if match["quarter"]:
        period = Period(int(match["of"]), int(match["quarter"]) * 3, "q")
    else:
        period = Period(int(match["year"]), int(match["month"]), match["half"].lower())
    return Name(period, int(match["edition"] or -1))


class Text(NamedTuple):
    """The text of a file: header, rows and trailer, without empty lines; `packed` is when it was put into its zip."""

    lines: list[str]
    packed: datetime | None


def read_text(path: Path) -> Text:
    """Return the text of a file, unpacked by what its first bytes say it is.

    Raises:
        SecFileError: it cannot be read, is truncated, damaged or too large, or is an archive of several files.
    """
    packed = None
    try:
        content = path.read_bytes()
        if content.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                member = _only_member(path, archive)
                packed = datetime(*member.date_time, tzinfo=UTC)
                with archive.open(member) as opened:
                    content = _read(path, opened)
        elif content.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as unzipped:
                content = _read(path, unzipped)
        elif content.startswith(b"\xfd7zXZ"):
            with lzma.open(io.BytesIO(content)) as unpacked:
                content = _read(path, unpacked)
        elif path.suffix.lower() in (".zip", ".gz", ".xz"):
            raise SecFileError(
                f"{path} is truncated or damaged (it is no {path.suffix[1:]} archive); download it again"
            )
    except SecFileError:
        raise
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError,
            ValueError) as error:  # fmt: skip
        raise SecFileError(f"{path} is truncated or damaged ({error}); download it again") from error
    text = _decode(content)
    return Text([line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()], packed)


def columns_of(path: Path, header: str) -> list[int]:
    """Return where in a row each of `COLUMNS` stands.

    Raises:
        SecFileError: the header lacks one, or has one that is not known.
    """
    names = [" ".join(name.split()).upper() for name in header.split("|")]
    names = [_ALIASES.get(name, name) for name in names]
    while names and not names[-1]:
        names.pop()
    unknown = [name for name in names if name not in COLUMNS]
    absent = [name for name in COLUMNS if name not in names]
    wrong = [f"has unknown {', '.join(unknown)}"] if unknown else []
    wrong += [f"lacks {', '.join(absent)}"] if absent else []
    wrong += ["has a column twice"] if len(set(names)) < len(names) else []
    if wrong:
        raise SecFileError(
            f"{path}, line 1: the header {' and '.join(wrong)}; it must be {'|'.join(COLUMNS)}. Download the file again"
        )
    return [names.index(name) for name in COLUMNS]


def split_trailer(path: Path, lines: Sequence[str], period: Period) -> tuple[Sequence[str], int | None, int | None]:
    """Return the rows below the header, and the number of records and the total quantity that the trailer tells.

    Of a quarter's file the trailer may be missing.

    Raises:
        SecFileError: a half-month's trailer is missing.
    """
    records, quantity = (
        (_RECORDS.fullmatch(lines[-2].strip(" |")), _QUANTITY.fullmatch(lines[-1].strip(" |")))
        if len(lines) > 2
        else (None,) * 2
    )
    if records is not None and quantity is not None:
        return lines[1:-2], int(records[1].replace(",", "")), int(quantity[1].replace(",", ""))
    if period.half == "q" and not any(line.lower().startswith("trailer") for line in lines[-2:]):
        return lines[1:], None, None
    raise SecFileError(
        f"{path}, line {len(lines)}: the two trailer lines are missing, so the file is truncated. Download it again"
    )


def _only_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        held = ", ".join(one.filename for one in members[:3]) or "nothing"
        raise SecFileError(f"{path} holds {held} and not one file; unpack it, and give the files their names")
    return members[0]


def _read(path: Path, opened: IO[bytes] | gzip.GzipFile) -> bytes:
    content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise SecFileError(f"{path} unpacks to more than {_MOST_BYTES >> 20} MiB; it is none of the SEC's files")
    return content


def _decode(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    if content.startswith(b"\xef\xbb\xbf"):
        return content.decode("utf-8-sig", "replace")
    return content.decode("latin-1")
