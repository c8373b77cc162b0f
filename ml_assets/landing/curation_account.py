"""Is every landed event curated, quarantined or a copy? Asked of the tables, not of the code that made them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.duck import open_duckdb
from ml_assets.lake import Lake, curated_table, landing_table, quarantine_table
from ml_assets.landing.schemas import EVENT
from ml_assets.spec import EventSpec, UseCase

SQL = Path(__file__).with_name("sql") / "curation.sql"
_WHERE = ["business_date", "kafka_epoch", "kafka_partition", "kafka_offset"]
# Landed events must be curated within this time.
_PATIENCE = timedelta(days=1)
_LONGEST_WEEKEND = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class DateAccount:
    """The account of one business date, in landed events: landed = curated + quarantined + copies + unaccounted.

    `oldest` is when the first of the unaccounted ones landed. They wait for a day at most, from their date on; a date
    before the use case's first is `early` and not read, so they stay.
    """

    business_date: date
    landed: int
    curated: int
    quarantined: int
    copies: int
    unaccounted: int
    oldest: datetime | None
    early: bool

    def is_right(self, now: datetime) -> bool:
        """Return whether no event has been unaccounted for longer than allowed."""
        if self.early or self.oldest is None:
            return True
        # What lands on a weekend is curated on the Monday, and what is of the year 9999 on no day.
        opens = min(datetime.combine(self.business_date, time(), tzinfo=UTC), self.oldest + _LONGEST_WEEKEND)
        return now - max(self.oldest, opens) <= _PATIENCE


def account_of_curation(lake: Lake, usecase: UseCase, event: EventSpec, *, threads: int = 0) -> list[DateAccount]:
    """Return the account of each business date of which anything has landed for an event."""
    landing = lake.dataset(landing_table(event.topic))
    if landing is None:
        return []
    # A field that the contract has got since is in no row that landed before.
    identity = [name for name in event.identity if name in landing.schema.names]
    landed = landing.to_table(columns=[*_columns(identity), "landed_at"], filter=pc.field("kind") == EVENT)
    with open_duckdb(threads) as db:
        for name, table in (
            ("landed", landed),
            ("curated", _read(lake, curated_table(usecase, event), _columns(identity), landed)),
            ("quarantine", _read(lake, quarantine_table(usecase, event), [*_WHERE, "reason"], landed)),
        ):
            db.register(f"{name}_rows", table)
            key = ", ".join(f'"{column}"' for column in identity) if name != "quarantine" else "NULL"
            db.execute(f"CREATE VIEW {name} AS SELECT *, row({key})::VARCHAR AS key FROM {name}_rows")
        rows = db.execute(SQL.read_text(encoding="utf-8"), {"first": usecase.first_partition}).fetchall()
    return [DateAccount(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class CurationTotals:
    """The sums over dates: `not_yet` are unaccounted events of dates that are read, `early` those of dates before."""

    landed: int
    curated: int
    quarantined: int
    copies: int
    not_yet: int
    early: int


def totals(dates: Sequence[DateAccount]) -> CurationTotals:
    """Return the sums of the accounts of dates."""
    return CurationTotals(
        landed=sum(one.landed for one in dates),
        curated=sum(one.curated for one in dates),
        quarantined=sum(one.quarantined for one in dates),
        copies=sum(one.copies for one in dates),
        not_yet=sum(one.unaccounted for one in dates if not one.early),
        early=sum(one.unaccounted for one in dates if one.early),
    )


def _columns(identity: list[str]) -> list[str]:
    return list(dict.fromkeys([*_WHERE, *identity]))


def _read(lake: Lake, name: str, columns: list[str], landed: pa.Table) -> pa.Table:
    dataset = lake.dataset(name)
    if dataset is not None:
        return dataset.to_table(columns=columns)
    types = {field.name: field.type for field in landed.schema} | {"reason": pa.string()}
    return pa.schema([(column, types[column]) for column in columns]).empty_table()
