"""Curation: from what landed for some dates, one row per event that passes the rules; the rest with a reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.duck import in_words, query_duckdb
from ml_assets.errors import InputError
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.dead_letters import waiting_dead_letters
from ml_assets.landing.rules import legible, reasons_of_event
from ml_assets.landing.schemas import EVENT, QUARANTINE, curated_schema, event_schema
from ml_assets.spec import EventSpec

# Which of several copies stays: the first that was known, and in a fixed order beyond that.
_FIRST_KNOWN = "known_at, broker_time, kafka_epoch, kafka_partition, kafka_offset"
# How the reason of a dead letter begins in the quarantine.
NOT_DECODABLE = "not decodable: "
# How many unknown codes of a column are reported.
_CODES = 20


@dataclass(frozen=True, slots=True)
class Curated:
    """Landed rows, sorted out: landed = curated + duplicates + quarantined that are not dead letters, on each date.

    By date, `rejected` counts the quarantined rows that are not dead letters, and `duplicates` the copies that were
    dropped. `unknown_codes` counts the curated rows by column and code that the event does not declare, the most
    frequent ones.
    """

    curated: pa.Table
    quarantine: pa.Table
    duplicates: dict[date, int]
    rejected: dict[date, int]
    unknown_codes: dict[str, int]


def read_landed(lake: Lake, event: EventSpec, dates: Sequence[date]) -> tuple[pa.Table, pa.Table]:
    """Return the events and the dead letters of some business dates; empty where nothing has landed.

    A dead letter that has been replayed since is an event and no dead letter any more.
    """
    return read_events(lake, event, dates), waiting_dead_letters(lake, event, dates)


def read_events(lake: Lake, event: EventSpec, dates: Sequence[date]) -> pa.Table:
    """Return the events of some business dates, in `event_schema`; no rows where nothing has landed."""
    dataset = lake.dataset(landing_table(event.topic))
    schema = event_schema(event)
    if dataset is None:
        return schema.empty_table()
    wanted = (pc.field("kind") == EVENT) & pc.field("business_date").isin(list(dates))
    present = [name for name in schema.names if name in dataset.schema.names]
    rows = dataset.to_table(columns=present, filter=wanted)
    # A field that the contract has got since is empty in what landed before.
    return pa.table(
        [rows[f.name].cast(f.type) if f.name in present else pa.nulls(rows.num_rows, f.type) for f in schema],
        names=schema.names,
    )


def curate(event: EventSpec, landed: pa.Table, dead: pa.Table, *, threads: int = 0) -> Curated:
    """Return landed rows and dead letters, sorted out into `curated_schema` and `QUARANTINE`, both sorted.

    A row that breaks several rules carries all reasons. A bad row is quarantined even if it is a copy.

    Raises:
        ValueError: a rule of the event is not valid SQL over its contract.
    """
    identity = ", ".join(dict.fromkeys(["business_date", *event.identity]))
    with query_duckdb(threads) as db:
        db.register("landed", landed)
        db.register("dead", dead)
        try:
            db.execute(
                f"CREATE TEMP TABLE judged AS SELECT *, {reasons_of_event(event)} AS _reason, "
                # By date: what becomes of one may not depend on the others that are curated with it.
                f"row_number() OVER (PARTITION BY {identity}, _reason = '' ORDER BY {_FIRST_KNOWN}) "
                "AS _copy FROM landed"
            )
        except duckdb.Error as error:
            raise InputError(f"event {event.name}: a quarantine rule failed: {in_words(error)}") from error
        curated: pa.Table = db.sql(
            f"SELECT {', '.join(curated_schema(event).names)} FROM judged WHERE _reason = '' AND _copy = 1 "
            f"ORDER BY business_date, {', '.join(event.key)}, {_FIRST_KNOWN}"
        ).to_arrow_table()
        payload = ", ".join(f"'{name}', {name}" for name in event.contract.__struct_fields__)
        quarantine: pa.Table = db.sql(
            f"""
            SELECT _reason AS reason, json_object({payload})::VARCHAR AS payload, {_COORDINATES}, business_date
            FROM judged WHERE _reason <> ''
            UNION ALL
            SELECT {legible(f"'{NOT_DECODABLE}' || reason")}, {_TEXT}, {_COORDINATES}, business_date FROM dead
            ORDER BY business_date, {_FIRST_KNOWN}
            """
        ).to_arrow_table()
        duplicates = _by_date(db, "_reason = '' AND _copy > 1")
        rejected = _by_date(db, "_reason <> ''")
        unknown = {
            f"{column} {code}": count
            for column, known in event.codes.items()
            for code, count in db.execute(
                f"SELECT {column}, count(*) FROM judged WHERE _reason = '' AND _copy = 1 AND {column} IS NOT NULL "
                f"AND NOT list_contains(?, {column}) GROUP BY ALL ORDER BY count(*) DESC, {column} LIMIT {_CODES}",
                [sorted(known)],
            ).fetchall()
        }
    return Curated(curated.cast(curated_schema(event)), quarantine.cast(QUARANTINE), duplicates, rejected, unknown)


def _by_date(db: duckdb.DuckDBPyConnection, where: str) -> dict[date, int]:
    """Return how many judged rows of each date meet a condition."""
    return dict(
        db.execute(f"SELECT business_date, count(*) FROM judged WHERE {where} GROUP BY ALL ORDER BY ALL").fetchall()
    )


_COORDINATES = "kafka_epoch, kafka_partition, kafka_offset, broker_time, known_at"
# Bytes that are not UTF-8 are shown in base64; nothing is lost either way.
_TEXT = "coalesce(try(decode(value)), 'base64:' || to_base64(value), '')"
