"""The SEC's files played as they were published: cns_fails day by day, with the gaps that the files have.

Until there are enough outcomes for a first model, only features, labels and attempts to train are made, each time that
files were published. From then on each business day has its morning. Nobody acts: outcomes are those of the files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from ml_assets.database.models import Estimate
from ml_assets.database.monitoring import rows_between
from ml_assets.errors import InputError
from ml_assets.features.days import weekdays
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.learning.training_set import TrainingSetError
from ml_assets.lifecycle.features import compute_features, mature_labels
from ml_assets.local.rehearsal.mornings import BY_SCHEDULE, MORNING, Morning, Player, Say, Training
from ml_assets.local.simulation.messages import Message
from ml_assets.local.simulation.sec_files import COLUMNS
from ml_assets.local.simulation.sec_ftd import Replay, read_file
from ml_assets.lot import lot
from ml_assets.monitoring.estimate import ESTIMATES_SCHEMA
from ml_assets.platform import Platform
from ml_assets.spec import SplitSpec, UseCase
from ml_assets.usecases.cns_fails.publication import Period

# Business days that are played after the last publication.
_AFTER_LAST = 3


@dataclass(frozen=True, slots=True)
class FilesPlan:
    """How files are played: on the morning after every `retrain_every`-th publication the schedule retrains.

    Between publications there is nothing new to learn from. `share` of the securities is taken. While nothing has been
    published for longer than `dense` mornings, only each `sparse`-th is played. `split` stands in for that of the use
    case. `candidate` is the model that is trained beside the rule, as it is written, without search of its parameters.
    """

    retrain_every: int = 2
    share: float = 1.0
    dense: int = 40
    sparse: int = 20
    split: SplitSpec | None = None
    candidate: str = "lightgbm"

    def usecase(self, usecase: UseCase) -> UseCase:
        """Return the use case as it is played."""
        candidates = [one for one in usecase.candidates if one.is_rule or one.name == self.candidate]
        return replace(
            usecase,
            candidates=tuple(replace(one, search=None) for one in candidates),
            split=self.split or usecase.split,
        )


@dataclass(frozen=True)
class Played:
    """What came of it: the mornings, in vain attempts to train before the first (by date), estimates, and gaps.

    `estimates` is in `ESTIMATES_SCHEMA`. A gap is the last settlement date before it and the first after it.
    """

    usecase: UseCase
    mornings: Sequence[Morning]
    attempts: Mapping[date, str]
    first: Training
    estimates: pa.Table
    gaps: Sequence[tuple[date, date]]
    published: Sequence[date]
    rows: int
    seconds: Mapping[str, float] = field(default_factory=dict)


def play_files(
    plan: FilesPlan, replay: Replay, usecase: UseCase, platform: Platform, kafka: KafkaConnection, say: Say
) -> Played:
    """Play the files on an empty platform and broker.

    Raises:
        InputError: they are too few for a first model.
    """
    return _FilesPlayer(plan, replay, plan.usecase(usecase), platform, kafka, say).play()


class _FilesPlayer(Player):
    def __init__(
        self, plan: FilesPlan, replay: Replay, usecase: UseCase, platform: Platform, kafka: KafkaConnection, say: Say
    ) -> None:
        super().__init__(usecase, platform, kafka, say)
        self.plan, self.replay = plan, replay
        self.published = sorted({edition.published.date() for edition in replay.editions})
        self.attempts: dict[date, str] = {}
        self.publications = 0

    def play(self) -> Played:
        first, began = self._first_model()
        # The first morning has the decisions of the day before, for which there was no model yet.
        for number, day in enumerate(self._days(began), start=1):
            self.morning(number, self.usecase.calendar.previous(day), day)
        estimates = rows_between(
            self.engine, Estimate, self.usecase.name, self.mornings[0].date, self.mornings[-1].date
        )
        return Played(
            self.usecase, self.mornings, self.attempts, first,
            pa.Table.from_pylist([{name: row[name] for name in ESTIMATES_SCHEMA.names} for row in estimates],
                                 schema=ESTIMATES_SCHEMA),
            gaps_of(self.replay, self.usecase), self.published, self.replay.message_count, self.seconds,
        )  # fmt: skip

    def _first_model(self) -> tuple[Training, date]:
        """Land file by file, and try to train each time, until there is a champion; return it, and of which date."""
        calendar = self.usecase.calendar
        done = self.replay.periods[0].first
        self.begin(datetime.combine(done, time(), UTC))
        for published in self.published:
            today = calendar.next(published)
            self.land(datetime.combine(today, MORNING, UTC))
            days = [day for day in weekdays(done, today) if calendar.is_business_day(day)]
            with self.timed("history"):
                compute_features(self.lake, self.usecase, days, threads=self.threads)
                known = [*weekdays(done, today), today]
                mature_labels(self.lake, self.usecase, known, threads=self.threads)
            done = today
            try:
                trained = self.train(-1, today, "the first model", self.usecase)
            except TrainingSetError as too_few:
                self.attempts[today] = str(too_few)
                self.say(f"{today}  no model yet: {too_few}")
                continue
            if trained.outcome in ("promoted", "awaiting approval"):
                self.say(f"{today}  version {trained.version}, the first model: {trained.outcome}")
                return trained, today
            self.attempts[today] = ", ".join(one.name for one in trained.verdict.failures)
            self.say(f"{today}  no champion yet, the gate: {self.attempts[today]}")
        raise InputError("the files are too few for a first model: " + "; ".join([*self.attempts.values()][-1:]))

    def _days(self, began: date) -> Iterator[date]:
        """Yield the business days with a morning; of a long time without a publication only some."""
        calendar = self.usecase.calendar
        last = calendar.add(self.published[-1], _AFTER_LAST)
        day, silent = began, 0
        while day <= last:
            silent = 0 if self._published_before(day) else silent + 1
            near = any(day <= one <= calendar.add(day, _AFTER_LAST) for one in self.published)
            if silent <= self.plan.dense or near or silent % self.plan.sparse == 0:
                yield day
            day = calendar.next(day)

    def _published_before(self, day: date) -> bool:
        """Return whether files were published since the business day before, so that its morning has them first."""
        return any(self.usecase.calendar.previous(day) <= one < day for one in self.published)

    def happened(self, first: datetime, end: datetime) -> Iterable[Message]:
        for message in self.replay.between(first, end):
            if self.plan.share >= 1 or lot("rehearsal", message.key.decode()) < self.plan.share:
                yield message

    def trainings(self, morning: Morning) -> Iterator[Training]:
        try:
            if morning.decision is not None and morning.decision.outcome == "retrain":
                yield from super().trainings(morning)
            elif morning.day > 1 and self._published_before(morning.date):
                self.publications += 1
                if self.publications % self.plan.retrain_every == 0:
                    yield self.train(morning.day, morning.date, BY_SCHEDULE, self.usecase)
        except TrainingSetError as refused:
            morning.untrained = str(refused)


def gaps_of(replay: Replay, usecase: UseCase) -> list[tuple[date, date]]:
    """Return the gaps of the files: the last business day that one covers, and the first that the next one does."""
    calendar, found = usecase.calendar, []
    for before, after in pairwise(replay.periods):
        if before.next != after:
            found.append((calendar.previous(before.next.first), calendar.next(calendar.previous(after.first))))
    return found


def with_last_half_month_later(replay: Replay, years: int, folder: Path, usecase: UseCase) -> Path:
    """Write into a folder the files of the first file's year, and the last of them once more, some years later.

    Its settlement dates become the business days of that half-month, in their order; all else is as published.
    """
    first = replay.editions[0].period.year
    kept = [edition for edition in replay.editions if edition.period.year == first]
    for edition in kept:
        shutil.copy(edition.path, folder / edition.path.name)
    later = kept[-1].period._replace(year=first + years)
    rows = [fields for _, fields in read_file(kept[-1].path) if len(fields) == len(COLUMNS)]
    days = [day for day in usecase.calendar.between(later.first, later.next.first) if Period.of(day) == later]
    dates = dict(zip(sorted({fields[0] for fields in rows}), days, strict=False))
    lines = ["|".join(COLUMNS)]
    lines += ["|".join([f"{dates[fields[0]]:%Y%m%d}", *fields[1:]]) for fields in rows if fields[0] in dates]
    quantity = sum(int(line.split("|")[3]) for line in lines[1:])
    lines += [f"Trailer record count {len(lines) - 1}", f"Trailer total quantity of shares {quantity}"]
    name = f"cnsfails{later.year}{later.month:02}{later.half}.txt"
    (folder / name).write_bytes("\r\n".join([*lines, ""]).encode("latin-1"))
    return folder
