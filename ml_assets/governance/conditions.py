"""Conditions as rows for people: the one way in which assets, model-risk pack and command line show them."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ml_assets.learning.gate import Condition

# As the gate gives a time.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
_WORDS = {">=": "at least", "<=": "at most", "==": "is"}


def condition_rows(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """Return one row per condition, those that fail first."""
    return [
        {
            "condition": c.name,
            "holds": c.passed,
            "measured": said(c.value) if c.value is None or isinstance(c.value, str) else c.value,
            "asked": f"{_WORDS[c.comparison]} {said(c.threshold)}",
            "why": c.why,
        }
        for c in sorted(conditions, key=lambda c: c.passed)
    ]


def sentence(condition: Condition) -> str:
    """Return a condition as a sentence: what was measured, the threshold, and the reason for it."""
    return (
        f"{condition.name} is {said(condition.value)}, asked is {_WORDS[condition.comparison]} "
        f"{said(condition.threshold)}: {condition.why}"
    )


def said(value: float | str | None) -> str:
    """Return a value with four digits, and a time to the minute; None is unknown."""
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M}" if _TIME.fullmatch(value) else value
    return f"{value:.4g}" if isinstance(value, float) else str(value)
