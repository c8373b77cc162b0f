"""The cases beside a rule, run on PostgreSQL: the rule sees the rows of the case and nothing of the database's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Final

from sqlalchemy import Engine

from ml_assets.alerts.cases import Case, differences, read_cases
from ml_assets.alerts.machine import Failed, NoData, Result
from ml_assets.alerts.rule import Rule
from ml_assets.database.reports import Asked, Given
from ml_assets.errors import InputError, NotFoundError
from ml_assets.lifecycle.alert_rules import PLATFORM
from ml_assets.lifecycle.alerts import NOW_ONLY, find
from ml_assets.lifecycle.feeds import FEED_COLUMNS, QUALITY_COLUMNS, REASON_COLUMNS
from ml_assets.spec import UseCase

_GIVEN: Final[Mapping[str, Mapping[str, type]]] = {
    **NOW_ONLY,
    "feeds": FEED_COLUMNS,
    "quality": QUALITY_COLUMNS,
    "reasons": REASON_COLUMNS,
    "causes": {"code": str, "name": str, "action": str},
}
_SUFFIX: Final = ".test.toml"


def cases_of(usecases: Sequence[UseCase], rule: Rule) -> list[Case]:
    """Return the cases of the file beside a rule's.

    Raises:
        NotFoundError: there is no such file.
        InputError: it is no file of cases.
    """
    name = rule.name + _SUFFIX
    own = next((one.folder / "alerts" / name for one in usecases if one.name == rule.use_case), None)
    shared = resources.files("ml_assets.database") / "sql" / "alerts"
    folders = [shared / PLATFORM / name] if rule.use_case == PLATFORM else [own, shared / "use_case" / name]
    file = next((one for one in folders if one is not None and one.is_file()), None)
    if file is None:
        raise NotFoundError(
            f"it has no cases beside it, {name}", where=rule.file, to_do="write some: docs/alerts.md shows one"
        )
    return read_cases(file.read_text(encoding="utf-8"), where=name)


def failures(engine: Engine, rule: Rule, cases: Sequence[Case]) -> list[str]:
    """Return what a rule says otherwise than its cases; empty if it says what they do."""
    return [said for case in cases if (said := _failure(engine, rule, case))]


def _failure(engine: Engine, rule: Rule, case: Case) -> str:
    relations = case.relations
    given = {name: Given(columns, relations.pop(name, [])) for name, columns in _GIVEN.items()}
    asked = Asked(rule.use_case, case.as_of.date(), case.as_of, "EUR", 100, 10)
    result: Result
    try:
        result = find(engine, rule, asked, given, made_up=relations)
    except InputError as error:
        result = Failed(str(error))
    if isinstance(result, Failed):
        return f"{case.says}: {result.why}"
    if isinstance(result, NoData):
        return differences(case, "no data", [])
    return differences(case, "firing" if result.found else "ok", [one.message for one in result.found])
