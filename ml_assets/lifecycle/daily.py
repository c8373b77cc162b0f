"""The daily tables in the lake: which kept parts still say what they would say if they were made now.

A part depends on what was known by the end of its day and on nothing later. Beside its rows it keeps what it was made
of: for each partition that its SQL could see, the names of the files, and a digest of the rows known by then. If the
names are the same, nothing has to be read; if they are not, that partition is read, and only if the digest has changed
too is the part made again. So a late event makes the part of the day on which it became known, and no other; an event
that landed late but counts as known long ago makes anew those days that could see it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ml_assets.duck import query_duckdb
from ml_assets.features import AsOfDatabase, DailyParts, columns_named, daily_days, use_of
from ml_assets.features.days import day_of
from ml_assets.lake import Lake, PartitionBusyError, curated_table, daily_table, reference_table
from ml_assets.spec import EventSpec, ReferenceSpec, UseCase

# Where a clock runs ahead, a row known on a day belongs to the business date after it.
CLOCKS_AHEAD = timedelta(days=3)
# A table and a partition of it; a reference has none.
_Key = tuple[str, date | None]


class PartInput(msgspec.Struct, frozen=True):
    """A partition of an event's table, or a reference, as a part saw it; `known` digests the rows known by its day."""

    files: str
    known: str


class PartOrigin(msgspec.Struct, frozen=True):
    """What a part was made of: its definition, and its inputs by `<event>/<business date>` or `<reference>`."""

    definition: str
    inputs: dict[str, PartInput]


@dataclass(frozen=True)
class KeptDays:
    """What is kept of the days that some decisions can see.

    `parts` can be used as they are, `missing` have to be made. `origins` are to be written anew, by table and day: the
    rows are the same, but the files that they come from have been replaced.
    """

    parts: DailyParts
    missing: tuple[date, ...] = ()
    origins: Mapping[str, Mapping[date, PartOrigin]] = field(default_factory=dict)


class PartInputs:
    """What the parts of a use case's daily tables are made of, as the lake is now.

    With `versions` it is as these tables stood then; one that is not among them was not there.
    """

    def __init__(self, lake: Lake, usecase: UseCase, versions: Mapping[str, int] | None = None) -> None:
        self._lake = lake
        self._usecase = usecase
        self._versions = versions
        self._sources: dict[str, list[EventSpec | ReferenceSpec]] = {}
        # Taken first: if a table changes before its rows are read, the next look finds other files and compares rows.
        self._files: dict[_Key, str] = {}
        for name, sql in usecase.daily_sql.items():
            tables = use_of(sql).tables
            sources: list[EventSpec | ReferenceSpec] = [*usecase.events, *usecase.references]
            self._sources[name] = [
                source
                for source in sources
                if not tables.isdisjoint(
                    map(str.lower, source.tables if isinstance(source, EventSpec) else (source.name,))
                )
            ]
            for source in self._sources[name]:
                column = "business_date" if isinstance(source, EventSpec) else None
                table = self._table(source)
                if versions is None or table in versions:
                    for day, files in lake.file_names(table, column, version=self._version(table)).items():
                        self._files[source.name, day] = _digest(files)
        # Number and sum of hashes of the rows of a partition, by the day on which they became known.
        self._known: dict[tuple[str, _Key], dict[date, tuple[int, int]]] = {}

    def origin(self, name: str, day: date, before: PartOrigin | None = None) -> PartOrigin:
        """Return what the part of a day is made of; what `before` knows of the same files is not read again."""
        there = {key: self._files[key] for key in self._visible(name, day) if key in self._files}
        said = before.inputs if before is not None else {}
        new = [key for key, files in there.items() if _text(key) not in said or said[_text(key)].files != files]
        self._read(name, new)
        inputs = {_text(key): said[_text(key)] for key in there if key not in new}
        inputs |= {_text(key): PartInput(there[key], self._known_by(name, key, day)) for key in new}
        return PartOrigin(_digest([self._usecase.daily_sql[name]]), inputs)

    def read(self, name: str, days: Iterable[date]) -> None:
        """Read all that the parts of these days are made of, at once."""
        self._read(name, {key for day in days for key in self._visible(name, day) if key in self._files})

    def _table(self, source: EventSpec | ReferenceSpec) -> str:
        if isinstance(source, EventSpec):
            return curated_table(self._usecase, source)
        return reference_table(self._usecase, source)

    def _version(self, table: str) -> int | None:
        return None if self._versions is None else self._versions[table]

    def _visible(self, name: str, day: date) -> Iterator[_Key]:
        """Yield the partitions that the part of a day can see."""
        for source in self._sources[name]:
            if isinstance(source, EventSpec):
                for ago in range(-CLOCKS_AHEAD.days, source.history.days + 1):
                    yield source.name, day - timedelta(days=ago)
            else:
                yield source.name, None

    def _known_by(self, name: str, key: _Key, day: date) -> str:
        """Return a digest of the rows of a partition that were known by the end of a day; empty if there are none."""
        found = [of_day for known, of_day in self._known[name, key].items() if known <= day]
        count, total = (sum(values) for values in zip(*found, strict=True)) if found else (0, 0)
        return f"{count}:{total:x}" if count else ""

    def _read(self, name: str, keys: Iterable[_Key]) -> None:
        unread = {key for key in keys if (name, key) not in self._known}
        for source in self._sources[name]:
            mine = [key for key in unread if key[0] == source.name]
            if not mine:
                continue
            self._known |= {(name, key): {} for key in mine}
            if isinstance(source, EventSpec):
                columns = columns_named(source, [self._usecase.daily_sql[name]])
                wanted = ds.field("business_date").isin([day for _, day in mine])
                table = self._table(source)
                rows = self._lake.read(table, columns=columns, where=wanted, version=self._version(table))
                partition = "business_date"
            else:
                table, partition = self._table(source), "NULL::DATE"
                rows = self._lake.read(table, version=self._version(table))
            with query_duckdb(1) as db:
                db.register("rows", rows)
                for day, known_at, count, total in db.execute(
                    f"SELECT {partition}, min(known_at), count(*), sum(hash({', '.join(rows.column_names)})::HUGEINT) "
                    f"FROM rows GROUP BY {partition}, known_at::DATE"
                ).fetchall():
                    of_days = self._known[name, (source.name, day)]
                    before = of_days.get(day_of(known_at), (0, 0))
                    of_days[day_of(known_at)] = (before[0] + count, before[1] + int(total))


def look_for_parts(lake: Lake, usecase: UseCase, inputs: PartInputs, decision_dates: Sequence[date]) -> KeptDays:
    """Return the parts that the decisions of these dates can see, and those that have to be made."""
    days = daily_days(usecase, decision_dates)
    fresh = set(days)
    tables: dict[str, pa.Table] = {}
    origins: dict[str, dict[date, PartOrigin]] = {name: {} for name in usecase.daily_sql}
    for name in usecase.daily_sql:
        dataset = lake.dataset(daily_table(usecase, name))
        if dataset is None or not days:
            return KeptDays(DailyParts(), tuple(days))
        rows = dataset.to_table(filter=(ds.field("known_date") >= days[0]) & (ds.field("known_date") <= days[-1]))
        said = rows.filter(pc.is_valid(rows["origin"])).select(["known_date", "origin"]).to_pylist()
        kept = {row["known_date"]: msgspec.json.decode(row["origin"], type=PartOrigin) for row in said}
        for day in days:
            before = kept.get(day)
            now = inputs.origin(name, day, before) if before is not None else None
            if before is None or now is None or not _same(before, now):
                fresh.discard(day)
            elif before != now:
                origins[name][day] = now
        tables[name] = rows.filter(pc.is_null(rows["origin"])).drop_columns(["origin"])
    wanted = pa.array(sorted(fresh), pa.date32())
    used = {name: rows.filter(pc.is_in(rows["known_date"], wanted)) for name, rows in tables.items()}
    moved = {name: {day: one for day, one in of.items() if day in fresh} for name, of in origins.items()}
    return KeptDays(DailyParts(frozenset(fresh), used), tuple(d for d in days if d not in fresh), moved)


def keep_parts(lake: Lake, usecase: UseCase, inputs: PartInputs, kept: KeptDays, history: AsOfDatabase) -> None:
    """Write the parts that have been made, and what the others come from where that has changed.

    A part that another run writes at the same time is left to it: whoever reads one looks whether it is right.
    """
    for name in usecase.daily_sql:
        moved = kept.origins.get(name, {})
        days = sorted({*kept.missing, *moved})
        if not days:
            continue
        rows = history.daily_parts(days).tables[name]
        inputs.read(name, kept.missing)
        origins = [moved[day] if day in moved else inputs.origin(name, day) for day in days]
        said = [msgspec.json.encode(origin, order="sorted").decode() for origin in origins]
        heads = pa.table({"known_date": pa.array(days, pa.date32()), "origin": pa.array(said, pa.string())})
        try:
            lake.replace(
                daily_table(usecase, name),
                pa.concat_tables([heads, rows], promote_options="default"),
                "known_date",
                days,
            )
        except PartitionBusyError:
            continue


def _same(before: PartOrigin, now: PartOrigin) -> bool:
    """Return whether two parts were made of the same rows, in whatever files."""
    known = [{key: one.known for key, one in origin.inputs.items() if one.known} for origin in (before, now)]
    return before.definition == now.definition and known[0] == known[1]


def _text(key: _Key) -> str:
    name, day = key
    return name if day is None else f"{name}/{day}"


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]
