"""Curation: of what landed for some dates, one row of each key that keeps the rules; the rest with a reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from ml_assets.lake import Lake, landing_table
from ml_assets.landing.dead_letters import waiting_dead_letters
from ml_assets.landing.schemas import EVENT, QUARANTINE, curated_schema, event_schema
from ml_assets.spec import EventSpec

# Which of several copies stays: the first that was known, and in a fixed order beyond that.
_FIRST_KNOWN = "known_at, broker_time, kafka_epoch, kafka_partition, kafka_offset"


@dataclass(frozen=True, slots=True)
class Curated:
    """Landed rows, sorted out: landed = curated + duplicates + quarantined that are not dead letters."""

    curated: pa.Table
    quarantine: pa.Table
    duplicates: int


def read_landed(lake: Lake, event: EventSpec, dates: Sequence[date]) -> tuple[pa.Table, pa.Table]:
    """Return the events and the dead letters of some business dates; empty where nothing has landed.

    A dead letter that has been replayed since is an event and no dead letter any more.
    """
    dataset = lake.dataset(landing_table(event.topic))
    schema = event_schema(event)
    if dataset is None:
        landed = schema.empty_table()
    else:
        wanted = (ds.field("kind") == EVENT) & ds.field("business_date").isin(list(dates))
        present = [name for name in schema.names if name in dataset.schema.names]
        rows = dataset.to_table(columns=present, filter=wanted)
        # A field that the contract has got since is empty in what landed before.
        landed = pa.table(
            [rows[f.name].cast(f.type) if f.name in present else pa.nulls(rows.num_rows, f.type) for f in schema],
            names=schema.names,
        )
    return landed, waiting_dead_letters(lake, event, dates)


def curate(event: EventSpec, landed: pa.Table, dead: pa.Table, *, threads: int = 0) -> Curated:
    """Return what becomes of landed rows and dead letters, in `curated_schema` and `QUARANTINE`, both sorted.

    A row that breaks several rules carries all reasons. A bad row is quarantined even if it is a copy.

    Raises:
        ValueError: a rule of the event is not valid SQL over its contract.
    """
    with duckdb.connect(":memory:", config={"threads": threads} if threads else {}) as db:
        db.execute("SET timezone = 'UTC'")
        db.register("landed", landed)
        db.register("dead", dead)
        try:
            db.execute(
                f"CREATE TABLE judged AS SELECT *, {_reasons(event)} AS _reason, "
                f"row_number() OVER (PARTITION BY {', '.join(event.key)}, _reason = '' ORDER BY {_FIRST_KNOWN}) "
                "AS _copy FROM landed"
            )
        except duckdb.Error as error:
            raise ValueError(f"event {event.name}: a quarantine rule failed: {error}") from error
        curated: pa.Table = db.sql(
            f"SELECT {', '.join(curated_schema(event).names)} FROM judged WHERE _reason = '' AND _copy = 1 "
            f"ORDER BY business_date, {', '.join(event.key)}"
        ).to_arrow_table()
        payload = ", ".join(f"'{name}', {name}" for name in event.contract.__struct_fields__)
        quarantine: pa.Table = db.sql(
            f"""
            SELECT _reason AS reason, json_object({payload})::VARCHAR AS payload, {_COORDINATES}, business_date
            FROM judged WHERE _reason <> ''
            UNION ALL
            SELECT 'not decodable: ' || reason, {_TEXT}, {_COORDINATES}, business_date FROM dead
            ORDER BY business_date, {_FIRST_KNOWN}
            """
        ).to_arrow_table()
        (duplicates,) = db.execute("SELECT count(*) FROM judged WHERE _reason = '' AND _copy > 1").fetchone() or (0,)
    return Curated(curated.cast(curated_schema(event)), quarantine.cast(QUARANTINE), int(duplicates))


_COORDINATES = "kafka_epoch, kafka_partition, kafka_offset, broker_time, known_at"
# Bytes that are not UTF-8 are shown in base64; nothing is lost either way.
_TEXT = "coalesce(try(decode(value)), 'base64:' || to_base64(value), '')"


def _reasons(event: EventSpec) -> str:
    """Return SQL for the reasons why a row is bad, joined; empty for a good one."""
    cases = [f"CASE WHEN {predicate} THEN {_quote(reason)} END" for reason, predicate in event.rules.items()]
    return f"concat_ws('; ', {', '.join(cases)})" if cases else "''"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
