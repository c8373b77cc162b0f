"""A year played day by day: each morning what has happened since is landed, and all that is due is done.

A morning is 07:05 UTC of a business day, when the last list about its settlements has been made: the outcomes of the
date before are known, those of this date have not begun. The analyst acts on the lists, and what is saved so settles.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ml_assets.database.models import Drift, Estimate
from ml_assets.database.monitoring import rows_between
from ml_assets.database.promotions import Actor, open_request
from ml_assets.features.days import weekdays
from ml_assets.lake import features_table
from ml_assets.landing.heartbeat import Heartbeats
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.landed import Landed, look
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.learning.gate import Verdict
from ml_assets.learning.score_checks import ScoresRefusedError
from ml_assets.learning.scorer import Scorer
from ml_assets.lifecycle.drift import measure_drift
from ml_assets.lifecycle.evaluation import evaluate_candidates
from ml_assets.lifecycle.features import compute_features, mature_labels
from ml_assets.lifecycle.ingestion import curate_dates, load_reference
from ml_assets.lifecycle.monitoring import decide_retraining, join_live_outcomes, measure_estimates, measure_performance
from ml_assets.lifecycle.promotion import approve, promote_challenger
from ml_assets.lifecycle.registration import register_challenger
from ml_assets.lifecycle.scoring import ScoringReport, score_dates
from ml_assets.lifecycle.shadow import judge_and_roll_back, score_shadow
from ml_assets.lifecycle.training import RunOrigin, assemble_training_set, train_candidate
from ml_assets.local.rehearsal.plan import HISTORY, Plan, with_bad_challenger
from ml_assets.local.simulation.market import Market, simulate
from ml_assets.lot import lot
from ml_assets.monitoring.retraining import Decision
from ml_assets.platform import Platform
from ml_assets.predictions.work_list import listed
from ml_assets.spec import UseCase

MORNING = time(7, 5)
APPROVER = Actor.person("approver of the rehearsal")
# The table of performance is a week's here: nothing that is decided rests on it.
_PERFORMANCE_EVERY = 5
_CHUNK = 20  # dates that are curated in one go, of the history
Say = Callable[[str], None]


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
    """What a morning brought: `drifted` is what is drift since today, by kind and name, with what was said of it."""

    day: int
    date: date
    champion: int
    drifted: dict[str, str] = field(default_factory=dict)
    decision: Decision | None = None
    trainings: list[Training] = field(default_factory=list)
    approved: int | None = None
    shadow: str = ""
    refused: str = ""
    acted: int = 0
    estimated: float | None = None
    realised: float | None = None


@dataclass
class Year:
    """All mornings, the instructions that were saved, and the models that began it: by name, their MLflow runs."""

    plan: Plan
    usecase: UseCase
    market: Market
    mornings: list[Morning]
    saved: set[str]
    acts: int
    first_models: Mapping[str, str]
    seconds: Mapping[str, float]


def chase(usecase: UseCase, entity: str, slot: str) -> bool:
    """Return whether acting on an instruction at a slot would make it settle: by lot, the same for who acts on it."""
    return lot("chase", slot, entity) < usecase.action.effectiveness


def on_lists(usecase: UseCase, rows: pa.Table, expected_costs: Any) -> pa.Table:
    """Return the rows that the analyst acts on, of decisions with `decision_time` and `entity_id`."""
    times = np.unique(rows["decision_time"].to_numpy(), return_inverse=True)[1]
    chosen = listed(times, rows["entity_id"], expected_costs, capacity=usecase.capacity, action=usecase.action)
    return rows.filter(pa.array(chosen))


def play(plan: Plan, usecase: UseCase, platform: Platform, kafka: KafkaConnection, say: Say = lambda _: None) -> Year:
    """Play the year on an empty platform and broker."""
    usecase = plan.usecase(usecase)
    market = simulate(plan.market(usecase))
    return _Player(plan, usecase, market, platform, kafka, say).play()


class _Player:
    def __init__(
        self, plan: Plan, usecase: UseCase, market: Market, platform: Platform, kafka: KafkaConnection, say: Say
    ) -> None:
        self.plan, self.usecase, self.market, self.say = plan, usecase, market, say
        self.lake, self.registry, self.engine = platform.lake, platform.registry, platform.engine
        self.reference_root = platform.settings.reference_uri
        self.threads = platform.settings.threads
        self.origin = RunOrigin(platform.code, "rehearsal")
        self.calendar = market.world.calendar
        self.kafka, self.beats = kafka, Heartbeats(self.lake, kafka.admin(), "live")
        self.landed, self.until = Landed(), datetime.min.replace(tzinfo=UTC)
        self.saved: set[str] = set()
        self.acts = 0
        self.seen: set[tuple[str, datetime]] = set()
        self.mornings: list[Morning] = []
        self.first_models: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def play(self) -> Year:
        self._history()
        for number in range(self.plan.days):
            began = clock.perf_counter()
            morning = self._morning(number)
            self.mornings.append(morning)
            self.say(_line(morning, clock.perf_counter() - began))
        return Year(
            self.plan, self.usecase, self.market, self.mornings, self.saved, self.acts, self.first_models, self.seconds
        )

    def _date(self, number: int) -> date:
        return self.calendar[HISTORY + number]

    def _history(self) -> None:
        """Land the history, in which nobody acts; then train the first model and approve it."""
        with self._timed("history"):
            self.market.write_reference(self.reference_root)
            for reference in self.usecase.references:
                load_reference(self.lake, self.usecase, reference, self.reference_root)
            ensure_topics(self.kafka, self.market.topics)
            self.until = datetime.combine(self.calendar[0], time(), UTC)
            days = list(self.calendar[:HISTORY])
            self._land(datetime.combine(self._date(0), time(), UTC))
            compute_features(self.lake, self.usecase, days, threads=self.threads)
            mature_labels(self.lake, self.usecase, list(weekdays(days[0], self._date(0))), threads=self.threads)
        trained = self._train(-1, "the first model", self.usecase)
        request = open_request(self.engine, self.usecase.name)
        if request is not None:
            approve(self.registry, self.engine, self.usecase, APPROVER, reason="the first model")
        for candidate, run in self.registry.candidate_runs(self.usecase.name, self._date(-1)).items():
            self.first_models[candidate] = run.run_id
        self.say(f"{HISTORY} days of history; version {trained.version}, the first model, is trained and approved")

    def _land(self, now: datetime) -> None:
        """Land what has happened, and curate the dates that it changes."""
        with self._timed("landing"):
            produce(self.kafka, self.market.between(self.until, now, self.saved))
            Lander(self.lake, self.usecase.events, self.kafka, clock="replay").land_available()
            # The rehearsal's clock: everything that had been published by now is there.
            for event in self.usecase.events:
                self.beats.note(event, 2, {0: now, 1: now})
            self.until = now
            self.landed, change = look(self.lake, self.usecase.events, self.landed)
        with self._timed("curation"):
            for event in self.usecase.events:
                for first in range(0, len(change.dates), _CHUNK):
                    curate_dates(self.lake, self.usecase, event, change.dates[first : first + _CHUNK])

    def _morning(self, number: int) -> Morning:
        today, before = self._date(number), self._date(number - 1)
        now = datetime.combine(today, MORNING, UTC)
        morning = Morning(number, today, 0)
        self._land(now)
        dates = [before, today] if number else [today]
        known = [*list(weekdays(before, today))[1:], today]
        with self._timed("features"):
            compute_features(self.lake, self.usecase, dates, until=now, threads=self.threads)
        with self._timed("labels"):
            mature_labels(self.lake, self.usecase, known, threads=self.threads)
        if (request := open_request(self.engine, self.usecase.name)) is not None:
            approve(self.registry, self.engine, self.usecase, APPROVER, reason="the gate passed")
            morning.approved = request.to_version
        with self._timed("scoring"):
            scored = self._score(dates, morning)
            score_shadow(self.lake, self.registry, self.engine, self.usecase, dates, self.origin, threads=self.threads)
        morning.acted = self._act(self._by_checklist(scored.predictions) if morning.refused else scored.predictions)
        with self._timed("outcomes"):
            join_live_outcomes(self.lake, self.engine, self.usecase, [*dates[:-1], *known])
        with self._timed("performance"):
            if number % _PERFORMANCE_EVERY == 0:
                measure_performance(self.lake, self.registry, self.engine, self.usecase, [today], threads=self.threads)
            else:
                measure_estimates(self.lake, self.engine, self.usecase, today)
        with self._timed("drift"):
            measure_drift(self.lake, self.registry, self.engine, self.usecase, dates, threads=self.threads)
        with self._timed("shadow"):
            told = judge_and_roll_back(
                self.lake, self.registry, self.engine, self.usecase, today, Actor.run("rehearsal")
            )
            morning.shadow = told.verdict.says if told.verdict else ""
        with self._timed("decision"):
            morning.decision = decide_retraining(
                self.lake, self.registry, self.engine, self.usecase, [today], "rehearsal"
            )[0]
        self._tell(morning, dates)
        if number == self.plan.bad_challenger:
            morning.trainings.append(self._train(number, "a data scientist's model", with_bad_challenger(self.usecase)))
        elif morning.decision.outcome == "retrain":
            morning.trainings.append(self._train(number, morning.decision.reason, self.usecase))
        elif number and number % self.plan.retrain_every == 0:
            morning.trainings.append(self._train(number, "the schedule", self.usecase))
        return morning

    def _score(self, dates: Sequence[date], morning: Morning) -> ScoringReport:
        """Score; what is refused is kept for the record, and the team acts by its checklist that day."""
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

    def _by_checklist(self, predictions: pa.Table) -> pa.Table:
        """Return the predictions with the expected cost that the rule, trained beside the first model, gives them."""
        days = pc.unique(predictions["decision_date"])
        features = self.lake.read(features_table(self.usecase), where=ds.field("decision_date").isin(days))
        rule = Scorer.from_files(self.registry.download_model(self.first_models[self.usecase.rule.name]))
        keys = ["entity_id", "decision_time"]
        scored = features.select(keys).append_column("by_rule", pa.array(np.asarray(rule.score(features), np.float64)))
        rows = predictions.join(scored, keys=keys, join_type="inner")
        place = rows.column_names.index("expected_cost")
        return rows.set_column(place, "expected_cost", pc.multiply(rows["by_rule"], rows["cost_if_fail"]))

    def _act(self, predictions: pa.Table) -> int:
        """Act on the lists of the decision times that are new; return on how many decisions."""
        fresh = [
            (entity, at) not in self.seen
            for entity, at in zip(
                predictions["entity_id"].to_pylist(), predictions["decision_time"].to_pylist(), strict=True
            )
        ]
        rows = predictions.filter(pa.array(fresh, pa.bool_()))
        self.seen |= set(zip(rows["entity_id"].to_pylist(), rows["decision_time"].to_pylist(), strict=True))
        acted = on_lists(self.usecase, rows, rows["expected_cost"].to_numpy())
        pairs = zip(acted["entity_id"].to_pylist(), acted["slot"].to_pylist(), strict=True)
        self.saved |= {entity for entity, slot in pairs if chase(self.usecase, entity, slot)}
        self.acts += acted.num_rows
        return len(acted)

    def _train(self, number: int, why: str, usecase: UseCase) -> Training:
        """Train as of a day, evaluate, register, and ask for the promotion if the gate passes."""
        day, actor = self._date(number), Actor.run("rehearsal")
        with self._timed("training"):
            assemble_training_set(self.lake, usecase, day)
            for candidate in usecase.candidates:
                train_candidate(self.lake, self.registry, usecase, candidate, day, self.origin, threads=self.threads)
        with self._timed("evaluation"):
            report = evaluate_candidates(self.lake, self.registry, self.engine, usecase, day, threads=self.threads)
            version = register_challenger(self.registry, self.engine, usecase, day, actor)
            promotion = promote_challenger(self.registry, self.engine, usecase, actor)
        return Training(number, why, version.version, version.run_id, report.verdict, promotion.outcome)

    def _tell(self, morning: Morning, dates: Sequence[date]) -> None:
        """Note what is drift since today, and how the newest estimate that has come out did."""
        rows = rows_between(self.engine, Drift, self.usecase.name, dates[0], morning.date)
        morning.drifted = {f"{row['kind']} {row['name']}": row["why"] for row in rows if row["drifted"]}
        for row in rows_between(self.engine, Estimate, self.usecase.name, self._date(morning.day - 1), dates[0]):
            if row["metric"] == "pr_auc":
                morning.estimated, morning.realised = row["estimated"], row["realised"]

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = clock.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + clock.perf_counter() - began


def _line(morning: Morning, seconds: float) -> str:
    """Return a morning in a line."""
    said = [f"{morning.date}  champion {morning.champion}, acted on {morning.acted}"]
    if morning.drifted:
        said.append("drift: " + ", ".join(sorted(morning.drifted)[:4]))
    if morning.decision and morning.decision.numbers["breaches"]:
        said.append(f"{morning.decision.outcome}: {morning.decision.reason[:120]}")
    if morning.approved:
        said.append(f"version {morning.approved} approved")
    said += [f"version {one.version} trained ({one.why[:30]}): {one.outcome}" for one in morning.trainings]
    return "; ".join(said) + f"  ({seconds:.1f} s)"
