"""A second way in: the objects that Kafka Connect's S3 sink writes, for a bank that lands with Connect already.

The sink names an object `<topic>+<partition>+<first offset>.json`, one message a line, anywhere below its folder. The
name is deterministic, so an object that was written again is the same object. Rows get the offsets that follow from
the name, the object's time as the broker's, and their positions in the same Delta commit, as those of a lander do.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fsspec

from ml_assets.lake import Appender, Lake, PositionMovedError, landing_table
from ml_assets.landing.batch import Clock, Gap, landing_rows
from ml_assets.landing.decode import Decoder, Records
from ml_assets.landing.kafka import app_id
from ml_assets.landing.lander import TopicReport
from ml_assets.landing.schemas import PARTITIONED_BY
from ml_assets.spec import EventSpec

# Connect does not say which life of a topic an object is from.
EPOCH = "connect"
_NAME = re.compile(r"(?P<topic>[^/]+)\+(?P<partition>\d+)\+(?P<offset>\d+)\.json(\.gz)?$")


@dataclass(frozen=True, slots=True)
class SinkObject:
    """An object of the sink: which messages it holds."""

    path: str
    partition: int
    first: int


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of an object as a message."""

    number: int
    at: SinkObject
    modified_ms: int
    text: bytes

    def partition(self) -> int:
        return self.at.partition

    def offset(self) -> int:
        return self.at.first + self.number

    def timestamp(self) -> tuple[int, int]:
        return (1, self.modified_ms)

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return self.text

    def headers(self) -> None:
        return None


def sink_objects(root: str, topic: str) -> dict[int, list[SinkObject]]:
    """Return the objects of a topic below a folder or prefix, by partition, in the order of their offsets."""
    files, base = fsspec.core.url_to_fs(root)
    found: dict[int, list[SinkObject]] = defaultdict(list)
    for path in files.glob(f"{base.rstrip('/')}/**/{_literal(topic)}+*.json*"):
        named = _NAME.search(str(path))
        if named and named["topic"] == topic:
            one = SinkObject(str(path), int(named["partition"]), int(named["offset"]))
            found[one.partition].append(one)
    return {partition: sorted(those, key=lambda o: o.first) for partition, those in sorted(found.items())}


def land_objects(
    lake: Lake,
    events: Sequence[EventSpec],
    root: str,
    *,
    clock: Clock = "live",
    records: Records | None = None,
) -> list[TopicReport]:
    """Land the objects that have not been landed yet, each in one commit, and return a report a topic that has any.

    Offsets that no object holds are noted as gaps. An object that another landing takes first is left to it.

    Raises:
        OSError, deltalake.exceptions.DeltaError: an object cannot be read or the store failed; run it again.
    """
    files, _ = fsspec.core.url_to_fs(root)
    reports = []
    for event in events:
        objects = sink_objects(root, event.topic)
        if not objects:
            continue
        report, started = TopicReport(event.topic), time.perf_counter()
        decoder = Decoder(event.contract, records)
        appender = lake.appender(landing_table(event.topic), PARTITIONED_BY)
        ids = {partition: app_id(event.topic, EPOCH, partition) for partition in objects}
        positions = appender.positions(ids.values())
        for partition, those in objects.items():
            position = positions[ids[partition]]
            for one in those:
                if one.first < position:
                    continue  # landed: an object is landed as a whole
                lines = list(_lines(files, one))
                try:
                    position = _land(event, decoder, appender, one, lines, position, clock, report)
                except PositionMovedError:
                    break
        report.seconds = time.perf_counter() - started
        reports.append(report)
    return reports


def _land(
    event: EventSpec,
    decoder: Decoder,
    appender: Appender,
    one: SinkObject,
    lines: Sequence[_Line],
    position: int,
    clock: Clock,
    report: TopicReport,
) -> int:
    """Commit an object and return the position behind it."""
    gaps = [Gap(one.partition, position, one.first, "no object of the sink holds these offsets")]
    gaps = gaps if one.first > position else []
    rows = landing_rows(event, decoder, EPOCH, lines, gaps, clock=clock, now=datetime.now(UTC))
    application, end = app_id(event.topic, EPOCH, one.partition), one.first + len(lines)
    appender.append(rows.rows, {application: position}, {application: end})
    report.consumed += len(lines)
    report.landed += rows.events
    report.dead_lettered += rows.dead_letters
    report.gap_offsets += sum(gap.until - gap.first for gap in gaps)
    return end


def _lines(files: Any, one: SinkObject) -> Iterator[_Line]:
    modified = files.modified(one.path)
    if modified.tzinfo is None:
        modified = modified.replace(tzinfo=UTC)
    milliseconds = int(modified.timestamp() * 1000)
    with files.open(one.path, "rb", compression="infer") as stream:
        texts = (line.rstrip(b"\r\n") for line in stream)
        for number, text in enumerate(text for text in texts if text):
            yield _Line(number, one, milliseconds, text)


def _literal(text: str) -> str:
    """Return a text that a glob takes literally."""
    return re.sub(r"([*?\[])", r"[\1]", text)
