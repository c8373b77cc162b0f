"""A second way in: the objects that Kafka Connect's S3 sink writes, for a bank that lands with Connect already.

The sink names an object `<topic>+<partition>+<first offset>.json`, one message per line, anywhere below its folder. The
name is deterministic, so an object that was written again is the same object. Rows get the offsets that follow from
the name, the object's time as the broker's, and their positions in the same Delta commit, as those of a lander do.
Whoever writes to the folder may write anything: no object stops landing or takes others along.
"""

from __future__ import annotations

import gzip
import io
import logging
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import roll_to_weekday
from ml_assets.lake import Lake, PositionMovedError, landing_table
from ml_assets.landing.batch import Clock, Gap, in_landing_schema, landing_rows, portions
from ml_assets.landing.decode import Decoder, Records, in_short
from ml_assets.landing.kafka import app_id
from ml_assets.landing.schemas import DEAD_LETTER, GAP, LETTER_COLUMNS, PARTITIONED_BY
from ml_assets.landing.session import TopicReport
from ml_assets.spec import EventSpec

# Connect does not say which life of a topic an object is from.
EPOCH = "connect"
_HIGHEST_OFFSET, _HIGHEST_PARTITION = 10**13, 10**6
_LONGEST_LINE, _LARGEST_OBJECT = 16 << 20, 4 << 30  # bytes, unpacked
_MOST_LINES, _MOST_BYTES = 20_000, 32 << 20  # of one commit
_CLOCKS_DIFFER = timedelta(minutes=2)  # the store's and ours
_LOG = logging.getLogger(__name__)
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

    at_offset: int
    at: SinkObject
    modified_ms: int
    text: bytes

    def partition(self) -> int:
        return self.at.partition

    def offset(self) -> int:
        return self.at_offset

    def timestamp(self) -> tuple[int, int]:
        return (1, self.modified_ms)

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return self.text

    def headers(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Hole:
    """Offsets that were passed as a gap, and when."""

    first: int
    until: int
    noted_at: datetime

    def may_be_filled_by(self, one: SinkObject, until: int, modified: Callable[[SinkObject], int]) -> bool:
        """Return whether an object, whose offsets end before `until`, can hold some: it was not there before."""
        if until <= self.first or one.first >= self.until:
            return False
        return modified(one) >= int((self.noted_at - _CLOCKS_DIFFER).timestamp() * 1000)


class _UnreadableError(Exception):
    """An object cannot be read to its end; the text says why."""


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
    """Land the messages of objects that have not landed yet, and return one report per topic with objects.

    Offsets that no object holds are noted as gaps; an object that brings them later lands beside them, in an epoch of
    its own. An object that cannot be read, or whose name cannot be true, is a dead letter with its name and the reason,
    and is tried again only after it has been written again. Messages that another landing takes first are left to it.

    Raises:
        OSError, deltalake.exceptions.DeltaError: the store failed; run it again.
    """
    files, _ = fsspec.core.url_to_fs(root)
    reports = []
    for event in events:
        objects = sink_objects(root, event.topic)
        if objects:
            started = time.perf_counter()
            landing = _Landing(lake, event, files, clock, Decoder(event.contract, records))
            for partition, those in objects.items():
                landing.land(partition, those)
            landing.report.seconds = time.perf_counter() - started
            reports.append(landing.report)
    return reports


class _Landing:
    """Lands the objects of one topic."""

    def __init__(self, lake: Lake, event: EventSpec, files: Any, clock: Clock, decoder: Decoder) -> None:
        self._lake = lake
        self._event = event
        self._files = files
        self._clock: Clock = clock
        self._decoder = decoder
        self._appender = lake.appender(landing_table(event.topic), PARTITIONED_BY)
        self.report = TopicReport(event.topic)

    def land(self, partition: int, objects: Sequence[SinkObject]) -> None:
        """Land the objects of one partition, in the order of their offsets."""
        try:
            position, holes = self._position(EPOCH, partition), self._holes(partition)
            for one, following in zip(objects, [*objects[1:], None], strict=True):
                if one.first > _HIGHEST_OFFSET or partition > _HIGHEST_PARTITION:
                    self._quarantine(one, "its name says an offset or a partition that no topic has")
                elif following is None or following.first > position:
                    position = self._land_from(one, position)
                elif any(hole.may_be_filled_by(one, following.first, self._modified) for hole in holes):
                    self._land_late(one, holes)
        except PositionMovedError:
            return

    def _land_from(self, one: SinkObject, position: int) -> int:
        """Land the lines of an object from a position on, and return the position behind them."""
        lines = self._lines(one, lambda offset: offset >= position)
        return self._land(EPOCH, one, lines, position, "no object of the sink holds these offsets")

    def _land_late(self, one: SinkObject, holes: Sequence[_Hole]) -> None:
        epoch = f"{EPOCH}:{one.first}:{self._modified(one)}"
        position = self._position(epoch, one.partition)
        lines = self._lines(one, lambda o: o >= position and any(hole.first <= o < hole.until for hole in holes))
        self._land(epoch, one, lines, position, f"these offsets are in the epoch {EPOCH}")

    def _land(self, epoch: str, one: SinkObject, lines: Iterator[_Line], position: int, why: str) -> int:
        """Commit lines in portions that fit into memory, and return the position behind them."""
        while True:
            taken: list[_Line] = []
            size, trouble, is_end = 0, "", True
            try:
                for line in lines:
                    taken.append(line)
                    size += len(line.text)
                    if len(taken) >= _MOST_LINES or size >= _MOST_BYTES:
                        is_end = False
                        break
            except _UnreadableError as error:
                trouble = str(error)
            position = self._commit(epoch, one, taken, position, why)
            if trouble:
                self._quarantine(one, f"from offset {max(position, one.first)} on: {trouble}")
            if is_end:
                return position

    def _commit(self, epoch: str, one: SinkObject, lines: Sequence[_Line], position: int, why: str) -> int:
        gaps, expected = [], position
        for line in lines:
            if line.offset() > expected:
                gaps.append(Gap(one.partition, expected, line.offset(), why))
            expected = line.offset() + 1
        if not lines:
            return position
        rows = landing_rows(self._event, self._decoder, epoch, lines, gaps, clock=self._clock, now=datetime.now(UTC))
        pieces = portions(lines, gaps, rows.rows)
        if len(pieces) > 1:
            for some, _ in pieces:
                position = self._commit(epoch, one, cast("list[_Line]", some), position, why)
            return position
        application = app_id(self._event.topic, epoch, one.partition)
        self._appender.append(rows.rows, {application: position}, {application: expected})
        self.report.consumed += len(lines)
        self.report.landed += rows.events
        self.report.dead_lettered += rows.dead_letters
        self.report.gap_offsets += sum(gap.until - gap.first for gap in gaps)
        return expected

    def _quarantine(self, one: SinkObject, why: str) -> None:
        """Note an object as a dead letter, in an epoch of its own, once for each time that it was written."""
        partition = min(one.partition, _HIGHEST_PARTITION)
        epoch = f"{EPOCH} object:{one.first}:{self._modified(one)}"
        if self._position(epoch, partition):
            return
        reason = in_short(f"object {one.path.rpartition('/')[2]}: {why}")
        _LOG.error("topic %s: %s (%s)", self._event.topic, reason, one.path)
        now = datetime.now(UTC)
        columns = {
            "kind": DEAD_LETTER,
            LETTER_COLUMNS["reason"]: pa.array([reason]),
            LETTER_COLUMNS["value"]: one.path.encode(),
            "kafka_epoch": epoch,
            "kafka_partition": partition,
            "kafka_offset": 0,
            "known_at": now,
            "business_date": roll_to_weekday(now.date()),
        }
        application = app_id(self._event.topic, epoch, partition)
        self._appender.append(in_landing_schema(self._event, columns, now), {application: 0}, {application: 1})
        self.report.consumed += 1
        self.report.dead_lettered += 1

    def _position(self, epoch: str, partition: int) -> int:
        application = app_id(self._event.topic, epoch, partition)
        return self._appender.positions([application])[application]

    def _holes(self, partition: int) -> list[_Hole]:
        """Return the offsets of a partition that no object held when they were passed."""
        dataset = self._lake.dataset(landing_table(self._event.topic))
        if dataset is None:
            return []
        found = dataset.to_table(
            columns=["kafka_offset", "gap_until", "landed_at"],
            filter=(pc.field("kind") == GAP)
            & (pc.field("kafka_epoch") == EPOCH)
            & (pc.field("kafka_partition") == partition),
        )
        return [_Hole(*row.values()) for row in found.to_pylist()]

    def _modified(self, one: SinkObject) -> int:
        """Return when an object was written, in milliseconds since 1970."""
        modified = self._files.modified(one.path)
        if modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        return int(modified.timestamp() * 1000)

    def _lines(self, one: SinkObject, wanted: Callable[[int], bool]) -> Iterator[_Line]:
        """Yield the lines of an object whose offsets are wanted.

        Raises:
            _UnreadableError: the object is not what its name says, or larger than an object may be.
            OSError: the store failed.
        """
        modified, offset, unpacked = self._modified(one), one.first, 0
        with self._files.open(one.path, "rb") as raw:
            # A file of an object store knows no limit to a line: it is read through a buffer that does.
            stream = gzip.GzipFile(fileobj=raw) if one.path.endswith(".gz") else io.BufferedReader(raw)
            while True:
                try:
                    text = stream.readline(_LONGEST_LINE)
                except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                    raise _UnreadableError(f"it cannot be unpacked: {error}") from error
                if not text:
                    return
                unpacked += len(text)
                if unpacked > _LARGEST_OBJECT:
                    raise _UnreadableError(f"it is larger than {_LARGEST_OBJECT >> 30} GiB")
                if len(text) >= _LONGEST_LINE:
                    raise _UnreadableError(f"it has a line of more than {_LONGEST_LINE >> 20} MiB")
                if text := text.rstrip(b"\r\n"):
                    if wanted(offset):
                        yield _Line(offset, one, modified, text)
                    offset += 1


def _literal(text: str) -> str:
    """Return a text that a glob takes literally."""
    return re.sub(r"([*?\[])", r"[\1]", text)
