"""What an SQL file says of itself in comment lines `-- @tag: value`, and the rest of it without comments. Pure.

Files of features, reports and alerts have such heads; which tags there are, and what they mean, is said there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ml_assets.errors import InputError

_TAG = re.compile(r"^--\s*@(\w+):\s*(.+?)\s*$", re.MULTILINE)
# Comments, texts and quoted names; within a text two quotes are one.
_NOT_CODE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", re.DOTALL)


def tags(sql: str) -> list[tuple[str, str]]:
    """Return tags and values in the order of their lines; a tag may be there several times."""
    return _TAG.findall(sql)


def code_of(sql: str, *, quoted: str = " ") -> str:
    """Return the SQL with a space for each comment and each text, and `quoted` for each quoted name."""
    return _NOT_CODE.sub(lambda found: quoted if found[0].startswith('"') else " ", sql)


def said_once(
    sql: str, file: str, *, needed: Sequence[str], optional: Sequence[str], many: Sequence[str] = ()
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the tags that are there once, and those that may be there several times, by name.

    Raises:
        InputError: a tag is unknown, is there twice, or is missing.
    """
    said: dict[str, str] = {}
    several: dict[str, list[str]] = {tag: [] for tag in many}
    known = (*needed, *optional)
    for tag, value in tags(sql):
        if tag in several:
            several[tag].append(value)
        elif tag not in known:
            raise InputError(f"there is no tag @{tag}; the tags are @{', @'.join((*known, *many))}", where=file)
        elif tag in said:
            raise InputError(f"the tag @{tag} is there twice", where=file)
        else:
            said[tag] = value
    if missing := [f"@{tag}" for tag in needed if tag not in said]:
        raise InputError(f"the head lacks {', '.join(missing)}", where=file)
    return said, several


def reads(sql: str, relation: str) -> bool:
    """Return whether the SQL reads from a relation."""
    return re.search(rf"\b(from|join)\s+{relation}\b", code_of(sql), re.IGNORECASE) is not None
