"""The models beside a champion: the canary answers for some entities, and the challenger scores in the shadow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.database.promotions import LedgerEntry, take_back
from ml_assets.governance.conditions import sentence
from ml_assets.learning.gate import Condition
from ml_assets.serving.canary import Canary, Guard, are_probabilities
from ml_assets.serving.models import Fetch, OpenModel, SideKeeper
from ml_assets.serving.state import State
from ml_assets.spec import UseCase

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ml_assets.serving.table import LiveTable

_LOG = logging.getLogger(__name__)
# The number of decisions timed each turn, and of tries for each. The best try counts: interruptions of the thread are
# not the model's time.
_TIMED, _TRIES = 3, 3
# Seconds after which a failed write to the ledger is tried again.
_WRITE_AGAIN = 5.0


@dataclass(frozen=True)
class ShadowScores:
    """The challenger's probabilities for all rows of a table, (n,), and how many milliseconds scoring took."""

    state: State
    model: OpenModel
    probabilities: NDArray[np.float64]
    milliseconds: float
    stale: bool


# Records the scores that are new, and returns whether none is left.
TellShadow = Callable[[ShadowScores], bool]


@dataclass
class _Breach:
    """A canary that this process has taken back, and whether that is written to the ledger."""

    line: LedgerEntry
    why: str
    written: bool = False
    again: float = 0.0


class Beside:
    """The canary and the challenger of one use case.

    The thread that reads the ledger calls `follow`, which never waits; a separate thread calls `turn`.
    """

    def __init__(
        self, usecase: UseCase, engine: Callable[[], Engine], fetch: Fetch, champion: Callable[[], OpenModel | None], *,
        threads: int = 1, tell: TellShadow | None = None,
    ) -> None:  # fmt: skip
        self._usecase, self._engine, self._tell = usecase, engine, tell

        def known() -> tuple[OpenModel | None, ...]:
            return self.canary_keeper.model, self.challenger_keeper.model, champion()

        self.canary_keeper = SideKeeper(usecase, fetch, known, threads=threads)
        self.challenger_keeper = SideKeeper(usecase, fetch, known, threads=threads)
        # The newest line that began or ended a canary of this champion, and the challenger's line.
        self.canary_line: LedgerEntry | None = None
        self.challenger_line: LedgerEntry | None = None
        self.canary: Canary | None = None
        self.conditions: tuple[Condition, ...] = ()
        self.taken_back = 0
        self.shadow_scores = 0
        self._breach: _Breach | None = None
        self._lock = threading.Lock()
        self._shadowed: tuple[LiveTable, OpenModel] | None = None
        self._to_tell: ShadowScores | None = None
        self._compared: State | None = None
        self._next_timed = 0

    def follow(self, canary: LedgerEntry | None, challenger: LedgerEntry | None) -> bool:
        """Take over the ledger's lines; return whether the canary that answered has ended."""
        with self._lock:
            self.canary_line, self.challenger_line = canary, challenger
            if self.canary is None or self.canary.line == self._running():
                return False
            _LOG.info("use case %s: the canary of version %d has ended", self._usecase.name, self.canary.model.version)
            self.canary = None
            return True

    def turn(self, state: State | None, *, stale: bool = False) -> bool:
        """Open the models, score in the shadow and watch the canary; return whether a canary has begun or ended."""
        begun = self._open()
        if state is None:
            return begun
        self._score_in_shadow(state, stale)
        ended = state.canary is not None and state.canary is self.canary and self._watch(state, state.canary)
        self._write()
        return begun or ended

    def _running(self) -> LedgerEntry | None:
        line = self.canary_line
        given_up = self._breach is not None and line is not None and self._breach.line.id == line.id
        return line if line is not None and line.action == "canary" and not given_up else None

    def _open(self) -> bool:
        line = self._running()
        self.canary_keeper.follow(line)
        self.challenger_keeper.follow(self.challenger_line)
        model = self.canary_keeper.model
        with self._lock:
            if line is None or model is None or line != self._running():
                return False
            if self.canary is not None and self.canary.line == line:
                return False
            self.canary, self.conditions = Canary(line, model, Guard(self._usecase.gate.canary)), ()
        _LOG.info(
            "use case %s: version %d answers for %s of the entities", self._usecase.name, model.version, line.percent
        )
        return True

    def _score_in_shadow(self, state: State, stale: bool) -> None:
        model = self.challenger_keeper.model
        if model is None:
            self._shadowed = self._to_tell = None
        elif self._shadowed is None or self._shadowed[0] is not state.table or self._shadowed[1] is not model:
            self._shadowed, self._to_tell = (state.table, model), None
            begun = time.perf_counter()
            try:
                scores = model.scorer.score(state.table.rows)
            except Exception as error:  # a model can make the runtime raise anything; the next table is scored again
                _LOG.warning("use case %s: version %d failed in shadow: %s", self._usecase.name, model.version, error)
                return
            if are_probabilities(scores):
                self._to_tell = ShadowScores(state, model, scores, 1000 * (time.perf_counter() - begun), stale)
                self.shadow_scores += len(scores)
        if self._to_tell is not None and (self._tell is None or self._tell(self._to_tell)):
            self._to_tell = None

    def _watch(self, state: State, canary: Canary) -> bool:
        """Give the guard what is new about the canary; return whether the canary was taken back."""
        by_canary = state.scored.by_canary
        if self._compared is not state and by_canary is not None:
            decisions = ((one["entity_id"], one["decision_date"], one["slot"]) for one in state.answers)
            canary.guard.compared(decisions, state.scored.probabilities, by_canary)
            self._compared = state
        self._time(state, canary)
        verdict = canary.guard.judge()
        self.conditions = verdict.conditions
        if verdict.passed:
            return False
        why = "; ".join(sentence(condition) for condition in verdict.failures)
        with self._lock:
            self._breach, self.canary = _Breach(canary.line, why), None
        self.taken_back += 1
        _LOG.error(
            "use case %s: the canary, version %d, is taken back, and the champion answers for all: %s",
            self._usecase.name, canary.model.version, why,
        )  # fmt: skip
        return True

    def _time(self, state: State, canary: Canary) -> None:
        """Let both models score the same decisions one by one, and give the guard the processor time of each."""
        rows, pairs = state.table.rows, []
        for _ in range(min(_TIMED, rows.num_rows)):
            row = rows.slice(self._next_timed % rows.num_rows, 1)
            self._next_timed += 1
            try:
                pairs.append((_seconds(state.model, row), _seconds(canary.model, row)))
            except Exception:  # as in `state.score_rows`
                canary.guard.tried(1, 1)
        canary.guard.timed(pairs)

    def _write(self) -> None:
        """Write to the ledger that this process has taken back a canary; if that fails, it is tried again later."""
        breach = self._breach
        if breach is None or breach.written or time.monotonic() < breach.again:
            return
        try:
            if not take_back(self._engine(), breach.line, breach.why):
                _LOG.info("use case %s: the ledger had already ended the canary", self._usecase.name)
            breach.written = True
        except Exception as error:
            breach.again = time.monotonic() + _WRITE_AGAIN
            _LOG.error(
                "use case %s: version %d no longer answers here, but the end of the canary cannot be written to the "
                "ledger: %s", self._usecase.name, breach.line.to_version, error,
            )  # fmt: skip


def _seconds(model: OpenModel, row: pa.Table) -> float:
    best = float("inf")
    for _ in range(_TRIES):
        begun = time.thread_time()
        model.scorer.score(row)
        best = min(best, time.thread_time() - begun)
    return best
