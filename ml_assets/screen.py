"""Printing for people: text as it is, on any terminal.

Ids, reasons and names come from messages and files. On a screen they are never markup, never emoji, and never commands
to the terminal: a control character is shown as its code. A character that a terminal cannot show is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# C0 except the line break, DEL, C1, and characters that change the direction of writing.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
# Each character is replaced by one character, so that columns stay aligned.
_ASCII = str.maketrans({"·": "-", "…": "~", "✓": "v", "\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'"})
_UNKNOWN_WIDTH = 80  # what rich assumes if it cannot find out
_WIDE = 140  # wide enough for a work-list


class Screen(Console):
    """A console that prints text as it is. Use a `rich.text.Text` for colour."""

    def __init__(self, **options: Any) -> None:
        """Take the options of rich's console."""
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text with its control characters shown as codes, before its width is measured."""
        return super().render_str(shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments to print, in characters that the terminal has."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=self._within(shown(segment.text)))

    def _within(self, text: str) -> str:
        if text.isascii() or self.encoding.startswith("utf"):
            return text
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return text.translate(_ASCII).encode(self.encoding, "replace").decode(self.encoding)
        return text


def screen(*, stderr: bool = False, file: IO[str] | None = None) -> Screen:
    """Return the screen: as wide as the terminal, or wide enough for a work-list if there is no terminal."""
    found = Screen(stderr=stderr, file=file)
    return (
        found if found.is_terminal or found.width != _UNKNOWN_WIDTH else Screen(stderr=stderr, file=file, width=_WIDE)
    )


def shown(text: str) -> str:
    """Return a text with its control characters shown as codes; a line break stays, a tab becomes spaces."""
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
