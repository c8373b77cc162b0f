"""What a sensor remembers from tick to tick: a struct, which Dagster keeps as JSON."""

from typing import TypeVar

import dagster as dg
import msgspec

S = TypeVar("S", bound=msgspec.Struct)


def remembered(context: dg.SensorEvaluationContext, kind: type[S]) -> S:
    """Return what the tick before kept; the struct's defaults if there was none."""
    return msgspec.json.decode(context.cursor, type=kind) if context.cursor else kind()


def remember(context: dg.SensorEvaluationContext, seen: msgspec.Struct) -> None:
    """Keep this for the next tick."""
    context.update_cursor(msgspec.json.encode(seen).decode())
