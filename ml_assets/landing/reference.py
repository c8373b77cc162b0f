"""Reference files: CSV files that somebody drops into a folder or an S3 prefix."""

import csv
import io
from collections.abc import Iterable

import fsspec
import msgspec
import pyarrow as pa

from ml_assets.contracts import TIMESTAMP, ReferenceRow, arrow_schema, to_columns
from ml_assets.spec import ReferenceSpec

REFERENCE_QUARANTINE = pa.schema(
    [("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("payload", pa.string())]
)


class ReferenceFileError(ValueError):
    """A file as a whole is not what its contract says."""


def read_reference(root: str, usecase_name: str, spec: ReferenceSpec) -> tuple[pa.Table, pa.Table]:
    """Return the rows of all files of a reference, and the bad ones with file, line and reason.

    Files are `<root>/<use case>/<reference>/*.csv`, UTF-8, with a header of exactly the contract's fields in any
    order; an empty value is a missing one. `known_at` is `published_at`.

    Raises:
        FileNotFoundError: there is no file.
        ReferenceFileError: a header has an unknown column or lacks one.
    """
    pattern = f"{root.rstrip('/')}/{usecase_name}/{spec.name}/*.csv"
    files = sorted(fsspec.open_files(pattern, "r", encoding="utf-8", newline=""), key=lambda file: str(file.path))
    if not files:
        raise FileNotFoundError(f"no reference file matches {pattern}; drop a CSV file of {spec.name} there")
    good: list[ReferenceRow] = []
    bad: list[dict[str, object]] = []
    for file in files:
        with file as stream:
            _read_file(spec, str(file.path), stream.read(), good, bad)
    rows = pa.table(to_columns(spec.contract, good), schema=arrow_schema(spec.contract))
    known_at = rows["published_at"].cast(TIMESTAMP)
    return rows.append_column("known_at", known_at), pa.Table.from_pylist(bad, schema=REFERENCE_QUARANTINE)


def reference_files(root: str, usecase_name: str, spec: ReferenceSpec) -> dict[str, str]:
    """Return the files of a reference with a fingerprint of each, which changes when the file does."""
    files, base = fsspec.core.url_to_fs(f"{root.rstrip('/')}/{usecase_name}/{spec.name}")
    return {str(path): str(files.ukey(path)) for path in sorted(files.glob(f"{base}/*.csv"))}


def _read_file(
    spec: ReferenceSpec, path: str, text: str, good: list[ReferenceRow], bad: list[dict[str, object]]
) -> None:
    reader = csv.DictReader(io.StringIO(text), restkey="too many values", restval=None)
    _check_header(spec, path, reader.fieldnames or ())
    for row in reader:
        given = {name: value or None for name, value in row.items() if name is not None}
        try:
            good.append(msgspec.convert(given, spec.contract, strict=False))
        except msgspec.ValidationError as error:
            payload = msgspec.json.encode(given).decode()
            bad.append({"file": path, "line": reader.line_num, "reason": str(error), "payload": payload})


def _check_header(spec: ReferenceSpec, path: str, header: Iterable[str]) -> None:
    expected, found = set(spec.contract.__struct_fields__), set(header)
    wrong = [f"lacks {', '.join(sorted(expected - found))}"] if expected - found else []
    if unknown := found - expected:
        wrong.append(f"has unknown {', '.join(sorted(unknown))}")
    if wrong:
        raise ReferenceFileError(
            f"{path}: the header {' and '.join(wrong)}; a file of {spec.name} has the columns "
            f"{', '.join(spec.contract.__struct_fields__)}"
        )
