"""The columns of landing, curated and quarantine tables: the contract's, and where a row came from.

A landing table holds everything that was consumed of a topic, told apart by `kind`: so one Delta commit takes
events, dead letters and offsets together, and nothing can be in two places or in none.
"""

from typing import Final

import pyarrow as pa

from ml_assets.contracts import TIMESTAMP, arrow_schema
from ml_assets.errors import InputError
from ml_assets.spec import EventSpec

EVENT: Final = "event"
DEAD_LETTER: Final = "dead_letter"
# A dead letter that has become an event since; beside it, with its coordinates and business date.
REPLAY: Final = "replay"
# What a dead letter or a gap says beside its coordinates. Contracts have fields of these names too (a status has a
# reason), so that in the landing table they have others.
LETTER_COLUMNS: Final = {"reason": "letter_reason", "key": "letter_key", "value": "letter_value"}
# Offsets without a message, [kafka_offset, gap_until): compaction, transaction markers, or a loss that was accepted.
GAP: Final = "gap"

COORDINATES = pa.schema(
    [
        pa.field("kafka_epoch", pa.string()),
        pa.field("kafka_partition", pa.int32()),
        pa.field("kafka_offset", pa.int64()),
        pa.field("broker_time", TIMESTAMP),
        pa.field("known_at", TIMESTAMP),
    ]
)
DEAD_LETTERS = pa.schema(
    [
        pa.field("reason", pa.string()),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        *COORDINATES,
        pa.field("business_date", pa.date32()),
    ]
)
QUARANTINE = pa.schema(
    [
        pa.field("reason", pa.string()),
        pa.field("payload", pa.string()),
        *COORDINATES,
        pa.field("business_date", pa.date32()),
    ]
)
_BUSINESS_DATE = pa.field("business_date", pa.date32())
PARTITIONED_BY: Final = ("kind", "business_date")


def event_schema(event: EventSpec) -> pa.Schema:
    """Return the columns of landed events: contract, Kafka coordinates, times and business date."""
    return pa.schema([*arrow_schema(event.contract), *COORDINATES, _BUSINESS_DATE])


def landing_schema(event: EventSpec) -> pa.Schema:
    """Return the columns of a landing table, all nullable: each kind of row leaves those of the others empty.

    `landed_at` is when the row was committed, by the clock of the lander. `schema_version` is the version that the
    message itself declared, if it did. `business_date` of a dead letter or gap is the date on which it came.

    Raises:
        ValueError: a field of the contract has the name of a column that the table has itself.
    """
    contract = [field.with_nullable(True) for field in arrow_schema(event.contract)]
    schema = pa.schema(
        [
            pa.field("kind", pa.string()),
            # First, since Delta keeps the range of values in a file only for its first 32 columns.
            *COORDINATES,
            pa.field("landed_at", TIMESTAMP),
            _BUSINESS_DATE,
            *contract,
            pa.field("schema_version", pa.int32()),
            pa.field(LETTER_COLUMNS["reason"], pa.string()),
            pa.field(LETTER_COLUMNS["key"], pa.binary()),
            pa.field(LETTER_COLUMNS["value"], pa.binary()),
            pa.field("gap_until", pa.int64()),
        ]
    )
    if taken := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise InputError(
            f"event {event.name}: its contract has the fields {', '.join(taken)}, which a landing table has itself; "
            'give them other names, and keep those of the messages with msgspec.field(name="...")'
        )
    return schema


def curated_schema(event: EventSpec) -> pa.Schema:
    """Return the columns of a curated table: those of landed events, in the same order."""
    return event_schema(event)
