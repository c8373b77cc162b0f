"""A year of settlement_fails played day by day: an analyst acts on the lists, and what is saved so settles in time.

At 07:05 the last list about the day's settlements has been made: the outcomes of the date before are known, those of
this date have not begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ml_assets.database.promotions import open_request
from ml_assets.features.days import weekdays
from ml_assets.lake import features_table
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.learning.scorer import Scorer
from ml_assets.lifecycle.features import compute_features, mature_labels
from ml_assets.lifecycle.ingestion import load_reference
from ml_assets.lifecycle.promotion import approve
from ml_assets.lifecycle.scoring import ScoringReport
from ml_assets.local.rehearsal.mornings import APPROVER, BY_SCHEDULE, Morning, Player, Say, Training
from ml_assets.local.rehearsal.plan import HISTORY, Plan, with_bad_challenger
from ml_assets.local.simulation.market import Market, simulate
from ml_assets.local.simulation.messages import Message
from ml_assets.lot import lot
from ml_assets.platform import Platform
from ml_assets.predictions.work_list import listed
from ml_assets.spec import UseCase


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
    return _YearPlayer(plan, usecase, market, platform, kafka, say).play()


class _YearPlayer(Player):
    def __init__(
        self, plan: Plan, usecase: UseCase, market: Market, platform: Platform, kafka: KafkaConnection, say: Say
    ) -> None:
        super().__init__(usecase, platform, kafka, say)
        self.plan, self.market = plan, market
        self.reference_root = platform.settings.reference_uri
        self.calendar = market.world.calendar
        self.saved: set[str] = set()
        self.acts = 0
        self.seen: set[tuple[str, datetime]] = set()
        self.first_models: dict[str, str] = {}

    def play(self) -> Year:
        self._history()
        for number in range(self.plan.days):
            self.morning(number, self._date(number - 1), self._date(number))
        return Year(
            self.plan, self.usecase, self.market, self.mornings, self.saved, self.acts, self.first_models, self.seconds
        )

    def _date(self, number: int) -> date:
        return self.calendar[HISTORY + number]

    def _history(self) -> None:
        """Land the history, in which nobody acts; then train the first model and approve it."""
        with self.timed("history"):
            self.market.write_reference(self.reference_root)
            for reference in self.usecase.references:
                load_reference(self.lake, self.usecase, reference, self.reference_root)
            self.begin(datetime.combine(self.calendar[0], time(), UTC))
            days = list(self.calendar[:HISTORY])
            self.land(datetime.combine(self._date(0), time(), UTC))
            compute_features(self.lake, self.usecase, days, threads=self.threads)
            mature_labels(self.lake, self.usecase, list(weekdays(days[0], self._date(0))), threads=self.threads)
        trained = self.train(-1, self._date(-1), "the first model", self.usecase)
        if open_request(self.engine, self.usecase.name) is not None:
            approve(self.registry, self.engine, self.usecase, APPROVER, reason="the first model")
        for candidate, run in self.registry.candidate_runs(self.usecase.name, self._date(-1)).items():
            self.first_models[candidate] = run.run_id
        self.say(f"{HISTORY} days of history; version {trained.version}, the first model, is trained and approved")

    def happened(self, first: datetime, end: datetime) -> Iterable[Message]:
        return self.market.between(first, end, self.saved)

    def act(self, scored: ScoringReport, morning: Morning) -> None:
        """Act on the lists of the decision times that are new; by the checklist if the scores were refused."""
        predictions = self._by_checklist(scored.predictions) if morning.refused else scored.predictions
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
        morning.acted = acted.num_rows

    def trainings(self, morning: Morning) -> Iterator[Training]:
        if morning.day == self.plan.bad_challenger:
            bad = with_bad_challenger(self.usecase)
            yield self.train(morning.day, morning.date, "a data scientist's model", bad)
        elif morning.decision is not None and morning.decision.outcome == "retrain":
            yield from super().trainings(morning)
        elif morning.day and morning.day % self.plan.retrain_every == 0:
            yield self.train(morning.day, morning.date, BY_SCHEDULE, self.usecase)

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
