"""What was produced, by the broker's own word, and whether the lake holds exactly that."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
from confluent_kafka import KafkaError, Producer

from ml_assets.contracts import roll_to_weekday
from ml_assets.lake import Lake, curated_table, quarantine_table
from ml_assets.landing.accounting import account
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.schemas import DEAD_LETTER, EVENT, GAP, REPLAY
from ml_assets.lifecycle.ingestion import curate_dates
from ml_assets.spec import EventSpec
from ml_assets_tests.faults import adapter
from ml_assets_tests.faults.messages import Planned, usecase_of

Coordinates = tuple[str, int, int]
"""Epoch, partition, offset."""


@dataclass
class Produced:
    """What the broker has acknowledged of one topic, by coordinates, over all its lives."""

    topic: str
    messages: dict[Coordinates, Planned] = field(default_factory=dict)

    def ends(self) -> dict[tuple[str, int], int]:
        """Return the offset after the last message, by epoch and partition."""
        ends: dict[tuple[str, int], int] = defaultdict(int)
        for epoch, partition, offset in self.messages:
            ends[epoch, partition] = max(ends[epoch, partition], offset + 1)
        return dict(ends)


class Sender:
    """Sends planned messages and keeps where each went. Idempotent: a broker that restarts makes no copy."""

    def __init__(self, kafka: KafkaConnection, epochs: dict[str, str], produced: dict[str, Produced]) -> None:
        self._epochs = epochs
        self._produced = produced
        self._failures: list[str] = []
        self._producer = Producer(
            kafka.config(
                enable_idempotence=True,
                linger_ms=5,
                message_max_bytes=4 * 1024 * 1024,
                message_timeout_ms=120_000,
                log_level=0,
            )
        )

    def send(self, messages: Iterable[Planned], chance: random.Random, *, seconds: float = 0.0) -> None:
        """Send the messages in bursts over about so many seconds; returns before the broker has all."""
        batch = list(messages)
        bursts = max(1, round(seconds / 0.1))
        cuts = sorted(chance.randrange(len(batch) + 1) for _ in range(bursts - 1))
        for start, end in zip([0, *cuts], [*cuts, len(batch)], strict=True):
            for planned in batch[start:end]:
                self._send(planned)
            self._producer.poll(0)
            if bursts > 1:
                time.sleep(seconds / bursts)

    def flush(self) -> None:
        """Wait until the broker has acknowledged everything."""
        left = self._producer.flush(90)
        assert not left, f"the broker has not acknowledged {left} messages"
        assert not self._failures, f"the broker refused messages: {self._failures[:3]}"

    def _send(self, planned: Planned) -> None:
        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                self._failures.append(f"{planned.topic}: {error.str()}")
                return
            at = (self._epochs[planned.topic], message.partition(), message.offset())
            self._produced[planned.topic].messages[at] = planned

        self._producer.produce(
            planned.topic, planned.value, planned.key, timestamp=planned.timestamp_ms, on_delivery=delivered
        )


def has_landed(lake: Lake, produced: Produced) -> bool:
    """Return whether the lake's own account has reached the end of every partition."""
    wanted = produced.ends()
    by_epoch: dict[str, list[int]] = defaultdict(list)
    for epoch, partition in wanted:
        by_epoch[epoch].append(partition)
    return all(
        adapter.positions(lake, produced.topic, epoch, partitions)
        == {partition: wanted[epoch, partition] for partition in partitions}
        for epoch, partitions in by_epoch.items()
    )


def verify(lake: Lake, event: EventSpec, produced: Produced) -> None:
    """Check that produced = landed + dead-lettered, each once, by coordinates and by content.

    Raises:
        AssertionError: it is not so; with the first coordinates.
    """
    events, letters = (adapter.rows(lake, event, kind) for kind in (EVENT, DEAD_LETTER))
    landed_at, dead_at = _coordinates(events), _coordinates(letters)
    _each_once(landed_at, "landed rows")
    _each_once(dead_at, "dead letters")
    both = set(landed_at) & set(dead_at)
    assert not both, f"{event.topic}: landed and dead-lettered at once: {_some(both)}"
    found, wanted = set(landed_at) | set(dead_at), set(produced.messages)
    assert not wanted - found, f"{event.topic}: lost {len(wanted - found)} of {len(wanted)}: {_some(wanted - found)}"
    assert not found - wanted, f"{event.topic}: landed what was never produced: {_some(found - wanted)}"
    others = adapter.rows(lake, event, GAP).num_rows + adapter.rows(lake, event, REPLAY).num_rows
    assert not others, f"{event.topic}: {others} rows are neither event nor dead letter"
    wrong = [part for part in account(lake, event) if not part.is_right]
    assert not wrong, f"{event.topic}: the account is wrong: {wrong}"
    for at, row in zip(landed_at, events.to_pylist(), strict=True):
        _same_event(at, produced.messages[at], row)
    for at, row in zip(dead_at, letters.to_pylist(), strict=True):
        planned = produced.messages[at]
        assert planned.event is None, (
            f"{event.topic}: {at} keeps the contract and is a dead letter: {row['letter_reason']}"
        )
        assert (row["letter_key"], row["letter_value"]) == (planned.key, planned.value), (
            f"{event.topic}: {at} has other bytes"
        )
        assert row["letter_reason"], f"{event.topic}: {at} is a dead letter without a reason"


def verify_curated(lake: Lake, clean: Lake, events: Sequence[EventSpec], dates: Sequence[date]) -> None:
    """Check that what comes downstream of both lakes is the same; `clean` holds the fault-free run."""
    usecase = usecase_of(tuple(events))
    for event in events:
        for each in (lake, clean):
            curate_dates(each, usecase, event, dates)
        for name in (curated_table(usecase, event), quarantine_table(usecase, event)):
            ours, theirs = (_sorted(each.read(name)) for each in (lake, clean))
            assert ours.equals(theirs), (
                f"{name}: {ours.num_rows} rows differ from the {theirs.num_rows} of the fault-free run"
            )


def dates_of(produced: Iterable[Produced]) -> list[date]:
    """Return every business date that the messages touch, those of dead letters included."""
    dates = set()
    for planned in (message for each in produced for message in each.messages.values()):
        moments = [datetime.fromtimestamp(planned.timestamp_ms / 1000, UTC)]
        if planned.event is not None:
            moments.append(datetime.fromisoformat(planned.event["event_time"]))
        dates |= {roll_to_weekday(moment.date()) for moment in moments}
    return sorted(dates)


def _same_event(at: Coordinates, planned: Planned, row: dict[str, Any]) -> None:
    assert planned.event is not None, f"{planned.topic}: {at} breaks the contract and has landed"
    wanted = planned.event | {
        "event_time": datetime.fromisoformat(planned.event["event_time"]),
        "broker_time": datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=planned.timestamp_ms),
    }
    other = {name: (row[name], value) for name, value in wanted.items() if row[name] != value}
    assert not other, f"{planned.topic}: {at} has landed with other content (landed, sent): {str(other)[:300]}"


def _coordinates(rows: pa.Table) -> list[Coordinates]:
    columns = (rows[name].to_pylist() for name in ("kafka_epoch", "kafka_partition", "kafka_offset"))
    return list(zip(*columns, strict=True))


def _each_once(found: Sequence[Coordinates], what: str) -> None:
    doubled = {at: count for at, count in Counter(found).items() if count > 1}
    assert not doubled, f"{what} {len(found)}, distinct {len(set(found))}: {_some(doubled)}"


def _sorted(rows: pa.Table) -> pa.Table:
    order = [("kafka_epoch", "ascending"), ("kafka_partition", "ascending"), ("kafka_offset", "ascending")]
    return rows.sort_by(order).combine_chunks()


def _some(coordinates: Iterable[Coordinates]) -> str:
    return ", ".join(f"partition {p} offset {o} of {e}" for e, p, o in sorted(coordinates)[:5])
