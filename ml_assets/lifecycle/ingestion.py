"""Landed events to curated ones, reference files to reference tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from ml_assets.lake import Lake, curated_table, quarantine_table, reference_quarantine_table, reference_table
from ml_assets.lake.counts import counts_by
from ml_assets.landing.curate import curate, read_landed
from ml_assets.landing.landed import landed_until
from ml_assets.landing.reference import read_reference
from ml_assets.spec import EventSpec, ReferenceSpec, UseCase


@dataclass(frozen=True, slots=True)
class IngestionReport:
    """What became of the rows of some dates: `rows` kept, `duplicates` dropped, and quarantined rows by reason.

    `landed_at` is when the newest of what was read had landed. By date, `messages` kept their contract and
    `dead_letters` did not.
    """

    rows: int
    rows_by_date: dict[date, int]
    duplicates: int
    quarantined: dict[str, int]
    landed_at: datetime | None = None
    messages: dict[date, int] = field(default_factory=dict)
    dead_letters: dict[date, int] = field(default_factory=dict)

    @property
    def dead_letter_rates(self) -> dict[date, float]:
        """Share of the messages of each date that broke their contract, of the dates that have any such."""
        return {day: dead / (dead + self.messages.get(day, 0)) for day, dead in self.dead_letters.items()}

    @property
    def quarantine_rate(self) -> float:
        """Share of all rows but duplicates that were quarantined; 0 where nothing came."""
        bad = sum(self.quarantined.values())
        return bad / (self.rows + bad) if bad else 0.0


def curate_dates(lake: Lake, usecase: UseCase, event: EventSpec, dates: Sequence[date]) -> IngestionReport:
    """Make the curated and the quarantine partitions of these business dates from what has landed for them."""
    landed_at = landed_until(lake, event, dates)  # before reading: what lands in between has not been seen
    landed, dead = read_landed(lake, event, dates)
    result = curate(event, landed, dead)
    lake.replace(quarantine_table(usecase, event), result.quarantine, "business_date", dates)
    lake.replace(curated_table(usecase, event), result.curated, "business_date", dates)
    return IngestionReport(
        rows=result.curated.num_rows,
        rows_by_date=counts_by(result.curated, "business_date"),
        duplicates=result.duplicates,
        quarantined=counts_by(result.quarantine, "reason"),
        landed_at=landed_at,
        messages=counts_by(landed, "business_date"),
        dead_letters=counts_by(dead, "business_date"),
    )


def load_reference(lake: Lake, usecase: UseCase, reference: ReferenceSpec, root: str) -> IngestionReport:
    """Make a reference table from all its dropped files; one that would stay the same is not written.

    Raises:
        FileNotFoundError: no file has been dropped.
    """
    rows, quarantine = read_reference(root, usecase.name, reference)
    for name, found in (
        (reference_table(usecase, reference), rows),
        (reference_quarantine_table(usecase, reference), quarantine),
    ):
        dataset = lake.dataset(name)
        if dataset is None or not dataset.to_table().equals(found):
            lake.overwrite(name, found)
    return IngestionReport(
        rows=rows.num_rows, rows_by_date={}, duplicates=0, quarantined=counts_by(quarantine, "reason")
    )


def new_reference_known_from(lake: Lake, usecase: UseCase, names: Sequence[str], root: str) -> datetime | None:
    """Return from when on something is known that the dropped files of these references say and the lake does not.

    None if all of it is in the lake.

    Raises:
        FileNotFoundError, ml_assets.landing.reference.ReferenceFileError: as `read_reference`.
    """
    known: list[datetime] = []
    for reference in usecase.references:
        if reference.name in names:
            rows, _ = read_reference(root, usecase.name, reference)
            dataset = lake.dataset(reference_table(usecase, reference))
            if dataset is not None:
                rows = rows.join(dataset.to_table(), keys=rows.column_names, join_type="left anti")
            known += rows["known_at"].to_pylist()
    return min(known, default=None)
