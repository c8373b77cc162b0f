"""Is a use case complete? All of its SQL runs on empty tables, and its declarations are compared with the result."""

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from ml_assets.contracts import arrow_schema
from ml_assets.errors import InputError
from ml_assets.features import KEYS_SCHEMA, AsOfDatabase, use_of
from ml_assets.features.as_of import SqlFile, sql_files
from ml_assets.features.catalogue import TAGS, declarations
from ml_assets.landing.curate import curate
from ml_assets.landing.schemas import COORDINATES, DEAD_LETTERS, event_schema
from ml_assets.lifecycle.alert_rules import rules_of
from ml_assets.lifecycle.reports import reports_of
from ml_assets.spec import FEEDBACK, DecisionTime, EventSpec, ReferenceSpec, UseCase
from ml_assets.sql_head import tags
from ml_assets.usecases import load

# A line of a draft, or of anybody's file, that says what is still to be thought about.
THINK = re.compile(r"^\s*(?:--|#)\s*THINK:\s*(.+?)\s*$", re.MULTILINE)
_OURS = {"known_at", "business_date", *COORDINATES.names}
_DECISIONS = {
    "entity_id": "VARCHAR, what is decided",
    "outcome_date": "DATE, of which the outcome is predicted",
    "cost_if_fail": "DOUBLE, what it costs if it happens",
    "attributes": "VARCHAR, JSON of what a person needs to see, or NULL",
}
_LABEL = {"entity_id": "VARCHAR", "label": "1 if it happened, 0 if not, NULL if nobody will know"}
_LINE = re.compile(r"\bLINE (\d+):")
_SAID_ALREADY = re.compile(r"^use case \w+: ([\w/]+\.sql failed: )?")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong (`error`) or worth a thought, and where: a file of the folder, a line if it is known."""

    where: str
    what: str
    error: bool = True

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.where}: {self.what}"


@dataclass
class _Findings:
    found: list[Finding] = field(default_factory=list)

    def wrong(self, where: str, what: str) -> None:
        self.found.append(Finding(where, what))

    def think(self, where: str, what: str) -> None:
        self.found.append(Finding(where, what, error=False))

    def try_to(self, where: str, step: Callable[[], object]) -> bool:
        """Do a step; what it raises is a finding."""
        try:
            step()
        except Exception as error:
            self.wrong(where, _one_line(error))
            return False
        return True


def check_module(module: str) -> tuple[UseCase | None, tuple[Finding, ...]]:
    """Return the use case of a module `usecase`, or None if it cannot be imported, and what was found."""
    try:
        usecase = load(module)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        package = module.removesuffix(".usecase").replace(".", "/")
        theirs = [frame for frame in frames if package in Path(frame.filename).as_posix()]
        if isinstance(error, SyntaxError) and error.filename:
            where = f"{Path(error.filename).name}:{error.lineno}"
        else:
            where = f"{Path(theirs[-1].filename).name}:{theirs[-1].lineno}" if theirs else "usecase.py"
        return None, (Finding(where, f"{type(error).__name__}: {_one_line(error)}"),)
    return usecase, check_usecase(usecase)


def check_usecase(usecase: UseCase) -> tuple[Finding, ...]:
    """Return what is wrong with a use case, and what deserves a thought; nothing is written."""
    found = _Findings()
    _look_at_declarations(usecase, found)
    contracts = [_look_at_event(event, found) for event in usecase.events]
    contracts += [_look_at_contract("reference", reference, found) for reference in usecase.references]
    if _look_at_files(usecase, found) and all(contracts):
        _run_sql(usecase, found)
    _look_at_candidates(usecase, found)
    found.try_to("reports", partial(reports_of, usecase))
    found.try_to("alerts", partial(rules_of, usecase))
    for file in sorted({*usecase.folder.rglob("*.sql"), *usecase.folder.rglob("*.py")}):
        text = file.read_text(encoding="utf-8")
        for thought in THINK.finditer(text):
            line = text.count("\n", 0, thought.start(1)) + 1
            found.think(f"{file.relative_to(usecase.folder)}:{line}", thought[1])
    return tuple(found.found)


def refuse_two_contracts(usecases: Sequence[UseCase]) -> None:
    """Do nothing if each topic has one contract, since it is landed once.

    Raises:
        ValueError: a topic has two contracts.
    """
    contracts: dict[str, type] = {}
    for event in (event for usecase in usecases for event in usecase.events):
        if contracts.setdefault(event.topic, event.contract) is not event.contract:
            raise InputError(
                f"topic {event.topic} has two contracts, {_full_name(contracts[event.topic])} and "
                f"{_full_name(event.contract)}; let the use cases share one, or read topics of different names"
            )


def _full_name(contract: type) -> str:
    return f"{contract.__module__}.{contract.__qualname__}"


def _look_at_declarations(usecase: UseCase, found: _Findings) -> None:
    where = "usecase.py"
    for what, names in {
        "use case": [usecase.name],
        "event": [one.name for one in usecase.events],
        "reference": [one.name for one in usecase.references],
        "daily table": [one.name for one in usecase.daily],
        "feature": [one.name for one in usecase.features],
    }.items():
        for name in names:
            if not (name.isidentifier() and name.isascii() and name == name.lower()):
                found.wrong(where, f"the name of the {what} {name!r} must be lower-case letters, digits and _")
    for what, there in {
        "events": usecase.events,
        "slots": usecase.slots,
        "features": usecase.features,
        "limits (what the model must not be used for; without them no model is registered)": usecase.limits,
    }.items():
        if not there:
            found.wrong(where, f"there are no {what}")
    if usecase.capacity < 1:
        found.wrong(where, "capacity, how many decisions the team can act on per slot and date, must be at least 1")
    for name in ("train_days", "calibration_days", "test_days"):
        if getattr(usecase.split, name) < 1:
            found.wrong(where, f"split.{name} must be at least 1")
    first = next(usecase.calendar.between(usecase.first_partition, usecase.first_partition + timedelta(days=14)))

    def label_times() -> None:
        known = usecase.label.known_at(first)
        if known.utcoffset() is None:
            raise InputError(f"label.known_at({first}) has no time zone; give UTC")
        if known < datetime.combine(first, datetime.min.time(), tzinfo=UTC):
            raise InputError(f"label.known_at({first}) is {known:%F %T}, before the outcome date itself")

    found.try_to(where, label_times)
    if all(slot.days_before is None for slot in usecase.slots):
        found.think(
            where,
            "no slot decides everything that is open (Slot.days_before): what is settled or withdrawn stays on the "
            "work-list by its earlier decision; say so where a slot decides all of an outcome date again",
        )
    if not usecase.causes:
        found.think(where, "no causes: the work-list will not say why, nor what to do; see `causes` and Feature.cause")
    if usecase.action.cost == 0:
        found.think(
            where, "acting is free (action): then every list saves money, and the gate cannot ask whether it does"
        )


def _look_at_contract(kind: str, spec: EventSpec | ReferenceSpec, found: _Findings) -> bool:
    where = "contracts.py"
    if not found.try_to(where, lambda: arrow_schema(spec.contract)):
        return False
    names = arrow_schema(spec.contract).names
    if taken := sorted(_OURS.intersection(names)):
        found.wrong(where, f"{kind} {spec.name}: a field cannot be called {taken[0]}, a column that landing adds")
    if missing := [name for name in spec.key if name not in names]:
        found.wrong("usecase.py", f"{kind} {spec.name}: its key {missing[0]} is no field of {spec.contract.__name__}")
    return not (taken or missing)


def _look_at_event(event: EventSpec, found: _Findings) -> bool:
    if not _look_at_contract("event", event, found):
        return False
    where = "usecase.py"
    if found.try_to(where, lambda: curate(event, event_schema(event).empty_table(), DEAD_LETTERS.empty_table())):
        for reason, predicate in event.rules.items():
            try:
                use_of(f"SELECT {predicate}").refuse_foreign((), ())
            except ValueError as error:
                found.wrong(where, f"event {event.name}, rule {reason!r}: {error}")
    return True


def _look_at_files(usecase: UseCase, found: _Findings) -> bool:
    """Return whether all files are there, and read only what they may."""
    needed = {"features/decisions.sql": _DECISIONS, "label.sql": _LABEL}
    needed |= {f"daily/{table.name}.sql": {} for table in usecase.daily}
    missing = [name for name in needed if not (usecase.folder / name).is_file()]
    for name in missing:
        columns = "; ".join(f"{column}: {meaning}" for column, meaning in needed[name].items())
        found.wrong(name, f"the file is missing{columns and f'; it gives {columns}'}")
    for path in sorted((usecase.folder / "daily").glob("*.sql")):
        if path.stem not in {table.name for table in usecase.daily}:
            found.wrong(f"daily/{path.name}", "usecase.py declares no DailySpec of this name, so nobody runs it")
    if missing:
        return False
    honest = True
    for file in sql_files(usecase):
        try:
            use_of(file.sql).refuse_foreign(file.tables, file.variables)
        except ValueError as error:
            found.wrong(_at(file, str(error)), _one_line(error))
            honest = False
        if file.name.startswith("features/"):
            stem = file.name.removeprefix("features/").removesuffix(".sql")
            found.try_to(file.name, partial(declarations, usecase, stem, file.sql))
            if absent := [tag for tag in TAGS if tag not in dict(tags(file.sql))]:
                lines = ", ".join(f"-- @{tag}: ..." for tag in absent)
                found.wrong(f"{file.name}:1", f"its first lines should say whose features these are: {lines}")
    return honest


def _run_sql(usecase: UseCase, found: _Findings) -> None:
    """Run each file on empty tables, and compare its columns with the declarations."""
    decision = _first_decision(usecase)
    if decision is None:
        found.wrong(
            "usecase.py", "there is no decision time within a year of first_partition: look at calendar and slots"
        )
        return
    before = len(found.found)
    try:
        with AsOfDatabase(usecase, {}, {}, threads=1) as history:
            for file in sql_files(usecase):
                try:
                    given = history.columns_of(file, decision)
                except ValueError as error:
                    found.wrong(_at(file, str(error)), _one_line(error))
                    if file.name == "features/decisions.sql":
                        return  # the others read what it gives
                    continue
                needed = {"features/decisions.sql": _DECISIONS, "label.sql": _LABEL}.get(file.name, {})
                for column in (name for name in needed if name not in given):
                    found.wrong(file.name, f"it does not give {column} ({needed[column]})")
                if file.name.startswith("features/") and "entity_id" not in given:
                    found.wrong(file.name, "it does not give entity_id, by which its features join the decisions")
            if len(found.found) == before:
                found.try_to("features", lambda: history.features(decision))
            if len(found.found) == before:
                outcome = decision.decision_date
                found.try_to("label.sql", lambda: history.labels(outcome, KEYS_SCHEMA.empty_table()))
            columns = {*KEYS_SCHEMA.names, *(feature.name for feature in usecase.features)}
    except (ValueError, TypeError) as error:
        if len(found.found) == before:
            daily = re.search(r"daily/\w+\.sql", str(error))
            line = _LINE.search(str(error))
            found.wrong(f"{daily[0] if daily else 'features'}{f':{line[1]}' if line else ''}", _one_line(error))
        return
    for what, source in [("value", usecase.value), *(("slice " + one.name, one.source) for one in usecase.gate.slices)]:
        if source and not source.startswith("attributes.") and source not in (*columns, FEEDBACK):
            found.wrong("usecase.py", f"{what}: {source} is no feature, no key and no attributes.<name>")


def _look_at_candidates(usecase: UseCase, found: _Findings) -> None:
    for candidate in usecase.candidates:
        found.try_to("usecase.py", partial(candidate.build, usecase.features, usecase.seed))
    if len(usecase.candidates) < 2:
        found.wrong("usecase.py", "there is no candidate besides the rule")


def _first_decision(usecase: UseCase) -> DecisionTime | None:
    days = (usecase.first_partition + timedelta(days=ahead) for ahead in range(366))
    return next((time for day in days for time in usecase.decision_times(day)), None)


def _at(file: SqlFile, said: str) -> str:
    """Return the file, with the line that DuckDB has named."""
    line = _LINE.search(said)
    return f"{file.name}:{line[1]}" if line else file.name


def _one_line(error: BaseException) -> str:
    """Return what an error says, without the copy of the SQL below it."""
    text = _SAID_ALREADY.sub("", str(error).partition("\nLINE ")[0])
    return " ".join(text.split()) or type(error).__name__
