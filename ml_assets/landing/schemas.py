"""The columns of landing, dead-letter, curated and quarantine tables: the contract's, and where a row came from."""

import pyarrow as pa

from ml_assets.contracts import TIMESTAMP, arrow_schema
from ml_assets.spec import EventSpec

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
        pa.field("landed_date", pa.date32()),
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


def landing_schema(event: EventSpec) -> pa.Schema:
    """Return the columns of a landing table: contract, Kafka coordinates, times and business date."""
    return pa.schema([*arrow_schema(event.contract), *COORDINATES, _BUSINESS_DATE])


def curated_schema(event: EventSpec) -> pa.Schema:
    """Return the columns of a curated table: those of the landing table, in the same order."""
    return landing_schema(event)
