"""What only the lake knows of the feeds, as of a time: how late events came, and how many were left out, by date."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import pyarrow.dataset as ds

from ml_assets.duck import query_duckdb
from ml_assets.features.days import day_end
from ml_assets.lake import Lake, curated_table, landing_table, quarantine_table
from ml_assets.lake.counts import most_frequent
from ml_assets.landing.curate import NOT_DECODABLE
from ml_assets.landing.schemas import EVENT
from ml_assets.lifecycle.ingestion import beyond
from ml_assets.spec import EventSpec, UseCase

# Reasons of an event that are told; the rarer ones are added up.
_REASONS = 10
FEED_COLUMNS: dict[str, type] = {
    "source": str,
    "business_date": date,
    "events": int,
    "late": int,
    "first_known_at": datetime,
    "last_known_at": datetime,
    "median_delay_minutes": float,
    "p95_delay_minutes": float,
}
QUALITY_COLUMNS: dict[str, type] = {
    "source": str,
    "business_date": date,
    "kept": int,
    "rejected": int,
    "dead_letters": int,
    "beyond_limits": bool,
}
REASON_COLUMNS: dict[str, type] = {"source": str, "reason": str, "rows": int}


def feed_rows(
    lake: Lake, usecase: UseCase, dates: Sequence[date], as_of: datetime, *, threads: int = 0
) -> list[dict[str, Any]]:
    """Return a row for each event of the use case and each of the business dates, in `FEED_COLUMNS`.

    Counted are the events that were known by `as_of`; the delay is from the event to when it was known. `late` counts
    those known after the end of their business date. A date without any event has a row of zeros.
    """
    found = []
    for event in usecase.events:
        by_date = {row["business_date"]: row for row in _delays(lake, event, dates, as_of, threads)}
        for day in dates:
            nothing = dict.fromkeys(FEED_COLUMNS) | {"business_date": day, "events": 0, "late": 0}
            found.append({**by_date.get(day, nothing), "source": event.name})
    return found


def quality_rows(
    lake: Lake, usecase: UseCase, dates: Sequence[date], as_of: datetime
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows that were kept and left out, by event and date, and why, by event: two lists of rows.

    The first are in `QUALITY_COLUMNS`: `rejected` rows broke a rule, `dead_letters` their contract, and a date is
    beyond the limits if ingestion would have stopped at it. The second are in `REASON_COLUMNS`. What was known after
    `as_of` does not count; what has been mended since is not there any more.
    """
    found: list[dict[str, Any]] = []
    reasons: list[dict[str, Any]] = []
    for event in usecase.events:
        kept = _by_date(lake, curated_table(usecase, event), dates, as_of)
        bad = _left_out(lake, quarantine_table(usecase, event), dates, as_of)
        for day in dates:
            dead = sum(n for (at, reason), n in bad.items() if at == day and reason.startswith(NOT_DECODABLE))
            rejected = sum(n for (at, _), n in bad.items() if at == day) - dead
            good = kept.get(day, 0)
            over = [
                beyond({day: number / max(1, number + others)}, {day: number}, limit)
                for number, others, limit in (
                    (rejected, good, event.max_quarantine_rate),
                    (dead, good + rejected, event.max_dead_letter_rate),
                )
            ]
            found.append(
                {
                    "source": event.name, "business_date": day, "kept": good, "rejected": rejected,
                    "dead_letters": dead, "beyond_limits": any(over),
                }
            )  # fmt: skip
        by_reason: dict[str, int] = {}
        for (_, reason), number in bad.items():
            by_reason[reason] = by_reason.get(reason, 0) + number
        reasons += [
            {"source": event.name, "reason": reason, "rows": number}
            for reason, number in most_frequent(by_reason, _REASONS).items()
        ]
    return found, reasons


def _delays(lake: Lake, event: EventSpec, dates: Sequence[date], as_of: datetime, threads: int) -> list[dict[str, Any]]:
    if lake.version(landing_table(event.topic)) is None:
        return []
    wanted = (ds.field("kind") == EVENT) & ds.field("business_date").isin(list(dates)) & (ds.field("known_at") <= as_of)
    landed = lake.read(landing_table(event.topic), columns=["business_date", "known_at", "event_time"], where=wanted)
    with query_duckdb(threads) as db:
        db.register("landed", landed)
        db.execute("CREATE TEMP TABLE dates (business_date DATE, day_end TIMESTAMPTZ)")
        if dates:
            db.executemany("INSERT INTO dates VALUES (?, ?)", [(day, day_end(day)) for day in dates])
        rows = db.execute(
            """
            SELECT
                business_date,
                count(*) AS events,
                count(*) FILTER (WHERE known_at > day_end) AS late,
                min(known_at) AS first_known_at,
                max(known_at) AS last_known_at,
                quantile_cont(epoch(known_at) - epoch(event_time), 0.5) / 60 AS median_delay_minutes,
                quantile_cont(epoch(known_at) - epoch(event_time), 0.95) / 60 AS p95_delay_minutes
            FROM landed JOIN dates USING (business_date)
            GROUP BY business_date
            """
        )
        names = [column[0] for column in rows.description or ()]
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


def _by_date(lake: Lake, table: str, dates: Sequence[date], as_of: datetime) -> dict[date, int]:
    return {day: n for (day,), n in _counts(lake, table, ["business_date"], dates, as_of).items()}


def _left_out(lake: Lake, table: str, dates: Sequence[date], as_of: datetime) -> dict[tuple[date, str], int]:
    found = _counts(lake, table, ["business_date", "reason"], dates, as_of)
    return {(day, reason): n for (day, reason), n in found.items()}


def _counts(
    lake: Lake, table: str, by: list[str], dates: Sequence[date], as_of: datetime
) -> dict[tuple[Any, ...], int]:
    dataset = lake.dataset(table)
    if dataset is None:
        return {}
    wanted = ds.field("business_date").isin(list(dates)) & (ds.field("known_at") <= as_of)
    counted = dataset.to_table(columns=by, filter=wanted).group_by(by).aggregate([([], "count_all")])
    return {tuple(row[name] for name in by): row["count_all"] for row in counted.to_pylist()}
