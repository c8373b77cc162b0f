"""What is printed for people: no id, reason or name of a message is a command to rich or to a terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from ml_assets.screen import Screen


def printed(*things: object, encoding: str = "utf-8") -> str:
    """What a screen of this encoding prints; each text on its own, in a table's cell, title and coloured."""
    held = io.BytesIO()
    file = io.TextIOWrapper(held, encoding=encoding, newline="")
    screen = Screen(file=file, width=200)
    for thing in things:
        screen.print(thing)
    file.flush()
    return held.getvalue().decode(encoding)


def everywhere(text: str, encoding: str = "utf-8") -> str:
    """What is printed of a text wherever one may stand."""
    table = Table("column", title=text, caption=text)
    table.add_column(text)
    table.add_row(text, Text(text, "red"))
    return printed(text, table, Text.assemble((text, "bold"), " more"), encoding=encoding)


@pytest.mark.parametrize("text", ["[/x]", "[red]", "[/]", "[link=http://a]b[/link]", ":warning:", "[bold", "\\[x]"])
def test_text_is_never_markup(text: str) -> None:
    """Guards `work-list` and `dead-letters list`, which one record with `[/x]` in its id ended."""
    assert everywhere(text).count(text) == 7


@given(st.text(st.characters(codec="utf-8", max_codepoint=0x2FFF), max_size=60))
def test_no_text_drives_a_terminal_or_ends_a_command(text: str) -> None:
    for encoding in ("utf-8", "ascii"):
        said = everywhere(text, encoding)
        assert not [
            c for c in said if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or "\u202a" <= c <= "\u202e"
        ]


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "\x1b[2J", "a\rb", "\x9b31m", "\u202egnp.exe"])
def test_control_characters_are_shown_by_their_code(text: str) -> None:
    said = everywhere(text)
    assert said.count("\\") >= 5


def test_a_terminal_without_utf_8_gets_what_it_can_show() -> None:
    said = everywhere("Société · 1 ✓ …", "ascii")
    assert "Soci?t? - 1 v ~" in said
    assert "Société" in everywhere("Société", "latin-1")
