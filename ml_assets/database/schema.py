"""The Arrow schema of predictions, derived from the table: the same columns in PostgreSQL, Delta and memory."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
from sqlalchemy import Date, DateTime, Double, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from ml_assets.contracts import TIMESTAMP
from ml_assets.database.models import Prediction

_ARROW_TYPES: Final[dict[type, pa.DataType]] = {
    Text: pa.string(),
    Integer: pa.int32(),
    Double: pa.float64(),
    Date: pa.date32(),
    DateTime: TIMESTAMP,
    JSONB: pa.string(),  # the JSON document as text
}
_COLUMNS: Final = tuple(Prediction.__table__.columns)

PREDICTIONS_SCHEMA: Final = pa.schema(
    [pa.field(c.name, _ARROW_TYPES[type(c.type)], nullable=bool(c.nullable)) for c in _COLUMNS]
)
KEY: Final = tuple(c.name for c in _COLUMNS if c.primary_key)
PROVENANCE_COLUMNS: Final = tuple(c.name for c in _COLUMNS if c.info.get("provenance"))
VALUE_COLUMNS: Final = tuple(c.name for c in _COLUMNS if c.name not in {*KEY, *PROVENANCE_COLUMNS})
