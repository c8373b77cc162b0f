"""What every row must keep to be used, whatever its contract: rules by the type of a column, as SQL predicates.

A contract says which type a field has. That a text can be stored, indexed and shown, that a number can be added up and
that a date can be meant is the same for all contracts, events and reference rows alike. A row that breaks a rule is
quarantined with the reason; the rows beside it go on.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import msgspec
import pyarrow as pa

from ml_assets.contracts import LONGEST_TEXT, arrow_schema
from ml_assets.spec import EventSpec, ReferenceSpec

# Whole numbers up to here are exact as a double, and sums and products of them are finite.
LARGEST_NUMBER = 1e15
# And so are quotients, logarithms and deviations of those from here on; nothing that is counted or priced is smaller.
SMALLEST_NUMBER = 1e-12
# Dates of securities reach far; beyond these years a date is a slip or a placeholder such as 9999-12-31.
FIRST_DATE, LAST_DATE = date(1900, 1, 1), date(2199, 12, 31)
# In characters: a reason may quote what a producer sent.
LONGEST_REASON = 200

# Control characters, and those that are not seen but change how the text around them is read: marks of direction, of
# zero width, and the separators of lines. Joiners are letters of some scripts and stay.
_UNSEEN = r"[\p{Cc}\x{061C}\x{200B}\x{200E}\x{200F}\x{2028}-\x{202E}\x{2060}\x{2066}-\x{2069}\x{FEFF}]"


def reasons_of_event(event: EventSpec) -> str:
    """Return SQL over landed rows for the reasons why a row is bad, joined by '; '; empty for a good one."""
    tolerance = event.clock_tolerance // timedelta(seconds=1)
    times = {
        f"event_time is before {event.earliest}": f"event_time < TIMESTAMPTZ '{event.earliest} 00:00:00+00'",
        "event_time is later than it was known": f"event_time > known_at + INTERVAL {tolerance} SECOND",
    }
    return _joined({**event.rules, **dict(_by_type(event.contract, event.key)), **times})


def reasons_of_reference(reference: ReferenceSpec) -> str:
    """Return the same for rows of a reference."""
    return _joined({**reference.rules, **dict(_by_type(reference.contract, reference.key))})


def legible(reason: str) -> str:
    """Return SQL that cuts the SQL text `reason` to `LONGEST_REASON` and shows what is not seen as a question mark."""
    shown = f"regexp_replace({reason}, {_quote(_UNSEEN)}, '?', 'g')"
    cut = f"left({shown}, {LONGEST_REASON - 3}) || '...'"
    return f"CASE WHEN length({shown}) > {LONGEST_REASON} THEN {cut} ELSE {shown} END"


def _by_type(contract: type[msgspec.Struct], key: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield reason and predicate of the rules that the types of a contract's columns ask for."""
    for field in arrow_schema(contract):
        column = f'"{field.name}"'
        if pa.types.is_string(field.type):
            yield f"{field.name} is longer than {LONGEST_TEXT} characters", f"length({column}) > {LONGEST_TEXT}"
            yield f"{field.name} has characters that cannot be seen", f"regexp_matches({column}, {_quote(_UNSEEN)})"
            if field.name in key:
                yield f"{field.name} is empty", f"regexp_full_match({column}, '\\s*')"
                yield f"{field.name} begins or ends with a blank", f"regexp_matches({column}, '^\\s+\\S|\\S\\s+$')"
        elif pa.types.is_floating(field.type):
            yield f"{field.name} is not a finite number", f"NOT isfinite({column})"
            yield f"{field.name} is beyond {LARGEST_NUMBER:g}", _beyond(column)
            yield (
                f"{field.name} is closer to 0 than {SMALLEST_NUMBER:g}",
                f"{column} <> 0 AND abs({column}) < {SMALLEST_NUMBER:g}",
            )
        elif pa.types.is_integer(field.type):
            yield f"{field.name} is beyond {LARGEST_NUMBER:g}", _beyond(column)
        elif pa.types.is_date(field.type) or (pa.types.is_timestamp(field.type) and field.name != "event_time"):
            yield (
                f"{field.name} is not in the years {FIRST_DATE.year} to {LAST_DATE.year}",
                f"{column}::DATE NOT BETWEEN DATE '{FIRST_DATE}' AND DATE '{LAST_DATE}'",
            )


def _beyond(column: str) -> str:
    # NaN and infinity have a reason of their own.
    return f"isfinite({column}::DOUBLE) AND {column} NOT BETWEEN {-LARGEST_NUMBER:.0f} AND {LARGEST_NUMBER:.0f}"


def _joined(rules: Mapping[str, Any]) -> str:
    cases = [f"CASE WHEN {predicate} THEN {_quote(reason)} END" for reason, predicate in rules.items()]
    return f"concat_ws('; ', {', '.join(cases)})" if cases else "''"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
