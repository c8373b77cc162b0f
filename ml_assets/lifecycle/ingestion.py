"""Landed events to curated ones, reference files to reference tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from ml_assets.lake import Lake, curated_table, quarantine_table, reference_table
from ml_assets.lake.counts import counts_by
from ml_assets.landing.curate import curate, read_landed
from ml_assets.landing.landed import landed_until
from ml_assets.landing.reference import read_reference
from ml_assets.spec import EventSpec, ReferenceSpec, UseCase


@dataclass(frozen=True, slots=True)
class IngestionReport:
    """What became of the rows of some dates: `rows` kept, `duplicates` dropped, and quarantined rows by reason.

    `landed_at` is when the newest of what was read had landed.
    """

    rows: int
    rows_by_date: dict[date, int]
    duplicates: int
    quarantined: dict[str, int]
    landed_at: datetime | None = None

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
    )


def load_reference(lake: Lake, usecase: UseCase, reference: ReferenceSpec, root: str) -> IngestionReport:
    """Make a reference table from all its dropped files; one that would stay the same is not written.

    Raises:
        FileNotFoundError: no file has been dropped.
    """
    rows, quarantine = read_reference(root, usecase.name, reference)
    name = reference_table(usecase, reference)
    dataset = lake.dataset(name)
    if dataset is None or not dataset.to_table().equals(rows):
        lake.overwrite(name, rows)
    return IngestionReport(
        rows=rows.num_rows, rows_by_date={}, duplicates=0, quarantined=counts_by(quarantine, "reason")
    )
