"""Dagster's event logs in PostgreSQL, which Dagster itself never makes smaller."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

_BATCH: Final = 20_000
# Events about assets, checks, partitions and the run as a whole are history, and small; the rest is logs of steps.
_DELETE: Final = text("""
    DELETE FROM event_logs WHERE id IN (
        SELECT event_logs.id
        FROM event_logs JOIN runs USING (run_id)
        WHERE runs.status IN ('SUCCESS', 'FAILURE', 'CANCELED')
            AND runs.update_timestamp < :before
            AND event_logs.timestamp < :before
            AND (dagster_event_type IS NULL
                 OR dagster_event_type NOT LIKE 'ASSET\\_%' AND dagster_event_type NOT LIKE 'PIPELINE\\_%'
                 AND dagster_event_type NOT LIKE 'FRESHNESS\\_%' AND dagster_event_type <> 'STEP_FAILURE')
        LIMIT :batch
    )
""")


def purge(url: str, *, older_than_days: int) -> int:
    """Delete step logs of runs that ended more than `older_than_days` days ago; return how many rows were deleted.

    It goes in batches, each a transaction, so that nobody waits long for a lock and a stop loses nothing.
    """
    before = (datetime.now(UTC) - timedelta(days=older_than_days)).replace(tzinfo=None)
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"), poolclass=NullPool)
    deleted = 0
    while True:
        with engine.begin() as connection:
            batch = connection.execute(_DELETE, {"before": before, "batch": _BATCH}).rowcount
        deleted += batch
        if batch < _BATCH:
            return deleted
