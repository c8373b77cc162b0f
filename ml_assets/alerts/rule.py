"""A rule of alerts: one SELECT in one file, whose rows are what fires, and a head that says what that means.

    -- @title: Fail rate of a market
    -- @severity: warning
    -- @follows: outcomes
    -- @deadline: 4 days
    -- @description: The share of fails of a market is far above what it was in the 20 dates before.
    -- @runbook: fail-rate-of-a-market
    -- @message: {market}: {fail_rate|share} of {instructions|count} instructions failed
    -- @key: market
    -- @for: 1 hour
    -- @keep_firing_for: 1 day
    -- @data: EXISTS (SELECT FROM outcomes WHERE is_complete)

| tag | says |
| --- | --- |
| severity | `critical` (somebody acts now), `warning` (today) or `info` |
| every, or follows | how often it is evaluated; or the asset of the use case after which it is |
| deadline | without an evaluation for so long it counts as not run; three times `every` if left out |
| key | the columns that tell one alert of the rule from another; none if there is at most one |
| message | what is told; `{column}` is the value of the row, `{column|unit}` in a unit of `reports.units` |
| for | for how long a row must be there until the alert opens |
| keep_firing_for | for how long it must be gone until the alert closes |
| repeat | an open alert that nobody acknowledged is told again after so long |
| data | a condition in SQL without which the rule cannot say anything: its state is then `no data`, not `ok` |
| owner, runbook | whose it is (the use case's owner if left out), and the section of docs/runbooks.md |

Only the columns of key and message leave the database. What names a person is refused in both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, get_args

from ml_assets.alerts.durations import duration
from ml_assets.errors import InputError
from ml_assets.markdown import shown
from ml_assets.reports.units import UNITS, Unit, show
from ml_assets.sql_head import reads, said_once
from ml_assets.sql_select import refuse_unless_select

Severity = Literal["critical", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)

_NEEDED: Final = ("title", "severity", "description", "runbook", "message")
_OPTIONAL: Final = ("owner", "every", "follows", "deadline", "key", "for", "keep_firing_for", "repeat", "data")
_PLACEHOLDER: Final = re.compile(r"\{(\w+)(?:\|([\w ,]+))?\}")
_ANCHOR: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# Columns of the ledgers that hold names of people, and what is usually called so.
_OF_PEOPLE: Final = frozenset(
    {"actor", "database_user", "email", "first_name", "last_name", "login", "phone", "trader"}
)
_DEADLINE_EVALUATIONS: Final = 3
_REPEAT: Final = timedelta(days=1)
# Longer texts are cut: a row is not a document.
_KEY_LENGTH, _MESSAGE_LENGTH = 80, 400


@dataclass(frozen=True, slots=True)
class Found:
    """A row of a rule: the key that tells it from others (`market=XPAR`), and the message for people."""

    key: str
    message: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as its file declares it; `every` is None if it follows an asset, `follows` is empty if it does not."""

    use_case: str
    name: str
    file: str
    sql: str
    title: str
    severity: Severity
    owner: str
    description: str
    runbook: str
    message: str
    keys: tuple[str, ...]
    every: timedelta | None
    follows: str
    deadline: timedelta
    hold: timedelta
    keep: timedelta
    repeat: timedelta
    data: str

    @property
    def full_name(self) -> str:
        """The name with that of the use case, as commands take it."""
        return f"{self.use_case}/{self.name}"

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits of the file, which the ledger keeps beside each line."""
        return hashlib.sha256(self.sql.encode()).hexdigest()[:12]

    def reads(self, relation: str) -> bool:
        """Return whether the SQL, or the condition for its data, reads from a relation."""
        return reads(self.sql, relation) or reads(self.data, relation)

    def found(self, row: Mapping[str, Any]) -> Found:
        """Return what a row says: key and message, each one clean line.

        Raises:
            InputError: the row lacks a column that the head names.
        """
        key = ", ".join(f"{name}={self._value(row, name, None)[:_KEY_LENGTH]}" for name in self.keys)
        message = _PLACEHOLDER.sub(lambda one: self._value(row, one[1], one[2]), self.message)
        return Found(key, _cut(message, _MESSAGE_LENGTH))

    def _value(self, row: Mapping[str, Any], column: str, unit: str | None) -> str:
        if column not in row:
            raise InputError(
                f"the head names the column {column}, which the SELECT does not give; it gives {', '.join(row)}",
                where=self.file,
            )
        return shown(show(row[column], UNITS[unit] if unit else _unit_of(row[column])))


def read_rule(use_case: str, name: str, file: str, sql: str, *, owner: str) -> Rule:
    """Return the rule of a file.

    Raises:
        InputError: the head lacks a tag, has one too many, or says what cannot be; or the SQL is not one SELECT that
            gives the same for the same time.
    """
    said, _ = said_once(sql, file, needed=_NEEDED, optional=_OPTIONAL)
    if (severity := said["severity"]) not in SEVERITIES:
        raise InputError(f"@severity is {severity!r}; it is {', '.join(SEVERITIES)}", where=file)
    if ("every" in said) == ("follows" in said):
        raise InputError("the head has @every or @follows, and not both", where=file)
    if "follows" in said and "deadline" not in said:
        raise InputError("a rule that follows an asset needs a @deadline", where=file)
    if not _ANCHOR.fullmatch(said["runbook"]):
        raise InputError(
            f"@runbook is {said['runbook']!r}; it is a section of docs/runbooks.md, as stuck-runs", where=file
        )
    refuse_unless_select(file, sql, "rule")
    data = said.get("data", "")
    refuse_unless_select(file, data, "rule")
    keys = tuple(one.strip() for one in said.get("key", "").split(",") if one.strip())
    _refuse_words(file, said["message"], keys)

    def length(tag: str, otherwise: timedelta) -> timedelta:
        return duration(said[tag], where=f"{file}: @{tag}") if tag in said else otherwise

    every = duration(said["every"], where=f"{file}: @every") if "every" in said else None
    return Rule(
        use_case=use_case,
        name=name,
        file=file,
        sql=sql,
        title=said["title"],
        severity=severity,
        owner=said.get("owner", owner),
        description=said["description"],
        runbook=said["runbook"],
        message=said["message"],
        keys=keys,
        every=every,
        follows=said.get("follows", ""),
        deadline=length("deadline", _DEADLINE_EVALUATIONS * every if every else timedelta()),
        hold=length("for", timedelta()),
        keep=length("keep_firing_for", timedelta()),
        repeat=length("repeat", _REPEAT),
        data=data,
    )


def _refuse_words(file: str, message: str, keys: tuple[str, ...]) -> None:
    for column, unit in _PLACEHOLDER.findall(message):
        if unit and unit not in UNITS:
            raise InputError(f"@message has the unit {unit!r}; units are {', '.join(UNITS)}", where=file)
        if column in _OF_PEOPLE:
            raise InputError(f"@message names {column}: who a person is does not leave the database", where=file)
    if people := sorted(_OF_PEOPLE & set(keys)):
        raise InputError(f"@key names {people[0]}: who a person is does not leave the database", where=file)
    if left := re.search(r"[{}]", _PLACEHOLDER.sub("", message)):
        raise InputError(f"@message has a {left[0]} that names no column", where=file)


def _unit_of(value: Any) -> Unit:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return UNITS["text"]
    return UNITS["count"] if isinstance(value, int) else UNITS["metric"]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
