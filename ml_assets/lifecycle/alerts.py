"""Alerts: which rules there are, evaluated as of now or of past dates; what happened goes to the ledger and the outbox.

Sending is in `lifecycle.alert_sending`.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Engine

from ml_assets.alerts.durations import in_words
from ml_assets.alerts.machine import Alert, Event, Failed, NoData, People, Result, Rows, State, event_id, state_at, step
from ml_assets.alerts.routes import Routing
from ml_assets.alerts.rule import Rule
from ml_assets.database.alerts import (
    EVALUATING,
    Delivery,
    Evaluated,
    EventRow,
    Silence,
    acknowledged,
    keep_evaluation,
    last_evaluations,
    silences,
)
from ml_assets.database.reports import Asked, Given, reading
from ml_assets.database.reports import Rows as MadeUp
from ml_assets.database.turn import in_turn
from ml_assets.errors import InputError, StateError
from ml_assets.lake import Lake
from ml_assets.lifecycle.alert_rules import PLATFORM, all_rules
from ml_assets.lifecycle.reports import given_for
from ml_assets.registry import ModelRegistry
from ml_assets.spec import UseCase

# The rule, which has no file, that somebody looks at all.
_EVALUATOR: Final = (PLATFORM, "evaluator")
# The server takes a moment to notice that who had a turn is gone.
_TRIES, _MOMENT = 10, 0.1
_LOG = logging.getLogger(__name__)
# Rows that fire at most: a rule that finds more has forgotten to add up, or to join.
MOST_ROWS: Final = 20_000
_SECONDS: Final = 30
# Without an evaluation of any rule for so long, people are told that nobody looked.
_OUTAGE: Final = timedelta(hours=1)
# What is known of now alone, by relation: a past date cannot be asked for it.
NOW_ONLY: Final[Mapping[str, Mapping[str, type]]] = {
    "landing": {"topic": str, "landed_until": datetime, "has_landed": bool},
    "champions": {"by_alias": int, "by_ledger": int, "agrees": bool},
    "runs": {
        "run_id": str, "job": str, "use_case": str, "status": str, "queued_at": datetime, "started_at": datetime,
        "ended_at": datetime, "failure": str,
    },
    "storage": {"place": str, "used": float, "free_gib": float},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ground:
    """What rules are evaluated on; `given` are relations that the caller knows, such as `runs`."""

    lake: Lake
    registry: ModelRegistry
    engine: Engine
    usecases: Sequence[UseCase]
    given: Mapping[str, Given]
    threads: int = 0


@dataclass(frozen=True, slots=True)
class RuleState:
    """A rule with its state at a time, and the last evaluation, None if there was none."""

    rule: Rule
    state: State
    last: Evaluated | None


def storage(places: Mapping[str, str]) -> Given:
    """Return how full the places are that are folders of this machine; those that are elsewhere are left out."""
    rows = []
    for place, folder in places.items():
        if Path(folder).is_dir():
            disk = shutil.disk_usage(folder)
            full = 1 - disk.free / disk.total if disk.total else 0.0
            rows.append({"place": place, "used": full, "free_gib": disk.free / 2**30})
    return Given(NOW_ONLY["storage"], rows)


def states(engine: Engine, usecases: Sequence[UseCase], now: datetime) -> list[RuleState]:
    """Return the state of each rule at a time; one whose deadline has passed is `not run`, whatever it was."""
    last = last_evaluations(engine)
    found = []
    for rule in all_rules(usecases):
        one = last.get((rule.use_case, rule.name))
        state: State | None = msgspec.convert(one.state, State) if one else None
        found.append(RuleState(rule, state_at(state, one.evaluated_at if one else None, rule.deadline, now), one))
    return found


def is_due(rule: Rule, last: Evaluated | None, now: datetime, materialized: Mapping[str, datetime]) -> bool:
    """Return whether a rule is to be evaluated: it is time, its asset is new, it failed before, or its file is new.

    `materialized` says when each asset was made last, as `<use case>/<asset>`.
    """
    if last is None or last.state == "error" or last.rule_hash != rule.fingerprint:
        return True
    if any(alert["opened"] is None or alert["gone"] is not None for alert in last.alerts):
        return True  # something is about to open or to close
    if rule.every is not None:
        return now - last.evaluated_at >= rule.every or now < last.evaluated_at
    made = materialized.get(f"{rule.use_case}/{rule.follows}")
    return made is not None and made > last.evaluated_at


def evaluate_alerts(
    ground: Ground,
    rules: Sequence[Rule],
    *,
    now: datetime,
    routing: Routing,
) -> list[RuleState]:
    """Evaluate rules as of now, one evaluator at a time; return the state of each that could be evaluated.

    A rule that fails is an error for itself alone. A rule that reads what the caller does not know is left out.

    Raises:
        StateError: another evaluator is at work.
    """
    with alone(ground.engine, EVALUATING):
        last = last_evaluations(ground.engine)
        _tell_outage(ground.engine, last, now, routing)
        people = _people(ground.engine, now)
        found = []
        for rule in rules:
            if any(rule.reads(name) and name not in ground.given for name in ("runs", "storage")):
                continue
            before = last.get((rule.use_case, rule.name))
            made, events = _evaluate(ground, rule, before, now, people)
            if keep_evaluation(ground.engine, made, _rows(rule, events), _deliveries(routing, rule, events)):
                found.append(RuleState(rule, msgspec.convert(made.state, State), made))
        return found


def result_of(ground: Ground, rule: Rule, as_of: datetime) -> Result:
    """Return what a rule finds as of a time; nothing is written. What is wrong with it is in the result."""
    try:
        return find(ground.engine, rule, *_asked(ground, rule, as_of))
    except InputError as error:
        return Failed(str(error))
    except Exception as error:
        # Its text may hold an address with a password, or a row: it goes into the log, and into no message.
        _LOG.exception("rule %s", rule.full_name)
        return Failed(f"{type(error).__name__} in {rule.file}")


def find(
    engine: Engine, rule: Rule, asked: Asked, given: Mapping[str, Given], *, made_up: Mapping[str, MadeUp] | None = None
) -> Rows | NoData:
    """Return what a rule finds: in what the database holds and is given, or in rows that somebody made up.

    Raises:
        InputError: the rule cannot be evaluated.
    """
    limits: dict[str, Any] = {"file": rule.file, "seconds": _SECONDS, "most": MOST_ROWS}
    with reading(engine, asked, given, **limits, made_up=made_up) as rows:
        if rule.data and not rows(f"SELECT ({rule.data}) AS there")[0]["there"]:
            return NoData()
        return Rows([rule.found(row) for row in rows(rule.sql)])


def backtest(
    ground: Ground,
    rule: Rule,
    times: Sequence[datetime],
    *,
    history: Mapping[str, Callable[[datetime], Given]] | None = None,
) -> list[tuple[datetime, Result, list[Event]]]:
    """Return what a rule would have found at past times, the earliest first, and what would have happened.

    Past times are farther apart than rounds: each row counts as having been there for as long as `for` asks.
    `history` says of relations what they were at a time.

    Raises:
        InputError: the rule reads what is known of now alone, and nobody says what it was.
    """
    known = history or {}
    if unknown := [name for name in NOW_ONLY if rule.reads(name) and name not in known]:
        raise InputError(
            f"it reads {unknown[0]}, which is known of now alone", where=rule.file,
            to_do="`ml-assets alerts test` runs it as of now",
        )  # fmt: skip
    rule = dataclasses.replace(rule, hold=timedelta(), deadline=timedelta.max)
    made: list[tuple[datetime, Result, list[Event]]] = []
    alerts: Sequence[Alert] = ()
    last: datetime | None = None
    stood: State | None = None
    for at in sorted(times):
        given = {name: relation(at) for name, relation in known.items() if rule.reads(name)}
        result = result_of(dataclasses.replace(ground, given={**ground.given, **given}), rule, at)
        after = step(rule, alerts, result, at, last=last, before=stood)
        made.append((at, result, list(after.events)))
        alerts, last, stood = after.alerts, after.at, after.state
    return made


@contextmanager
def alone(engine: Engine, turn: str) -> Iterator[None]:
    """Hold a turn for the length of a block.

    Raises:
        StateError: another process has it, and not only for a moment more.
    """

    def busy() -> None:
        raise StateError("another process is at it", where=turn, to_do="it is done anew in a few minutes")

    with ExitStack() as held:
        for tries_left in reversed(range(_TRIES)):
            try:
                held.enter_context(in_turn(engine, turn, busy))
                break
            except StateError:
                if not tries_left:
                    raise
                time.sleep(_MOMENT)
        yield


def _evaluate(
    ground: Ground, rule: Rule, before: Evaluated | None, now: datetime, people: _Said
) -> tuple[Evaluated, Sequence[Event]]:
    begun = time.monotonic()
    stood: State | None = msgspec.convert(before.state, State) if before else None
    result = result_of(ground, rule, now)
    alerts = msgspec.convert(before.alerts, list[Alert], strict=False) if before else []
    after = step(
        rule, alerts, result, now, last=before.evaluated_at if before else None, before=stood, people=people.of(rule)
    )
    made = Evaluated(
        use_case=rule.use_case,
        rule=rule.name,
        rule_hash=rule.fingerprint,
        number=before.number + 1 if before else 1,
        state=after.state,
        why=result.why if isinstance(result, Failed) else "",
        found=len(result.found) if isinstance(result, Rows) else 0,
        seconds=time.monotonic() - begun,
        evaluated_at=after.at,
        deadline_at=after.at + rule.deadline,
        alerts=msgspec.to_builtins(after.alerts),
    )
    return made, after.events


def _asked(ground: Ground, rule: Rule, as_of: datetime) -> tuple[Asked, dict[str, Given]]:
    day = as_of.date()
    known = {name: given for name, given in ground.given.items() if rule.reads(name)}
    usecase = next((one for one in ground.usecases if one.name == rule.use_case), None)
    if usecase is None:
        return Asked(rule.use_case, day, as_of, "", 0, 0), known
    others = _ReadsOthers(rule, known)
    known |= given_for(ground.lake, usecase, others, day, as_of, threads=ground.threads)
    known |= _of_now(ground, usecase, others)
    return Asked(usecase.name, day, as_of, usecase.currency, usecase.capacity, _left_of_month(usecase, day)), known


@dataclass(frozen=True, slots=True)
class _ReadsOthers:
    """A rule of which only those relations count that are not known already."""

    rule: Rule
    known: Collection[str]

    def reads(self, relation: str) -> bool:
        """Return whether the rule reads a relation that is not known."""
        return relation not in self.known and self.rule.reads(relation)


def _left_of_month(usecase: UseCase, day: date) -> int:
    next_month = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return sum(1 for _ in usecase.calendar.between(day + timedelta(days=1), next_month - timedelta(days=1)))


def _of_now(ground: Ground, usecase: UseCase, rule: _ReadsOthers) -> dict[str, Given]:
    """Return what a rule reads of the landing and of the registry."""
    from ml_assets.lifecycle.champion import agreement
    from ml_assets.lifecycle.waiting import all_progress

    found = {}
    if rule.reads("landing"):
        rows = [
            {"topic": topic, "landed_until": progress.until, "has_landed": bool(progress.partitions)}
            for topic, progress in all_progress(ground.lake, [usecase]).items()
        ]
        found["landing"] = Given(NOW_ONLY["landing"], rows)
    if rule.reads("champions"):
        both = agreement(ground.registry, ground.engine, usecase)
        row = {"by_alias": both.by_alias, "by_ledger": both.by_ledger, "agrees": both.agrees}
        found["champions"] = Given(NOW_ONLY["champions"], [row])
    return found


@dataclass(frozen=True, slots=True)
class _Said:
    """What people have said of all alerts."""

    acknowledged: Collection[str]
    silences: Sequence[Silence]

    def of(self, rule: Rule) -> People:
        keys = {one.key for one in self.silences if (one.use_case, one.rule) == (rule.use_case, rule.name)}
        return People(self.acknowledged, lambda key: "" in keys or key in keys)


def _people(engine: Engine, now: datetime) -> _Said:
    return _Said(acknowledged(engine).keys(), silences(engine, now))


def _rows(rule: Rule, events: Sequence[Event]) -> list[EventRow]:
    return [
        EventRow(
            what=event.what, use_case=rule.use_case, rule=rule.name, rule_hash=rule.fingerprint, kind=event.kind,
            key=event.key, severity=rule.severity, message=event.message, at=event.at, event_id=event.id,
            about=None if event.what == "opened" else event.opened,
        )
        for event in events
    ]  # fmt: skip


def _deliveries(routing: Routing, rule: Rule, events: Sequence[Event]) -> list[Delivery]:
    return [
        Delivery(event.id, sink, start)
        for event in events
        if event.tell
        for sink, start in routing.deliveries(rule.use_case, rule.severity, event.at).items()
    ]


def _tell_outage(engine: Engine, last: Mapping[tuple[str, str], Evaluated], now: datetime, routing: Routing) -> None:
    """Write down and tell, once, that no rule was evaluated for a long time. What was missed is not played again."""
    newest = max((one.evaluated_at for one in last.values()), default=now)
    if now - newest <= _OUTAGE:
        return
    use_case, rule = _EVALUATOR
    message = (
        f"no rule was evaluated from {newest:%Y-%m-%d %H:%M} to {now:%Y-%m-%d %H:%M} UTC, {in_words(now - newest)}; "
        "rules look at now again, and what is open is told"
    )
    opened, closed = (event_id(use_case, rule, what, now.isoformat()) for what in ("opened", "closed"))
    said: dict[str, Any] = {
        "use_case": use_case, "rule": rule, "rule_hash": "", "kind": "not run", "key": "", "severity": "warning",
        "message": message, "at": now,
    }  # fmt: skip
    events = [
        EventRow(what="opened", event_id=opened, **said),
        EventRow(what="closed", event_id=closed, about=opened, **said),
    ]
    before = last.get(_EVALUATOR)
    made = Evaluated(
        use_case=use_case, rule=rule, rule_hash="", number=before.number + 1 if before else 1, state="ok", why=message,
        found=0, seconds=0.0, evaluated_at=now, deadline_at=now + _OUTAGE, alerts=[],
    )  # fmt: skip
    to_tell = [Delivery(opened, sink, at) for sink, at in routing.deliveries(use_case, "warning", now).items()]
    keep_evaluation(engine, made, events, to_tell)
