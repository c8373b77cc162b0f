"""Events from a file: JSON lines, CSV or Parquet to messages, each checked against its contract."""

import csv
import hashlib
import keyword
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from ml_assets.contracts import Event
from ml_assets.errors import InputError
from ml_assets.spec import EventSpec

FORMATS = {".jsonl": "JSON lines", ".ndjson": "JSON lines", ".json": "JSON lines", ".csv": "CSV", ".parquet": "Parquet"}
_ROWS = 50_000


class FileMessage(NamedTuple):
    """One Kafka record made of a row; `timestamp_ms` is its time of publication, milliseconds since 1970 UTC."""

    topic: str
    key: bytes
    value: bytes
    timestamp_ms: int


@dataclass
class ReadEvents:
    """The rows of a file: the good ones as messages, in order of publication, and for each bad line the reason.

    `ignored` are columns that the contract has no field for.
    """

    messages: list[FileMessage] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    ignored: tuple[str, ...] = ()
    made_ids: bool = False


def field_name(column: str) -> str:
    """Return the contract's field for a column: lower case, with _ for characters that no Python name can have."""
    name = re.sub(r"\W+", "_", column.strip().lower(), flags=re.ASCII).strip("_")
    if not name or name[0].isdigit():
        return f"column_{name}".rstrip("_")
    return f"{name}_" if keyword.iskeyword(name) else name


def read_events(
    path: Path,
    event: EventSpec,
    *,
    event_time: str = "event_time",
    published: str = "",
    progress: Callable[[int], None] = lambda _: None,
) -> ReadEvents:
    """Return the events of a file; columns are matched to fields by `field_name`.

    `event_time` names the column that says when it happened, `published` the one that says when it was published; by
    default that is when it happened. Times without a zone are UTC. A file without event_id gets ids from its rows'
    content, so that the same file sent again gives the same events.

    Raises:
        ValueError: the file is of no known format, is empty, or lacks a column.
    """
    read = ReadEvents()
    fields = _types(event.contract)
    happened, out = field_name(event_time), field_name(published or event_time)
    seen: Counter[str] = Counter()
    checked = False
    for line, row in rows_of(path):
        progress(1)
        if isinstance(row, str):
            read.refused.append((line, row))
            continue
        named = {field_name(column): value for column, value in row.items()}
        if not checked:
            _refuse_missing(path, event, fields, named.keys() | {"event_time", "event_id"}, {happened, out} - {*named})
            read.ignored = tuple(sorted(named.keys() - fields.keys() - {happened, out}))
            read.made_ids = "event_id" not in named
            checked = True
        try:
            payload = {name: _value(named[name], kind) for name, kind in fields.items() if name in named}
            payload["event_time"] = _time(named.get(happened))
            made = msgspec.convert({"event_id": "", **payload}, event.contract, strict=False)
            if read.made_ids:
                # Of what the contract made of the row, so that the format of the file does not matter.
                digest = hashlib.sha256(msgspec.json.encode(made)).hexdigest()[:20]
                seen[digest] += 1
                made = msgspec.structs.replace(made, event_id=f"{digest}-{seen[digest]}")
            timestamp = int(_time(named.get(out)).timestamp() * 1000)
        except (msgspec.ValidationError, ValueError, TypeError, OverflowError) as error:
            read.refused.append((line, str(error)))
            continue
        read.messages.append(FileMessage(event.topic, made.event_id.encode(), msgspec.json.encode(made), timestamp))
    if not checked and not read.refused:
        raise InputError(f"{path} has no rows")
    read.messages.sort(key=lambda message: message.timestamp_ms)
    return read


def rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Yield line number (in Parquet: row number) and fields of each row, or the reason why a line is no row.

    Raises:
        ValueError: the file is of no known format, or not what its name says.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path.name}: a file of events ends in {', '.join(FORMATS)}")
    try:
        yield from {"CSV": _csv, "JSON lines": _json_lines, "Parquet": _parquet}[kind](path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path.name} is not UTF-8 ({error.reason} at byte {error.start}); convert it first"
        ) from error


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            columns = next(reader, [])
            twice = [name for name, count in Counter(map(field_name, columns)).items() if count > 1]
            if twice:
                raise InputError(f"{path.name} has two columns {twice[0]!r}; rename one")
            for row in reader:
                if len(row) == len(columns):
                    yield reader.line_num, {name: value or None for name, value in zip(columns, row, strict=True)}
                elif row:
                    yield reader.line_num, f"it has {len(row)} fields, the first line has {len(columns)}"
        except csv.Error as error:
            raise InputError(f"{path.name}, line {reader.line_num}: {error}") from error


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    with path.open("rb") as text:
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            try:
                row = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                yield number, str(error)
                continue
            yield number, row if isinstance(row, dict) else "it is not an object with fields"


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowInvalid

    try:
        file = pq.ParquetFile(path)
    except ArrowInvalid as error:
        raise InputError(f"{path.name} is no Parquet file: {error}") from error
    number = 0
    for batch in file.iter_batches(_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _types(contract: type[Event]) -> dict[str, Any]:
    hints = get_type_hints(contract)
    return {name: hints[name] for name in contract.__struct_fields__}


def _refuse_missing(path: Path, event: EventSpec, fields: Mapping[str, Any], given: Any, times: set[str]) -> None:
    info = {one.name: one for one in msgspec.structs.fields(event.contract)}
    missing = sorted(times) + [name for name in fields if name not in given and info[name].required]
    if missing:
        columns = ", ".join(sorted(set(given) - {"event_time", "event_id"}))
        raise InputError(
            f"{path.name} has no column {', '.join(missing)}; it has {columns}. --event-time names the column "
            f"that says when it happened; all others are called as the fields of {event.contract.__name__}"
        )


def _value(value: Any, kind: Any) -> Any:
    """Return a value as the contract's field can take it: text of a number, date or time is read."""
    members = get_args(kind) if get_origin(kind) is not None and type(None) in get_args(kind) else (kind,)
    plain = next((member for member in members if member is not type(None)), kind)
    if value is None:
        return None if len(members) > 1 or get_origin(kind) is Union else _absent(plain)
    if plain is datetime:
        return _time(value)
    if plain is date:
        return value.date() if isinstance(value, datetime) else date.fromisoformat(str(value)[:10])
    if plain is str and not isinstance(value, str):
        return str(value)
    if plain is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip() if isinstance(value, str) and plain in (int, float, bool) else value


def _absent(kind: Any) -> Any:
    """Return the value of an empty cell for a required field: an empty text; other types have no such value."""
    if kind is str:
        return ""
    raise InputError(
        f"a field of type {getattr(kind, '__name__', kind)} is empty, and the contract does not allow that"
    )


def _time(value: Any) -> datetime:
    if value is None:
        raise InputError("the time is empty")
    if isinstance(value, datetime):
        found = value
    elif isinstance(value, date):
        found = datetime(value.year, value.month, value.day, tzinfo=UTC)
    else:
        found = datetime.fromisoformat(str(value).strip())
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
