"""Rules of alerts: which there are, by being there, and which assets each is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ml_assets.alerts.rule import Rule, read_rule
from ml_assets.database.sql_files import shared_and_own, shared_sql
from ml_assets.errors import NotFoundError
from ml_assets.lifecycle.reports import assets_read
from ml_assets.spec import UseCase

# What belongs to no use case: runs, storage, and the evaluator itself.
PLATFORM: Final = "platform"


def rules_of(usecase: UseCase) -> dict[str, Rule]:
    """Return the rules of a use case by name: those that all have, and its own.

    Raises:
        InputError: a head is wrong, two files have one name, or a rule follows an asset that there is not.
    """
    files = shared_and_own(usecase.name, "rule", "alerts", usecase.alert_sql, "use_case")
    return {name: read_rule(usecase.name, name, file, sql, owner=usecase.owner) for name, (file, sql) in files.items()}


def platform_rules() -> dict[str, Rule]:
    """Return the rules that are of no use case, by name."""
    return {
        name: read_rule(PLATFORM, name, f"sql/alerts/platform/{name}.sql", sql, owner="ml-platform")
        for name, sql in shared_sql("alerts", PLATFORM).items()
    }


def all_rules(usecases: Sequence[UseCase]) -> list[Rule]:
    """Return all rules: those of the platform, then those of each use case."""
    return [*platform_rules().values(), *(rule for usecase in usecases for rule in rules_of(usecase).values())]


def rule_of(usecases: Sequence[UseCase], full_name: str) -> Rule:
    """Return a rule by its full name, `<use case>/<rule>`.

    Raises:
        NotFoundError: there is none.
    """
    known = {rule.full_name: rule for rule in all_rules(usecases)}
    if full_name not in known:
        raise NotFoundError(f"there is no rule {full_name!r}; there are {', '.join(known)}")
    return known[full_name]


def assets_of(usecases: Sequence[UseCase], rule: Rule) -> tuple[str, ...]:
    """Return the assets that a rule is about, as `<use case>/<asset>`."""
    usecase = next((one for one in usecases if one.name == rule.use_case), None)
    return tuple("/".join([rule.use_case, *names]) for names in assets_read(usecase, rule)) if usecase else ()
