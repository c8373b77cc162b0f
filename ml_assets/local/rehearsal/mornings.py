"""Mornings of a use case, as they would be live: what has happened since is landed, and all that is due is done.

A morning is 07:05 UTC of a business day. The stages, the broker, the lake, the registry and the ledger are those of
production. What happens, and what people do about it, is told by who plays: a simulated year, or files of the past.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import TypeVar

from ml_assets.database.models import Drift, Estimate
from ml_assets.database.monitoring import rows_between
from ml_assets.database.promotions import Actor, open_request
from ml_assets.features.days import day_end, weekdays
from ml_assets.landing.heartbeat import Heartbeats
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.landed import Landed, look
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.learning.gate import Verdict
from ml_assets.learning.score_checks import ScoresRefusedError
from ml_assets.lifecycle.drift import measure_drift
from ml_assets.lifecycle.evaluation import evaluate_candidates
from ml_assets.lifecycle.features import compute_features, mature_labels
from ml_assets.lifecycle.horizons import horizons_of
from ml_assets.lifecycle.ingestion import curate_dates
from ml_assets.lifecycle.monitoring import decide_retraining, join_live_outcomes, measure_estimates, measure_performance
from ml_assets.lifecycle.promotion import approve, promote_challenger
from ml_assets.lifecycle.registration import register_challenger
from ml_assets.lifecycle.scoring import ScoringReport, score_dates
from ml_assets.lifecycle.shadow import judge_and_roll_back, score_shadow
from ml_assets.lifecycle.training import RunOrigin, TrainingWindow, assemble_training_set, train_candidate
from ml_assets.local.simulation.messages import Message
from ml_assets.monitoring.retraining import Decision
from ml_assets.platform import Platform
from ml_assets.spec import Candidate, UseCase

MORNING = time(7, 5)
APPROVER = Actor.person("approver of the rehearsal")
BY_SCHEDULE = "the schedule"
_CHUNK = 20  # dates that are curated in one go
Say = Callable[[str], None]
_One = TypeVar("_One")
_Other = TypeVar("_Other")


@dataclass(frozen=True)
class Training:
    """A retraining: why, which version came of it, what the gate said, and what was done."""

    day: int
    why: str
    version: int
    run_id: str
    verdict: Verdict
    outcome: str


@dataclass
class Morning:
    """What a morning brought: `drifted` is what is drift since today, by kind and name, with what was said of it.

    `estimated` and `realised` are the PR-AUC of the day before. `untrained` is why a training was not made.
    """

    day: int
    date: date
    champion: int
    drifted: dict[str, str] = field(default_factory=dict)
    decision: Decision | None = None
    trainings: list[Training] = field(default_factory=list)
    approved: int | None = None
    shadow: str = ""
    refused: str = ""
    untrained: str = ""
    acted: int = 0
    estimated: float | None = None
    realised: float | None = None


class Player:
    """Plays mornings on an empty platform and broker; a subclass says what happens and what people do."""

    def __init__(self, usecase: UseCase, platform: Platform, kafka: KafkaConnection, say: Say) -> None:
        self.usecase, self.say = usecase, say
        self.lake, self.registry, self.engine = platform.lake, platform.registry, platform.engine
        self.threads = platform.settings.threads
        self.origin = RunOrigin(platform.code, "rehearsal")
        self.kafka, self.beats = kafka, Heartbeats(self.lake, kafka.admin(), "live")
        self.landed, self.until = Landed(), datetime.min.replace(tzinfo=UTC)
        self.mornings: list[Morning] = []
        self.seconds: dict[str, float] = {}

    def happened(self, first: datetime, end: datetime) -> Iterable[Message]:
        """Return the messages that were published in a span of time."""
        raise NotImplementedError

    def act(self, scored: ScoringReport, morning: Morning) -> None:
        """Do what people do about the new lists; by default nothing."""

    def trainings(self, morning: Morning) -> Iterator[Training]:
        """Train what is to be trained of a morning: by default what the rule of monitoring asks for."""
        if morning.decision is not None and morning.decision.outcome == "retrain":
            since = morning.decision.numbers.get("since")
            change = date.fromisoformat(since) if since else None
            yield self.train(morning.day, morning.date, morning.decision.reason, self.usecase, change)

    def begin(self, at: datetime) -> None:
        """Make the topics; nothing has happened before a time."""
        ensure_topics(self.kafka, [event.topic for event in self.usecase.events])
        self.until = at

    def land(self, now: datetime) -> None:
        """Land what has happened, and curate the dates that it changes."""
        with self.timed("landing"):
            produce(self.kafka, self.happened(self.until, now))
            Lander(self.lake, self.usecase.events, self.kafka, clock="replay").land_available()
            # The rehearsal's clock: everything that had been published by now is there.
            for event in self.usecase.events:
                self.beats.note(event, 2, {0: now, 1: now})
            self.until = now
            self.landed, change = look(self.lake, self.usecase.events, self.landed)
        with self.timed("curation"):
            for event in self.usecase.events:
                for first in range(0, len(change.dates), _CHUNK):
                    curate_dates(self.lake, self.usecase, event, change.dates[first : first + _CHUNK])

    def morning(self, number: int, before: date, today: date) -> Morning:
        """Play the morning of a business day; the business day before was `before`, played unless `number` is 0."""
        began = clock.perf_counter()
        now = datetime.combine(today, MORNING, UTC)
        morning = Morning(number, today, 0)
        self.land(now)
        dates = [before, today] if number else [today]
        # Of the day before only what became known after its morning is new.
        late = horizons_of(self.lake, self.usecase).known_between(
            datetime.combine(before, MORNING, UTC), day_end(before)
        )
        known = [*([before] if late else []), *list(weekdays(before, today))[1:], today]
        with self.timed("features"):
            compute_features(self.lake, self.usecase, dates, until=now, threads=self.threads)
        if (request := open_request(self.engine, self.usecase.name)) is not None:
            approve(self.registry, self.engine, self.usecase, APPROVER, reason="the gate passed")
            morning.approved = request.to_version
        scored, _ = at_once(lambda: self._score(dates, morning), lambda: self._label(known))
        self.act(scored, morning)
        self._monitor(morning, dates, known)
        self._tell(morning, before)
        morning.trainings += self.trainings(morning)
        self.mornings.append(morning)
        self.say(_line(morning, clock.perf_counter() - began))
        return morning

    def _monitor(self, morning: Morning, dates: Sequence[date], known: Sequence[date]) -> None:
        """Do what the assets of monitoring do, and note what they say."""
        today = morning.date
        with self.timed("outcomes"):
            join_live_outcomes(self.lake, self.engine, self.usecase, sorted({*dates[:-1], *known}))
        at_once(lambda: self._measure_drift(dates), lambda: self._measure_performance(morning))
        with self.timed("decision"):
            morning.decision = decide_retraining(
                self.lake, self.registry, self.engine, self.usecase, [today], "rehearsal"
            )[0]

    def _label(self, known: Sequence[date]) -> None:
        with self.timed("labels"):
            mature_labels(self.lake, self.usecase, known, threads=self.threads)

    def _measure_drift(self, dates: Sequence[date]) -> None:
        with self.timed("drift"):
            measure_drift(self.lake, self.registry, self.engine, self.usecase, dates, threads=self.threads)

    def _measure_performance(self, morning: Morning) -> None:
        """Measure the performance of the champion, and of the challenger in its shadow.

        The table of performance is made once for each window of dates: nothing that is decided rests on it.
        """
        today = morning.date
        with self.timed("performance"):
            if morning.day % self.usecase.monitoring.window_days == 0:
                measure_performance(self.lake, self.registry, self.engine, self.usecase, [today], threads=self.threads)
            else:
                measure_estimates(self.lake, self.engine, self.usecase, today)
        with self.timed("shadow"):
            told = judge_and_roll_back(
                self.lake, self.registry, self.engine, self.usecase, today, Actor.run("rehearsal")
            )
            morning.shadow = told.verdict.says if told.verdict else ""

    def _score(self, dates: Sequence[date], morning: Morning) -> ScoringReport:
        """Score, the shadow too; what is refused is kept for the record, and the morning says so."""
        with self.timed("scoring"):
            scored = self._score_champion(dates, morning)
            score_shadow(self.lake, self.registry, self.engine, self.usecase, dates, self.origin, threads=self.threads)
            return scored

    def _score_champion(self, dates: Sequence[date], morning: Morning) -> ScoringReport:
        despite = ""
        while True:
            try:
                scored = score_dates(
                    self.lake, self.registry, self.engine, self.usecase, dates, self.origin, threads=self.threads,
                    despite=despite,
                )  # fmt: skip
            except ScoresRefusedError as refused:
                despite = morning.refused = str(refused)
            else:
                morning.champion = scored.champion.version
                return scored

    def train(self, number: int, day: date, why: str, usecase: UseCase, since: date | None = None) -> Training:
        """Train as of a day, evaluate, register, and ask for the promotion if the gate passes.

        With `since`, a change, it learns from the dates since then alone.

        Raises:
            ml_assets.learning.training_set.TrainingSetError: there is too little to learn from.
        """
        actor = Actor.run("rehearsal")
        with self.timed("training"):
            assemble_training_set(self.lake, usecase, day, TrainingWindow(since=since))
            self._fit(usecase, day)
        with self.timed("evaluation"):
            report = evaluate_candidates(self.lake, self.registry, self.engine, usecase, day, threads=self.threads)
            version = register_challenger(self.registry, self.engine, usecase, day, actor)
            promotion = promote_challenger(self.registry, self.engine, usecase, actor)
        return Training(number, why, version.version, version.run_id, report.verdict, promotion.outcome)

    def _fit(self, usecase: UseCase, day: date) -> None:
        """Train the candidates, at the same time, as runs of their assets would."""

        def fit(candidate: Candidate) -> None:
            train_candidate(self.lake, self.registry, usecase, candidate, day, self.origin, threads=self.threads)

        with ThreadPoolExecutor(len(usecase.candidates)) as beside:
            list(beside.map(fit, usecase.candidates))

    def _tell(self, morning: Morning, before: date) -> None:
        """Note what is drift since today, and how the estimate of the day before did, if its outcomes are known."""
        rows = rows_between(
            self.engine, Drift, self.usecase.name, before if morning.day else morning.date, morning.date
        )
        morning.drifted = {f"{row['kind']} {row['name']}": row["why"] for row in rows if row["drifted"]}
        for row in rows_between(self.engine, Estimate, self.usecase.name, before, before):
            if row["metric"] == "pr_auc":
                morning.estimated, morning.realised = row["estimated"], row["realised"]

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of a block to those of a stage."""
        began = clock.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + clock.perf_counter() - began


def at_once(one: Callable[[], _One], other: Callable[[], _Other]) -> tuple[_One, _Other]:
    """Do two things that do not depend on each other at the same time, as runs of their assets would be."""
    with ThreadPoolExecutor(1) as beside:
        second = beside.submit(other)
        return one(), second.result()


def _line(morning: Morning, seconds: float) -> str:
    """Return a morning in a line."""
    said = [f"{morning.date}  champion {morning.champion}" + (f", acted on {morning.acted}" if morning.acted else "")]
    if morning.drifted:
        said.append("drift: " + ", ".join(sorted(morning.drifted)[:4]))
    if morning.decision and morning.decision.numbers["breaches"]:
        said.append(f"{morning.decision.outcome}: {morning.decision.reason[:120]}")
    if morning.approved:
        said.append(f"version {morning.approved} approved")
    if morning.untrained:
        said.append(f"no training: {morning.untrained[:120]}")
    said += [f"version {one.version} trained ({one.why[:30]}): {one.outcome}" for one in morning.trainings]
    return "; ".join(said) + f"  ({seconds:.1f} s)"
