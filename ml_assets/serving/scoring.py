"""The use cases that are served: three threads keep their live tables and models up to date; their answers."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from sqlalchemy import Engine

from ml_assets.contracts import TIMESTAMP, to_columns
from ml_assets.database.alerts import last_heartbeat
from ml_assets.database.promotions import StageLines, stage_lines
from ml_assets.errors import InputError, NotFoundError
from ml_assets.features.days import day_start
from ml_assets.lake import Lake
from ml_assets.landing.decode import Decoder, RefusedError
from ml_assets.learning.reasons import as_seen_by
from ml_assets.lifecycle.waiting import daily_progress, reached
from ml_assets.serving.beside import Beside, TellShadow
from ml_assets.serving.history import LiveHistory
from ml_assets.serving.models import ChampionKeeper, Fetch
from ml_assets.serving.state import State, make_state, score_rows
from ml_assets.serving.table import LiveTable, make_table, what_if_rows
from ml_assets.spec import UseCase

_LOG = logging.getLogger(__name__)
# A table is made again after this long without new data, because its SQL may depend on the time.
_AGES_AFTER = timedelta(seconds=30)
# A table that could not be made again for this long is stale.
STALE_AFTER = timedelta(seconds=120)


class NotServedError(NotFoundError):
    """A use case is unknown (`known` is False), or cannot answer now."""

    def __init__(self, why: str, *, known: bool) -> None:
        super().__init__(why)
        self.known = known


class WhatIfError(InputError):
    """A what-if request cannot be decoded or decided; `field` names where."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


Tell = Callable[[State], object]


class Served:
    """One use case: its history, its models, and the state that answers. Each new state is given to `tell`."""

    def __init__(
        self, lake: Lake, usecase: UseCase, engine: Callable[[], Engine], fetch: Fetch, clock: Callable[[], datetime],
        threads: int, tell: Tell | None = None, tell_shadow: TellShadow | None = None,
    ) -> None:  # fmt: skip
        self.usecase = usecase
        self.keeper = ChampionKeeper(usecase, fetch, threads=threads)
        self.beside = Beside(usecase, engine, fetch, lambda: self.keeper.model, threads=threads, tell=tell_shadow)
        self.state: State | None = None
        self.table_trouble = "the live table has not been made yet"
        self.stale = ""
        # When the table was last made, in seconds of a clock that nobody sets; and what is wrong with the one that is.
        self.made_at: float | None = None
        self.clock_trouble = ""
        self._lake, self._clock, self._tell = lake, clock, tell
        self._history = LiveHistory(lake, usecase, threads=threads)
        self.table: LiveTable | None = None
        self._slots: tuple[Any, ...] = ()
        # What has moved since the table was made; if making it fails this stays.
        self._moved = True
        self._lock = threading.Lock()

    def look_at_data(self) -> bool:
        """Make the table again if something has moved, or time has; return whether it was made."""
        now = self._never_back(self._clock())
        slots = self.usecase.slots_at(now)
        order = tuple((slot.slot, slot.decision_date) for slot in slots)
        self._moved |= self._history.look(slots[0].decision_date)
        table = self.table
        if not self._moved and table is not None and order == self._slots and not _has_aged(table, now):
            self.made_at = time.monotonic()  # it says how things are: its clock may stand, as that of a replay does
            return False
        asked = table.asked if table is not None else None
        self.table = make_table(self.usecase, self._history.database(), now, self._history.newest, asked)
        self._slots, self.table_trouble, self.made_at, self._moved = order, "", time.monotonic(), False
        progress = daily_progress(self._lake, self.usecase) if self.usecase.daily else None
        self.stale = (
            "" if reached(progress, day_start(slots[0].decision_date)) else f"the track record waits: {progress}"
        )
        self._compose()
        return True

    def follow(self, lines: StageLines) -> bool:
        """Open the ledger's champion if it has changed, drop a canary that has ended; return whether it has changed."""
        changed = self.keeper.follow(lines.champion)
        ended = self.beside.follow(lines.canary, lines.challenger)
        if changed or ended:
            self._compose()
        return changed

    def look_beside(self) -> None:
        """Open the models beside the champion, score in the shadow, and watch the canary."""
        if self.beside.turn(self.state, stale=bool(self.is_stale())):
            self._compose()

    def _compose(self) -> None:
        with self._lock:
            table, model = self.table, self.keeper.model
            if table is not None and model is not None:
                self.state = make_state(self.usecase, table, model, self.beside.canary)
                if self._tell is not None:
                    self._tell(self.state)

    def is_stale(self) -> str:
        """Return why the table does not say how things are now; empty if it does."""
        since = timedelta(seconds=time.monotonic() - self.made_at) if self.made_at is not None else timedelta()
        if since > STALE_AFTER:
            return f"the live table was last made {since.total_seconds():.0f} seconds ago; {self.table_trouble}"
        return self.clock_trouble or self.stale

    def _never_back(self, now: datetime) -> datetime:
        """Return the time at which a table stands that is made now: `now`, or that of the table before, if it is later.

        So a clock that is set back decides nothing again of which more had been known. Until it has caught up the
        table sees no more than what was known by then, which is said once it is more than a table may lag.
        """
        table = self.table if self.table is not None and self.table.newest_event is not None else None
        behind = table.as_of - now if table is not None else timedelta()  # of an empty history nothing was decided
        landed = self._history.landed_until
        self.clock_trouble = ""
        if behind > STALE_AFTER:
            self.clock_trouble = f"the clock was set back, by {behind.total_seconds():,.0f} seconds or more"
        elif landed is not None and landed - datetime.now(UTC) > STALE_AFTER:
            self.clock_trouble = (
                f"events have landed at {landed:%Y-%m-%d %H:%M:%S} UTC, which this clock is yet to reach"
            )
        return now + max(behind, timedelta())


def _has_aged(table: LiveTable, now: datetime) -> bool:
    """Return whether time alone has changed a table: enough of it has passed, or what it could not see yet is known."""
    came = table.newest_event is not None and table.as_of < table.newest_event <= now
    return came or now - table.as_of >= _AGES_AFTER


class Scoring:
    """The use cases by name. `start` begins to keep them up to date, and `stop` ends it.

    `tell` is called with each new state, `tell_shadow` with the challengers' scores of it, and `tell_losses` after each
    read of the database.
    """

    def __init__(
        self, lake: Lake, engine: Callable[[], Engine], usecases: Sequence[UseCase], fetch: Fetch, *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC), threads: int = 1, every: float = 0.5,
        tell: Tell | None = None, tell_shadow: TellShadow | None = None, tell_losses: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._tell_losses = tell_losses
        self.served = {
            usecase.name: Served(lake, usecase, engine, fetch, clock, threads, tell, tell_shadow)
            for usecase in usecases
        }
        self._engine, self._every = engine, every
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.database_trouble = "the database has not answered yet"
        # When a rule of alerts was evaluated last. Prometheus reads it here, so it is seen if nothing evaluates rules.
        self.alerts_evaluated_at: datetime | None = None

    def start(self) -> None:
        """Keep tables and models up to date from now on."""
        turns = {"live-tables": self.look_at_data, "champions": self.look_at_models, "beside": self.look_beside}
        for name, turn in turns.items():
            thread = threading.Thread(target=self._keep, args=(turn,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End what `start` began."""
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _keep(self, turn: Callable[[], None]) -> None:
        if sys.platform == "linux":
            # Answers have priority: on a pod with one core, making a table takes the time that they leave.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while not self._ended.is_set():
            turn()
            self._ended.wait(self._every)

    def look_at_data(self) -> None:
        """Check once whether the data of each use case have changed; if that fails, its present table is kept."""
        for served in self.served.values():
            try:
                served.look_at_data()
            except Exception as error:
                served.table_trouble = f"it could not be made again: {error}"
                _LOG.warning("use case %s: the live table could not be made: %s", served.usecase.name, error)

    def look_at_models(self) -> None:
        """Check once whether the ledger names another champion; without the database all models are kept."""
        try:
            with self._engine().connect() as connection:
                self.alerts_evaluated_at = last_heartbeat(connection)
                lines = {name: stage_lines(connection, name) for name in self.served}
            for name, served in self.served.items():
                if served.follow(lines[name]) and served.keeper.model is not None:
                    _LOG.info("use case %s: version %d answers", served.usecase.name, served.keeper.model.version)
            self.database_trouble = ""
        except Exception as error:
            self.database_trouble = f"the database does not answer: {str(error).splitlines()[0]}"
            return
        if self._tell_losses is not None:
            self._tell_losses()

    def look_beside(self) -> None:
        """Check once the canary and the challenger of each use case; a failure there does not affect the champion."""
        for served in self.served.values():
            try:
                served.look_beside()
            except Exception:
                _LOG.exception("use case %s: the models beside the champion failed", served.usecase.name)

    def state(self, use_case: str) -> State:
        """Return the state that answers for a use case.

        Raises:
            NotServedError: there is none.
        """
        served = self.served.get(use_case)
        if served is None:
            names = ", ".join(sorted(self.served))
            raise NotServedError(f"there is no use case {use_case!r}; there are {names}", known=False)
        if served.state is None:
            raise NotServedError(
                f"use case {use_case} cannot answer yet: {served.keeper.trouble or served.table_trouble}", known=True
            )
        return served.state

    def ready(self) -> dict[str, str]:
        """Return the reasons for not being ready, by subject; empty if ready. A use case may have no champion yet."""
        found = {"database": self.database_trouble} if self.database_trouble else {}
        for name, served in self.served.items():
            if served.state is None and served.keeper.model is not None:
                found[name] = served.table_trouble or "its scores are being made"
            elif served.state is not None and (why := served.is_stale()):
                found[name] = why
        if not any(served.state for served in self.served.values()):
            found.setdefault("models", "; ".join(s.keeper.trouble for s in self.served.values() if s.keeper.trouble))
        return found


def decode_what_if(usecase: UseCase, given: Mapping[str, msgspec.Raw], now: datetime, at: str) -> dict[str, pa.Table]:
    """Return the events of one what-if request as rows known at `now`, by event name.

    Raises:
        WhatIfError: an event is unknown, or breaks its contract.
    """
    found = {}
    for name, raw in given.items():
        try:
            event = usecase.event(name)
            fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
            # An event that has not been booked has no id yet, and happens now.
            fields.setdefault("event_id", msgspec.Raw(msgspec.json.encode(f"what-if {at} {name}")))
            fields.setdefault("event_time", msgspec.Raw(msgspec.json.encode(now)))
            row = _decoder(event.contract).decode(msgspec.json.encode(fields))
            # Each by itself: what no column can hold is refused here, and not to all who share a query.
            found[name] = pa.table({
                **to_columns(event.contract, [row]),
                "business_date": pa.array([row.business_date], pa.date32()),
                **{moment: pa.array([now], TIMESTAMP) for moment in ("known_at", "broker_time")},
            })  # fmt: skip
        except (LookupError, RefusedError, msgspec.DecodeError, OverflowError, pa.ArrowInvalid) as error:
            raise WhatIfError(f"{at}.{name}", str(error)) from error
    return found


_decoder = cache(Decoder)


def ask_what_if(state: State, asked: Sequence[Mapping[str, pa.Table]]) -> list[tuple[str, dict[str, Any] | None]]:
    """Return the answer to each what-if request: its entity, and the score, or None if no slot lists the entity now.

    The entity of a request is the one whose id is the key of one of its events. Requests share one query, except those
    with an event of the same key, which the query would take for two versions of one event.

    Raises:
        ValueError: the SQL fails.
    """
    keys = [_keys(state.usecase, request) for request in asked]
    found: list[tuple[str, dict[str, Any] | None]] = [(next(iter(of.values())), None) for of in keys]
    left = list(range(len(asked)))
    while left:
        taken: set[tuple[str, str]] = set()
        turn = []
        for at in left:
            if taken.isdisjoint(keys[at].items()):
                taken.update(keys[at].items())
                turn.append(at)
        left = [at for at in left if at not in turn]
        names = {name for at in turn for name in asked[at]}
        merged = {name: pa.concat_tables(asked[at][name] for at in turn if name in asked[at]) for name in names}
        mine = what_if_rows(state.usecase, state.table, merged, {key for at in turn for key in keys[at].values()})
        answers = score_rows(state.usecase, mine, state.model, state.canary).answers
        by_id = {answer["entity_id"]: answer for answer in answers}
        for at in turn:
            found[at] = next(((key, by_id[key]) for key in keys[at].values() if key in by_id), found[at])
    return found


def _keys(usecase: UseCase, request: Mapping[str, pa.Table]) -> dict[str, str]:
    """Return the key of each event of a request, by the event's name."""
    return {name: " ".join(str(rows[c][0].as_py()) for c in usecase.event(name).key) for name, rows in request.items()}


def explain(state: State, entities: Sequence[str]) -> list[dict[str, Any]]:
    """Return the scores of entities that are in the table, with reasons that sum to the log-odds."""
    at = [state.table.index[entity] for entity in entities]
    found: dict[int, dict[str, Any]] = {}
    for stage, model in state.models.items():
        mine = [place for place in at if state.answers[place]["stage"] == stage]
        if not mine:
            continue
        rows = state.table.rows.take(pa.array(mine, pa.int64()))
        probabilities = np.array([state.answers[place]["probability"] for place in mine])
        for place, reasons in zip(mine, model.explainer.explain(rows, probabilities), strict=True):
            answer = state.answers[place]
            seen = as_seen_by(state.usecase, reasons, answer["attributes"])
            found[place] = {**answer, "reasons": msgspec.structs.asdict(seen)}
    return [found[place] for place in at]
