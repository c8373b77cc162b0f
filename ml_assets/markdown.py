"""Text to Markdown. Words from people and feeds stay plain text, in tables, in sentences and when rendered as HTML.

Code that puts a value into Markdown calls one of these: `text` for words, `code` for a name, `table` for rows. Markup
that the code itself writes is a `Markdown`; everything else is escaped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# Everything that opens markup in CommonMark or in GitHub's tables, strikethrough and footnotes, and HTML entities. A
# `_` between letters, as in a name, opens nothing.
_MARKUP = re.compile(r"[\\`*\[\]<|&~$^]|(?<![^\W_])_|_(?![^\W_])")
# Characters that turn a bare address into a link, and those that turn the start of a line into a heading, list or code.
_ADDRESS = re.compile(r":(?=//)|@|(?<=\bwww)\.", re.IGNORECASE)
_START = re.compile(r"^(#+|>|[-+=]+|\d+(?=[.)]))")
_BREAKS = re.compile(r"[\s\u2028\u2029\x85]+")


class Markdown(str):
    """Markdown that the code wrote, not data: it goes into a cell unescaped."""

    __slots__ = ()


def text(value: object) -> str:
    """Return a value as Markdown that shows exactly its characters, in one line.

    Whitespace of any kind becomes one space. An invisible character, or one that changes the direction of writing,
    becomes U+FFFD.
    """
    line = _escaped(value)
    if found := _START.match(line):
        start = found[1]
        line = (f"{start}\\" if start.isdigit() else f"\\{start}") + line[len(start) :]
    return line


def code(value: object) -> str:
    """Return a value as a code span of one line, also for a table's cell; an empty value gives an empty text."""
    line = shown(value)
    if not line:
        return ""
    if "|" in line:  # a table splits at it even within a code span
        return _escaped(line)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def table(
    columns: Sequence[object], rows: Iterable[Sequence[Any]], show: Callable[[Any], str | None] = lambda _: None
) -> str:
    """Return rows as a Markdown table.

    `show` returns the Markdown of a value that is not text (a number, a yes), and None for text.
    """

    def cell(value: Any) -> str:
        if isinstance(value, Markdown):
            return str(value)
        shown = show(value)
        return _escaped(value) if shown is None else shown

    lines = [list(map(_escaped, columns)), ["---"] * len(columns), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(value: object) -> str:
    """Return a value as Markdown, without escaping what is markup only at the start of a line."""
    return _ADDRESS.sub(r"\\\g<0>", _MARKUP.sub(r"\\\g<0>", shown(value)))


def shown(value: object) -> str:
    """Return a value in one line of visible characters."""
    line = _BREAKS.sub(" ", str(value)).strip()
    if line.isascii() and line.isprintable():
        return line  # most are, and a letter at a time takes long
    return "".join("\ufffd" if unicodedata.category(letter) in {"Cc", "Cf", "Cs"} else letter for letter in line)
