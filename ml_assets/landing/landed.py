"""What has landed, as fingerprints that a sensor compares: never rows, only the log of the tables."""

from collections.abc import Sequence
from datetime import date

from ml_assets.lake import Lake, dead_letters_table, landing_table
from ml_assets.spec import EventSpec

Landed = dict[str, dict[str, str]]


def landed_fingerprint(lake: Lake, events: Sequence[EventSpec]) -> Landed:
    """Return by topic and business date what tells whether something has landed since: files, rows, newest write."""
    found: Landed = {}
    for event in events:
        days: dict[str, str] = {}
        for table, column in (
            (landing_table(event.topic), "business_date"),
            (dead_letters_table(event.topic), "landed_date"),
        ):
            for day, state in lake.partitions(table, column).items():
                seen = f"{state.files}:{state.rows}:{state.modified_at:%Y%m%dT%H%M%S.%f}"
                days[day.isoformat()] = f"{days[day.isoformat()]}+{seen}" if day.isoformat() in days else seen
        found[event.topic] = days
    return found


def changed_dates(before: Landed, after: Landed) -> list[date]:
    """Return the business dates of which something in any topic has changed, in order."""
    changed = {
        day
        for topic, days in after.items()
        for day, fingerprint in days.items()
        if before.get(topic, {}).get(day) != fingerprint
    }
    return sorted(date.fromisoformat(day) for day in changed)
