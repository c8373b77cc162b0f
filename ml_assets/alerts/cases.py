'''Cases of a rule: rows in, alerts out, in a file beside the rule, as people write them.

    [[case]]
    says = "a request that has waited for more than a day"
    as_of = 2026-03-03T10:00:00Z
    alerts = ["version 3 has waited for 25 hours"]
    rows.promotions = """
    id | action    | to_version | recorded_at
    1  | requested | 3          | 2026-03-02 09:00Z
    """

`alerts` are messages, in any order; `state = "no data"` in place of them says that the rule's data is not there. The
rows are all that the rule sees: what is not named has none. A cell that is empty is null; one in braces is JSON.
'''

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ml_assets.errors import InputError


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One case: when it is, what there is by relation, and what the rule says of it."""

    says: str
    as_of: datetime
    alerts: list[str] = []
    state: str = ""
    rows: dict[str, str] = {}

    @property
    def relations(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of each relation."""
        return {name: _table(text, f"{self.says}: rows.{name}") for name, text in self.rows.items()}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    case: list[Case]


def read_cases(text: str, *, where: str) -> list[Case]:
    """Return the cases of a file.

    Raises:
        InputError: it is no such file; the text says where.
    """
    try:
        return msgspec.convert(tomllib.loads(text), _File).case
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InputError(str(error), where=where) from error


def differences(case: Case, state: str, messages: Sequence[str]) -> str:
    """Return what a rule said that the case does not, or the other way round; empty if they agree."""
    wanted = {"state": case.state or ("firing" if case.alerts else "ok"), "alerts": sorted(case.alerts)}
    found: Mapping[str, Any] = {"state": state, "alerts": sorted(messages)}
    return "" if found == wanted else f"{case.says}: it should be {_said(wanted)}, and is {_said(found)}"


def _said(of: Mapping[str, Any]) -> str:
    return f"{of['state']} ({'; '.join(of['alerts']) or 'nothing'})"


def _table(text: str, where: str) -> list[dict[str, Any]]:
    lines = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    if uneven := [line for line in lines if len(line) != len(lines[0])]:
        raise InputError(f"the line {' | '.join(uneven[0])!r} has another number of cells than the first", where=where)
    return [{name: _cell(cell) for name, cell in zip(lines[0], line, strict=True)} for line in lines[1:]]


def _cell(text: str) -> Any:
    if not text:
        return None
    return json.loads(text) if text.startswith("{") else text
