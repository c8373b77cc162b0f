"""Landed events to curated ones, reference files to reference tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.lake import (
    Lake,
    curated_table,
    in_turn,
    quarantine_table,
    reference_quarantine_table,
    reference_table,
)
from ml_assets.lake.counts import counts_by
from ml_assets.landing.curate import NOT_DECODABLE, curate, read_landed
from ml_assets.landing.landed import landed_until
from ml_assets.landing.reference import read_reference
from ml_assets.spec import EventSpec, ReferenceSpec, UseCase

# Up to this many bad rows of a date stop nothing, whatever their share: a quiet date has few messages at all.
FEW = 5


@dataclass(frozen=True, slots=True)
class IngestionReport:
    """The result of curating some dates: `rows` kept, `duplicates` dropped, and quarantined rows by reason.

    `landed_at` is when the newest of what was read had landed. By date, `messages` kept their contract and
    `dead_letters` did not; of the messages, `rejected` broke a rule and `copies` were dropped. `unknown_codes` counts
    the rows kept by code that the event does not declare.
    """

    rows: int
    rows_by_date: dict[date, int]
    duplicates: int
    quarantined: dict[str, int]
    landed_at: datetime | None = None
    messages: dict[date, int] = field(default_factory=dict)
    dead_letters: dict[date, int] = field(default_factory=dict)
    rejected: dict[date, int] = field(default_factory=dict)
    copies: dict[date, int] = field(default_factory=dict)
    unknown_codes: dict[str, int] = field(default_factory=dict)

    @property
    def dead_letter_rates(self) -> dict[date, float]:
        """Share of the messages of each date that broke their contract, of the dates that have any such."""
        return {day: dead / (dead + self.messages.get(day, 0)) for day, dead in self.dead_letters.items()}

    @property
    def quarantine_rates(self) -> dict[date, float]:
        """Share of the messages of each date, copies left out, that broke a rule, of the dates that have any such.

        A message that broke its contract is in `dead_letter_rates`, and not here too.
        """
        return {day: bad / (bad + self.rows_by_date.get(day, 0)) for day, bad in self.rejected.items()}


def beyond(rates: Mapping[date, float], bad: Mapping[date, int], limit: float) -> dict[date, float]:
    """Return the rates of the dates on which more was bad than an event's limit lets through."""
    return {day: rate for day, rate in rates.items() if rate > limit and bad[day] > FEW}


def beyond_limits(lake: Lake, usecase: UseCase, event: EventSpec) -> frozenset[date]:
    """Return the business dates that were ingested with more bad rows than the limits of the event let through.

    The run that made them has failed, but they are in the tables. Rows are read only of dates that may be such.
    """
    kept = _rows_by_date(lake, curated_table(usecase, event))
    limit = min(event.max_quarantine_rate, event.max_dead_letter_rate)
    found = set()
    for day, bad in _rows_by_date(lake, quarantine_table(usecase, event)).items():
        if bad <= FEW or bad / (bad + kept.get(day, 0)) <= limit:
            continue
        dataset = lake.dataset(quarantine_table(usecase, event))
        assert dataset is not None  # noqa: S101 - its log has just been read
        reasons = dataset.to_table(columns=["reason"], filter=pc.field("business_date") == day)["reason"]
        dead = pc.sum(pc.starts_with(reasons, NOT_DECODABLE)).as_py() or 0
        good, rejected = kept.get(day, 0), bad - dead
        if beyond({day: rejected / max(1, rejected + good)}, {day: rejected}, event.max_quarantine_rate) or beyond(
            {day: dead / (bad + good)}, {day: dead}, event.max_dead_letter_rate
        ):
            found.add(day)
    return frozenset(found)


def _rows_by_date(lake: Lake, table: str) -> dict[date, int]:
    found: dict[date, int] = {}
    for file in lake.files(table, "business_date"):
        found[file.partition] = found.get(file.partition, 0) + file.rows
    return found


@dataclass(frozen=True, slots=True)
class ReferenceReport:
    """The result of loading a reference: good `rows`, or how many older rows were `kept` because no row is good.

    `bad_lines` counts lines by reason, `bad_files` tells why a file was left out.
    """

    rows: int
    kept: int
    bad_lines: dict[str, int]
    bad_files: dict[str, str]


def curate_dates(lake: Lake, usecase: UseCase, event: EventSpec, dates: Sequence[date]) -> IngestionReport:
    """Make the curated and the quarantine partitions of these business dates from what has landed for them.

    Raises:
        PartitionBusyError: other runs made some of the dates each time while this one did; they have seen more.
    """
    what = f"{curated_table(usecase, event)}, {min(dates)} to {max(dates)}"
    return in_turn(lambda: _curate_dates(lake, usecase, event, dates), what)


def _curate_dates(lake: Lake, usecase: UseCase, event: EventSpec, dates: Sequence[date]) -> IngestionReport:
    quarantine, curated = quarantine_table(usecase, event), curated_table(usecase, event)
    before = {name: lake.stand(name) for name in (quarantine, curated)}
    landed_at = landed_until(lake, event, dates)  # before reading: what lands in between has not been seen
    landed, dead = read_landed(lake, event, dates)
    result = curate(event, landed, dead)
    lake.replace(quarantine, result.quarantine, "business_date", dates, since=before[quarantine])
    lake.replace(curated, result.curated, "business_date", dates, since=before[curated])
    return IngestionReport(
        rows=result.curated.num_rows,
        rows_by_date=counts_by(result.curated, "business_date"),
        duplicates=sum(result.duplicates.values()),
        quarantined=counts_by(result.quarantine, "reason"),
        landed_at=landed_at,
        messages=counts_by(landed, "business_date"),
        dead_letters=counts_by(dead, "business_date"),
        rejected=result.rejected,
        copies=result.duplicates,
        unknown_codes=result.unknown_codes,
    )


def load_reference(lake: Lake, usecase: UseCase, reference: ReferenceSpec, root: str) -> ReferenceReport:
    """Make a reference table from all its dropped files; one that would stay the same is not written.

    Where no row is good, the table keeps the rows that it has: a broken file does not take away what was in force.

    Raises:
        FileNotFoundError: no file has been dropped.
    """
    rows, quarantine = read_reference(root, usecase.name, reference)
    if _differs(lake, reference_quarantine_table(usecase, reference), quarantine):
        lake.overwrite(reference_quarantine_table(usecase, reference), quarantine)
    before = lake.dataset(reference_table(usecase, reference))
    if (before is None or rows.num_rows) and _differs(lake, reference_table(usecase, reference), rows):
        lake.overwrite(reference_table(usecase, reference), rows)
    whole_files = quarantine.filter(pc.is_null(quarantine["line"]))
    return ReferenceReport(
        rows=rows.num_rows,
        kept=before.count_rows() if before is not None and not rows.num_rows else 0,
        bad_lines=counts_by(quarantine.filter(pc.is_valid(quarantine["line"])), "reason"),
        bad_files=dict(zip(whole_files["file"].to_pylist(), whole_files["reason"].to_pylist(), strict=True)),
    )


def _differs(lake: Lake, name: str, rows: pa.Table) -> bool:
    dataset = lake.dataset(name)
    return dataset is None or not dataset.to_table().equals(rows)


@dataclass(frozen=True, slots=True)
class NewReference:
    """What dropped files say and the lake does not: from when on something new is known, and whether more is bad."""

    known_from: datetime | None
    bad: bool


def new_reference(lake: Lake, usecase: UseCase, names: Sequence[str], root: str) -> NewReference:
    """Return what the dropped files of these references say and the lake does not.

    Raises:
        FileNotFoundError, OSError: as `read_reference`.
    """
    known: list[datetime] = []
    bad = False
    for reference in usecase.references:
        if reference.name in names:
            rows, quarantine = read_reference(root, usecase.name, reference)
            known_bad = reference_quarantine_table(usecase, reference)
            if quarantine.num_rows or lake.version(known_bad) is not None:
                bad = bad or _differs(lake, known_bad, quarantine)
            dataset = lake.dataset(reference_table(usecase, reference))
            if dataset is not None:
                rows = rows.join(dataset.to_table(), keys=rows.column_names, join_type="left anti")
            known += rows["known_at"].to_pylist()
    return NewReference(min(known, default=None), bad)
