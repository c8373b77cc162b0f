"""Who is champion: the ledger decides, the alias in MLflow follows, and the next caller repairs what a crash left.

A promotion is first a committed line of the ledger, then a move of the alias. If a process dies between the two, the
alias still names the champion from before, or none; `settle` then moves it. Any other alias was moved by hand: it is
never followed, and nothing is scored until a person has put it back.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from ml_assets.database.promotions import LedgerEntry, last_change, line_of, writing
from ml_assets.errors import StateError
from ml_assets.registry import CHAMPION, ModelRegistry, ModelVersion
from ml_assets.spec import UseCase

# How the reason of a promotion against the gate begins.
AGAINST_THE_GATE = "against the gate: "


class ChampionError(StateError):
    """Ledger and registry do not name the same model; the message says which command corrects it."""


class StrayAliasError(ChampionError):
    """Somebody has moved the alias in MLflow."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The model that scores: its version in the registry, and the line of the ledger that made it champion."""

    version: ModelVersion
    entry: LedgerEntry

    @property
    def model_hash(self) -> str:
        """The SHA-256 of the model's files, as approved."""
        assert self.entry.model_hash is not None  # noqa: S101 - `settle` gives no other
        return self.entry.model_hash


@dataclass(frozen=True, slots=True)
class Agreement:
    """Which version the alias `champion` and the ledger name, with their MLflow runs, which are what is compared.

    A line from before runs were recorded is compared by its version.
    """

    by_alias: int | None
    by_ledger: int | None
    alias_run: str | None = None
    ledger_run: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether they name the same model; before the first promotion both name none."""
        if self.ledger_run is not None:
            return self.alias_run == self.ledger_run
        return self.by_alias == self.by_ledger

    def __str__(self) -> str:
        if self.agrees:
            return f"alias and ledger agree on {_named(self.by_alias)}"
        same_number = self.by_alias == self.by_ledger
        return (
            f"the alias champion is {_named(self.by_alias, self.alias_run if same_number else None)}, "
            f"the ledger says {_named(self.by_ledger, self.ledger_run if same_number else None)}"
        )


def agreement(registry: ModelRegistry, where: Engine | Connection | str, usecase: UseCase) -> Agreement:
    """Return what alias and ledger say of the champion."""
    return _agreement(registry.resolve(usecase.name, CHAMPION), last_change(where, usecase.name))


def settle(
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    *,
    force: bool = False,
    at_step: Callable[[str], None] = lambda _: None,
) -> Champion | None:
    """Return the champion of the ledger, or None before the first promotion; move the alias if a crash left it behind.

    With `force` the alias goes to the ledger's champion wherever it was: for a person who has decided so.

    Raises:
        StrayAliasError: the alias was moved by hand.
        ChampionError: the champion is not in the registry, or its line is from before models were hashed.
    """
    line, alias = last_change(engine, usecase.name), registry.resolve(usecase.name, CHAMPION)
    if force or _left_behind(line, alias):
        with writing(engine, usecase.name) as ledger:
            # Anew: whoever held the ledger may have moved both meanwhile.
            line, alias = last_change(ledger, usecase.name), registry.resolve(usecase.name, CHAMPION)
            if force or _left_behind(line, alias):
                _follow(registry, ledger, usecase, line, at_step)
                alias = registry.resolve(usecase.name, CHAMPION)
    return _settled(registry, usecase, line, alias)


def _follow(
    registry: ModelRegistry,
    ledger: Connection,
    usecase: UseCase,
    line: LedgerEntry | None,
    at_step: Callable[[str], None],
) -> None:
    """Move the alias to the champion of a line, if it is in the registry; take it away if there is no line."""
    if line is None:
        registry.remove_alias(usecase.name, CHAMPION)
        return
    version = registry.version_of(usecase.name, line.mlflow_run_id) if line.mlflow_run_id else None
    if version is None:
        return
    at_step("before_alias")
    registry.promote(usecase.name, version.version, override=overridden(ledger, line))
    at_step("after_alias")


def overridden(where: Engine | Connection | str, line: LedgerEntry) -> str:
    """Return the reason for which a person had a model promoted against the gate; empty if the gate passed."""
    asked = line if line.request_id is None else line_of(where, line.request_id)
    return asked.reason.removeprefix(AGAINST_THE_GATE) if asked.reason.startswith(AGAINST_THE_GATE) else ""


def approved_hash(where: Engine | Connection | str, usecase: UseCase) -> str | None:
    """Return the SHA-256 of the champion's files as approved; None without a champion, or if it was never hashed."""
    line = last_change(where, usecase.name)
    return line.model_hash if line else None


def champion_run(registry: ModelRegistry, where: Engine | Connection | str, usecase: UseCase) -> str | None:
    """Return the MLflow run of the ledger's champion, with which challengers are compared; None if there is none.

    Of a line from before runs were recorded it is the run of its version, as the registry knows it now.
    """
    line = last_change(where, usecase.name)
    if line is None or line.mlflow_run_id is not None:
        return line.mlflow_run_id if line else None
    try:
        return registry.version(usecase.name, line.to_version).run_id
    except LookupError:
        return None


def _left_behind(line: LedgerEntry | None, alias: ModelVersion | None) -> bool:
    """Return whether the alias is where it was before the line was written: so a crash, or a deletion, leaves it."""
    if line is None or line.mlflow_run_id is None:
        return False
    if alias is None:
        return True
    if alias.run_id == line.mlflow_run_id:
        return False
    if line.from_run_id is None:  # the champion before is from a time before runs were recorded, or there was none
        return alias.version == line.from_version
    return alias.run_id == line.from_run_id


def _settled(
    registry: ModelRegistry, usecase: UseCase, line: LedgerEntry | None, alias: ModelVersion | None
) -> Champion | None:
    found, name = _agreement(alias, line), usecase.name
    if line is None:
        if alias is None:
            return None
        raise StrayAliasError(
            f"use case {name}: {found}: somebody has moved the alias in MLflow, and nobody approved that version. "
            f'`ml-assets rollback {name} --reason "..."` takes the alias away; then `ml-assets promote {name}`'
        )
    if line.mlflow_run_id is None or line.model_hash is None:
        raise ChampionError(
            f"use case {name}: the ledger made version {line.to_version} champion before models were hashed, so nobody "
            "can tell whether its files are those that were approved. Look at the version, then confirm it: "
            f'`ml-assets rollback {name} --to {line.to_version} --reason "..."`; or retrain and promote another'
        )
    version = registry.version_of(name, line.mlflow_run_id)
    if version is None:
        raise ChampionError(
            f"use case {name}: the champion, version {line.to_version} of MLflow run {line.mlflow_run_id}, is no "
            f'longer in the registry: somebody has deleted it in MLflow. `ml-assets rollback {name} --reason "..."` '
            "registers the same model again from its run"
        )
    if not found.agrees:
        raise StrayAliasError(
            f"use case {name}: {found}: somebody has moved one without the other. "
            f'`ml-assets rollback {name} --reason "..."` gives the alias back to the ledger\'s version'
        )
    return Champion(version, line)


def _agreement(alias: ModelVersion | None, line: LedgerEntry | None) -> Agreement:
    return Agreement(
        alias.version if alias else None,
        line.to_version if line else None,
        alias.run_id if alias else None,
        line.mlflow_run_id if line else None,
    )


def _named(version: int | None, run_id: str | None = None) -> str:
    if version is None:
        return "none"
    return f"version {version} of run {run_id}" if run_id else f"version {version}"
