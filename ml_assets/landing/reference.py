"""Reference files: CSV files that somebody drops into a folder or an S3 prefix."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import msgspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from ml_assets.contracts import TIMESTAMP, ReferenceRow, arrow_schema, to_columns
from ml_assets.duck import in_words, query_duckdb
from ml_assets.errors import InputError
from ml_assets.landing.batch import fitting_columns
from ml_assets.landing.decode import RefusedError
from ml_assets.landing.rules import legible, reasons_of_reference
from ml_assets.spec import ReferenceSpec

# A bad line, or a whole file: it has no line.
REFERENCE_QUARANTINE = pa.schema(
    [("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("payload", pa.string())]
)
# A file is read whole.
_LARGEST_FILE = 512 * 2**20
_TOO_MANY = "too many values"
_HEADS = {
    b"\x1f\x8b": "it is compressed with gzip; unpack it",
    b"PK\x03\x04": "it is a zip archive or an Excel file; save it as CSV",
    b"\xff\xfe": "it is UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is UTF-16; save it as UTF-8",
}


class ReferenceFileError(InputError):
    """A file as a whole cannot be used."""


def read_reference(root: str, usecase_name: str, spec: ReferenceSpec) -> tuple[pa.Table, pa.Table]:
    """Return the good rows of all files of a reference, and what is bad with file, line and reason.

    Files are `<root>/<use case>/<reference>/*.csv`, UTF-8 with or without a byte order mark, with a header of exactly
    the contract's fields in any order; an empty value is a missing one. `known_at` is `published_at`. A file that as a
    whole cannot be used is bad without a line; the others go on.

    Raises:
        FileNotFoundError: there is no file.
        OSError: the store does not answer.
    """
    files, base = fsspec.core.url_to_fs(f"{root.rstrip('/')}/{usecase_name}/{spec.name}")
    paths = _paths(files, base)
    if not paths:
        raise FileNotFoundError(f"no reference file matches {base}/*.csv; drop a CSV file of {spec.name} there")
    good: list[ReferenceRow] = []
    origins: list[tuple[str, int]] = []
    bad: list[dict[str, Any]] = []
    for path in paths:
        try:
            rows, lines, refused = _read_file(spec, _text(files, base, path))
        except (ReferenceFileError, csv.Error) as error:
            bad.append({"file": path, "line": None, "reason": f"the file is left out: {error}", "payload": ""})
        else:
            good += rows
            origins += [(path, line) for line in lines]
            bad += [{"file": path, **row} for row in refused]
    return _judge(spec, good, origins, bad)


def reference_files(root: str, usecase_name: str, spec: ReferenceSpec) -> dict[str, str]:
    """Return the files of a reference with a fingerprint of each, which changes when the file does."""
    files, base = fsspec.core.url_to_fs(f"{root.rstrip('/')}/{usecase_name}/{spec.name}")
    return {path: _fingerprint(files, path) for path in _paths(files, base)}


def _paths(files: Any, base: str) -> list[str]:
    """Return everything named *.csv, also what is not a file: it is reported rather than ignored."""
    return sorted(str(path) for path in files.glob(f"{base}/*.csv"))


def _fingerprint(files: Any, path: str) -> str:
    try:
        return str(files.ukey(path))
    except OSError as error:  # a link to nothing
        return type(error).__name__


def _text(files: Any, base: str, path: str) -> str:
    """Return the text of a file.

    Raises:
        ReferenceFileError: it is no file of this folder, or not UTF-8 text.
        OSError: the store does not answer.
    """
    if isinstance(files, LocalFileSystem):
        _refuse_elsewhere(Path(base), Path(path))
    elif files.info(path)["type"] != "file":
        raise ReferenceFileError("it is no file; remove it")
    if (size := files.size(path)) > _LARGEST_FILE:
        raise ReferenceFileError(f"it has {size:,} bytes, more than {_LARGEST_FILE:,}; split it")
    try:
        content = bytes(files.cat_file(path))
    except (FileNotFoundError, PermissionError) as error:
        raise ReferenceFileError(f"it cannot be read: {type(error).__name__}") from error
    if not content.strip():
        raise ReferenceFileError("it is empty; drop it with a header at least")
    for head, reason in _HEADS.items():
        if content.startswith(head):
            raise ReferenceFileError(reason)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ReferenceFileError(
            f"line {line} is not UTF-8 (byte {content[error.start]:#04x}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise ReferenceFileError(f"line {text[: text.index(chr(0))].count(chr(10)) + 1} has a NUL; export it again")
    if "\r" in text and "\n" not in text:
        raise ReferenceFileError("its lines end in CR alone; save it with LF or CR LF")
    return text


def _refuse_elsewhere(base: Path, path: Path) -> None:
    """Refuse what is no file, and a link that leads out of the folder: it could show what this service alone may read.

    Raises:
        ReferenceFileError: it is one of these.
    """
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise ReferenceFileError("it is a link that leads nowhere; remove it") from None
    if not target.is_relative_to(base.resolve()):
        raise ReferenceFileError("it is a link to a file outside its folder; drop the file itself")
    if not target.is_file():
        raise ReferenceFileError("it is no file; remove it")


def _read_file(spec: ReferenceSpec, text: str) -> tuple[list[ReferenceRow], list[int], list[dict[str, Any]]]:
    """Return the rows that keep the types of the contract, their lines, and the others.

    Raises:
        ReferenceFileError: the header is not that of the contract.
        csv.Error: it is no CSV.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey=_TOO_MANY, restval=None, strict=True)
    try:
        _check_header(spec, reader.fieldnames or ())
        rows, lines, refused = [], [], []
        for row in reader:
            given = {name: value or None for name, value in row.items()}
            if not any(given.values()):
                continue  # as spreadsheets leave them at the end
            try:
                if _TOO_MANY in given:
                    raise msgspec.ValidationError("it has more values than there are columns")
                converted = msgspec.convert(given, spec.contract, strict=False)
                fitting_columns(spec.contract, [converted])
            except (msgspec.ValidationError, RefusedError) as error:
                payload = msgspec.json.encode(given).decode()
                refused.append({"line": reader.line_num, "reason": str(error), "payload": payload})
            else:
                rows.append(converted)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num}: {error}") from None
    return rows, lines, refused


def _check_header(spec: ReferenceSpec, header: Sequence[str]) -> None:
    expected, found = set(spec.contract.__struct_fields__), set(header)
    wrong = [f"lacks {', '.join(sorted(expected - found))}"] if expected - found else []
    if unknown := found - expected:
        wrong.append(f"has unknown {', '.join(sorted(name or 'empty names' for name in unknown))}")
    if twice := sorted({name for name in header if list(header).count(name) > 1}):
        wrong.append(f"has {', '.join(twice)} more than once")
    if wrong:
        raise ReferenceFileError(
            f"the header {' and '.join(wrong)}; a file of {spec.name} has the columns "
            f"{', '.join(spec.contract.__struct_fields__)}"
        )


def _judge(
    spec: ReferenceSpec, rows: Sequence[ReferenceRow], origins: Sequence[tuple[str, int]], bad: Sequence[dict[str, Any]]
) -> tuple[pa.Table, pa.Table]:
    """Return the rows that keep the rules, with `known_at`, and the others beside what is bad already."""
    schema = arrow_schema(spec.contract)
    table = pa.table(to_columns(spec.contract, rows), schema=schema)
    table = table.append_column("known_at", table["published_at"].cast(TIMESTAMP))
    numbered = table.append_column("_row", pa.array(range(len(rows)), pa.int64()))
    with query_duckdb() as db:
        db.register("rows", numbered)
        payload = ", ".join(f"'{name}', \"{name}\"" for name in schema.names)
        try:
            db.execute(
                f"CREATE TEMP TABLE judged AS SELECT _row, {reasons_of_reference(spec)} AS _reason, "
                f"json_object({payload})::VARCHAR AS _payload FROM rows"
            )
        except duckdb.Error as error:
            raise InputError(f"reference {spec.name}: a quarantine rule failed: {in_words(error)}") from error
        kept = [row for (row,) in db.execute("SELECT _row FROM judged WHERE _reason = '' ORDER BY _row").fetchall()]
        broken = db.execute("SELECT _row, _reason, _payload FROM judged WHERE _reason <> '' ORDER BY _row").fetchall()
        found = [
            *bad,
            *(
                {"file": origins[row][0], "line": origins[row][1], "reason": reason, "payload": text}
                for row, reason, text in broken
            ),
        ]
        quarantine = pa.Table.from_pylist(found, schema=REFERENCE_QUARANTINE)  # noqa: F841 - DuckDB reads it by name
        quarantined: pa.Table = db.sql(
            f"SELECT file, line, {legible('reason')} AS reason, payload FROM quarantine ORDER BY file, line NULLS FIRST"
        ).to_arrow_table()
    return table.take(pa.array(kept, pa.int64())), quarantined.cast(REFERENCE_QUARANTINE)
