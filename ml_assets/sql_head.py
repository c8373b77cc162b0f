"""What an SQL file says of itself in comment lines `-- @tag: value`, and the rest of it without comments. Pure.

Files of features and of reports have such heads; which tags there are, and what they mean, is said where they are used.
"""

from __future__ import annotations

import re

_TAG = re.compile(r"^--\s*@(\w+):\s*(.+?)\s*$", re.MULTILINE)
# Comments, texts and quoted names; within a text two quotes are one.
_NOT_CODE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", re.DOTALL)


def tags(sql: str) -> list[tuple[str, str]]:
    """Return tags and values in the order of their lines; a tag may be there several times."""
    return _TAG.findall(sql)


def code_of(sql: str) -> str:
    """Return the SQL with a space for each comment, each text and each quoted name."""
    return _NOT_CODE.sub(" ", sql)
