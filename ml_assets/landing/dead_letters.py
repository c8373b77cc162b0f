"""Dead letters: messages that broke their contract when they came. After a fix they are replayed, each once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import Event
from ml_assets.lake import Lake, PositionMovedError, landing_table
from ml_assets.landing.batch import (
    MOST_PARTITIONS,
    business_dates,
    columns_of,
    fitting_columns,
    in_landing_schema,
    later,
    not_understood,
)
from ml_assets.landing.decode import Decoder, Records, RefusedError
from ml_assets.landing.schemas import (
    DEAD_LETTER,
    DEAD_LETTERS,
    EVENT,
    LETTER_COLUMNS,
    PARTITIONED_BY,
    REPLAY,
)
from ml_assets.spec import EventSpec

_WHERE = ("kafka_epoch", "kafka_partition", "kafka_offset")
_ORDER = [(name, "ascending") for name in ("broker_time", *_WHERE)]
_TO_DECODE = ("value", "business_date")
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The result of a replay of dead letters. `dates` are the business dates that have changed."""

    topic: str
    landed: int
    refused: dict[str, int]
    dates: tuple[date, ...]


def waiting_dead_letters(lake: Lake, event: EventSpec, dates: Sequence[date] | None = None) -> pa.Table:
    """Return the dead letters, of some dates or all, that have not been replayed: `DEAD_LETTERS`, oldest first."""
    dataset = lake.dataset(landing_table(event.topic))
    if dataset is None:
        return DEAD_LETTERS.empty_table()

    def of(kind: str, columns: Sequence[str]) -> pa.Table:
        wanted = pc.field("kind") == kind
        if dates is not None:
            wanted = wanted & pc.field("business_date").isin(list(dates))
        return dataset.to_table(columns=list(columns), filter=wanted)

    letters = of(DEAD_LETTER, [LETTER_COLUMNS.get(name, name) for name in DEAD_LETTERS.names])
    letters, replayed = letters.rename_columns(DEAD_LETTERS.names), of(REPLAY, _WHERE)
    if replayed.num_rows:
        letters = letters.append_column("row", pa.array(range(letters.num_rows), pa.int64()))
        rows = letters.select([*_WHERE, "row"]).join(replayed, keys=list(_WHERE), join_type="left anti")["row"]
        letters = letters.take(rows).drop_columns(["row"])
    return letters.sort_by(_ORDER).cast(DEAD_LETTERS)


def replay(
    lake: Lake, event: EventSpec, *, records: Records | None = None, now: datetime | None = None
) -> ReplayReport:
    """Decode the waiting dead letters with the present contract, and land those that pass it.

    A row lands with its own coordinates and is known from now on, not from when the message came. Event and mark of
    a letter are one commit, fenced like that of a lander: of two replays at once, one lands a letter.

    Raises:
        OSError, deltalake.exceptions.DeltaError: the store failed; nothing is half done, try again.
    """
    appender = lake.appender(landing_table(event.topic), PARTITIONED_BY)
    application = f"replay:{event.topic}"
    landed, failures = 0, 0
    dates: set[date] = set()
    while failures < _ATTEMPTS:
        before = appender.positions([application])
        letters = waiting_dead_letters(lake, event)
        rows, good, refused, is_all = _decode_again(event, letters, records, now or datetime.now(UTC))
        if good.num_rows:
            try:
                # The moment tells one replay from another, so that nobody takes another's commit for his own.
                appender.append(rows, before, {application: max(time.time_ns(), before[application] + 1)})
            except PositionMovedError:
                failures += 1
                continue  # another replay was faster: look again what still waits
        landed, failures = landed + good.num_rows, 0
        dates |= set(pc.unique(rows["business_date"].combine_chunks()).to_pylist())
        if is_all:
            return ReplayReport(event.topic, landed, refused, tuple(sorted(dates)))
    raise OSError(f"topic {event.topic}: other replays were faster {_ATTEMPTS} times; let them end, then replay again")


def _decode_again(
    event: EventSpec, letters: pa.Table, records: Records | None, now: datetime
) -> tuple[pa.Table, pa.Table, dict[str, int], bool]:
    """Return rows of events and replay marks, the letters that they come from, and the others by reason.

    What may be in one commit ends at `MOST_PARTITIONS`; the last of the four is whether those were all letters.
    """
    decoder = Decoder(event.contract, records)
    events: list[Event] = []
    good: list[int] = []
    refused: dict[str, int] = {}
    lie_in: set[tuple[str, date]] = set()
    for number, (value, marked) in enumerate(zip(*(letters[c].to_pylist() for c in _TO_DECODE), strict=True)):
        try:
            decoded = decoder.decode(value)
            columns = fitting_columns(event.contract, [decoded])
            known = later(letters["known_at"].slice(number, 1), now)
            (day,) = business_dates(event, [decoded], columns["event_time"], known, now).to_pylist()
        except OSError:
            raise
        except Exception as error:  # as in the lander: one letter is not the end of the others' replay
            reason = error if isinstance(error, RefusedError) else not_understood(error)
            refused[str(reason)] = refused.get(str(reason), 0) + 1
            continue
        lies_in = {(EVENT, day), (REPLAY, marked)}
        if events and len(lie_in | lies_in) > MOST_PARTITIONS:
            break
        lie_in |= lies_in
        events.append(decoded)
        good.append(number)
    else:
        number = letters.num_rows
    kept = letters.take(pa.array(good, pa.int64()))
    payload = columns_of(event.contract, events)
    known = later(kept["known_at"], now)
    origin = {name: kept[name] for name in (*_WHERE, "broker_time")}
    landed = {
        "kind": EVENT,
        **payload,
        **origin,
        "known_at": known,
        "business_date": business_dates(event, events, payload["event_time"], known, now),
    }
    marks = {"kind": REPLAY, **origin, "known_at": known, "business_date": kept["business_date"]}
    rows = pa.concat_tables([in_landing_schema(event, columns, now) for columns in (landed, marks)])
    return rows, kept, refused, number == letters.num_rows
