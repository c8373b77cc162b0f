"""Rounds of alerts in a process that stays: on a cluster a run is a pod, and half a minute of processor, each time.

The asset of the states is told of a round as a run would tell it, if something has changed, and else now and then, so
that it stays fresh. Two evaluators at once are one: the second waits for its turn, and each evaluation is written once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg
from prometheus_client import CollectorRegistry, Counter, Gauge

from ml_assets.defs.assets.alerts import ALERTS, metadata_of, round_on, upstream_of
from ml_assets.lifecycle.alert_round import Round
from ml_assets.platform import Platform
from ml_assets.spec import UseCase

_LOG = logging.getLogger(__name__)
# The asset is not fresh after half an hour.
_TELL_AFTER = timedelta(minutes=15).total_seconds()
# A round that has taken so long hangs: a rule has 30 seconds, a sink at most 60.
_HANGS_AFTER = timedelta(minutes=30).total_seconds()


class EvaluatorMetrics:
    """Counters of rounds, and how many alerts are open, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of: dict[str, Any] = {"registry": self.registry}
        self.rounds = Counter("alerts_rounds", "Rounds that were made", **of)
        self.failed = Counter("alerts_rounds_failed", "Rounds that failed as a whole", **of)
        self.last = Gauge("alerts_last_round_timestamp_seconds", "When a round ended well last", **of)
        self.seconds = Gauge("alerts_round_seconds", "How long the last round took", **of)
        self.open = Gauge("alerts_open", "Alerts that are open", **of)
        self.given_up = Gauge("alerts_events_given_up", "Events that a sink did not take for good", **of)


@dataclass
class Evaluator:
    """Makes rounds on a Dagster instance until it is told to stop; `live` and `ready` say how it does."""

    instance: dg.DagsterInstance
    platform: Platform
    usecases: Sequence[UseCase]
    upstream: Mapping[str, frozenset[str]]
    metrics: EvaluatorMetrics = field(default_factory=EvaluatorMetrics)
    clock: Callable[[], float] = time.monotonic
    _told: tuple[float, object] = field(default=(float("-inf"), None), init=False)
    _turned: float = field(default=float("-inf"), init=False)
    _trouble: str = field(default="no round has been made yet", init=False)

    @classmethod
    def of(
        cls, instance: dg.DagsterInstance, platform: Platform, usecases: Sequence[UseCase], definitions: dg.Definitions
    ) -> Evaluator:
        """Return an evaluator that groups alerts by the asset graph of the definitions."""
        assets = [one for one in definitions.assets or () if isinstance(one, dg.AssetsDefinition | dg.AssetSpec)]
        return cls(instance, platform, usecases, upstream_of(assets))

    def run(self, every: timedelta, stop: threading.Event) -> None:
        """Make a round, wait, and so on; a round that fails is logged, and another made in its time."""
        while not stop.is_set():
            begun = self.clock()
            self.turn()
            stop.wait(max(0.0, every.total_seconds() - (self.clock() - begun)))

    def turn(self) -> Round | None:
        """Make one round and tell the asset of it; None if it failed."""
        begun = self._turned = self.clock()
        try:
            made = round_on(self.instance, self.platform, self.usecases, self.upstream)
            self._tell(made)
        except Exception as error:
            # Whatever fails, the next round is made: the database may be back by then.
            self._trouble = f"the last round failed: {type(error).__name__}"
            self.metrics.failed.inc()
            _LOG.exception("a round of alerts failed")
            return None
        self._trouble = ""
        self.metrics.rounds.inc()
        self.metrics.last.set_to_current_time()
        self.metrics.seconds.set(self.clock() - begun)
        self.metrics.open.set(len(made.open))
        self.metrics.given_up.set(made.of_outbox("given up"))
        return made

    def live(self) -> tuple[bool, str]:
        """Return whether rounds are begun: one that hangs is ended by a restart."""
        silent = self.clock() - self._turned
        return silent < _HANGS_AFTER, "turning" if silent < _HANGS_AFTER else "no round was begun for half an hour"

    def ready(self) -> tuple[bool, str]:
        """Return whether the last round went well."""
        alive, why = self.live()
        return (False, why) if not alive else (not self._trouble, self._trouble or "looking")

    def _tell(self, made: Round) -> None:
        shown = (
            [(one.rule.full_name, one.state) for one in made.states],
            [one.event_id for one in made.open],
            [(one.message_id, one.what) for one in made.sent],
        )
        at, before = self._told
        if shown == before and self.clock() - at < _TELL_AFTER:
            return
        self.instance.report_runless_asset_event(dg.AssetMaterialization(ALERTS, metadata=metadata_of(made)))
        self._told = (self.clock(), shown)
