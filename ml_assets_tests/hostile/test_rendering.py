"""Text that people and feeds wrote stays text, in Markdown and in what is rendered from it."""

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ml_assets import markdown

pytestmark = pytest.mark.hostile

# What opens markup somewhere in Markdown or HTML, and letters between.
PIECES = st.sampled_from(
    ["![", "](", ")", "[", "]", "http://evil.example/x.png", "www.evil.example", "<img src=x>", "<!--", "&lt;", "&#33;",
     "`", "``", "|", "\\", "\\\\", "*", "**", "_", "~~", "#", "# ", "- ", "+ ", "1. ", "=", "---", "> ", "$", "^", ":",
     "\n", "\r\n", "\t", "\u2028", "\x85", "\x00", "\x1b", "\u202e", "a", "é", " ", "[x]: http://evil.example", "@"]
)  # fmt: skip
WORDS = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30)
WIDE = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])  # a renderer that forbids nothing


def rendered(written: str, tag: str) -> str:
    """The text of the one element that the Markdown must be; anything but text in it is a failure."""
    made = WIDE.render(written).strip()
    found = re.fullmatch(rf"<{tag}>(.*)</{tag}>", made, re.DOTALL)
    assert found, (written, made)
    assert "<" not in found[1], (written, made)
    return html.unescape(found[1])


def shown(words: str) -> str:
    """What is to be seen of some words: one line, without characters that are not shown."""
    return markdown.shown(words)


@given(WORDS)
@example("![x](http://evil.example/beacon.png)")
@example("<img src='http://evil.example/x'>")
@example("    code")
def test_words_are_shown_as_they_are(words: str) -> None:
    """Guards the model-risk pack, which loaded pictures from where a slice's value said."""
    if not shown(words):
        return
    assert rendered(markdown.text(words), "p") == shown(words)


@given(WORDS)
def test_words_within_a_sentence_are_shown_as_they_are(words: str) -> None:
    assert rendered(f"so {markdown.text(words)} it is", "p") == f"so {shown(words)} it is".replace("so  it", "so  it")


@given(WORDS)
def test_a_name_is_one_code_span_or_plain_text(words: str) -> None:
    if not shown(words):
        assert markdown.code(words) == ""
        return
    made = WIDE.render(f"a {markdown.code(words)}").strip()
    inner = re.fullmatch(r"<p>a (?:<code>)?([^<]*)(?:</code>)?</p>", made)
    assert inner, made
    assert html.unescape(inner[1]) == shown(words)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3), WORDS)
@example([("a|b", "x\ny")], "head|er")
def test_a_table_has_its_cells_and_no_other(rows: list[tuple[str, str]], name: str) -> None:
    """Guards pipes and line breaks, which make columns and rows, also in headings that values name."""
    made = WIDE.render(markdown.table([name, "b"], rows))
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", made, re.DOTALL)
    assert [html.unescape(cell) for cell in cells] == [shown(c) for c in (name, "b", *(c for row in rows for c in row))]
    assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td)>)", made), made


@pytest.mark.parametrize(
    "address", ["http://evil.example", "https://evil.example", "www.evil.example", "a@evil.example"]
)
def test_a_bare_address_is_no_link(address: str) -> None:
    """As GitHub, where the model report is a comment, and markdown-it would make one of it."""
    said = markdown.text(f"see {address} now")
    assert address not in said
    assert rendered(said, "p") == f"see {address} now"


def test_what_the_code_means_passes() -> None:
    said = markdown.table(
        ["a", "b"], [[markdown.Markdown("**yes**"), 3]], lambda value: f"{value:.1f}" if value == 3 else None
    )
    assert said.splitlines()[-1] == "| **yes** | 3.0 |"
