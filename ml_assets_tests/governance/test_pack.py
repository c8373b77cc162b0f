"""The pack says something in every section, and every clause leads to one."""

import re

import pytest
from markdown_it import MarkdownIt

from ml_assets.governance import PackError, pack, render_pack
from ml_assets.governance.pack import Heading, markdown_table, section_ids

HEADING = Heading("Fails <b>", "fails", "logistic", "2026-03-27", "run-1")


@pytest.fixture
def contents() -> dict[str, str]:
    return {name: f"What is said of {name}." for name in section_ids()}


def test_it_has_every_section_in_both_forms(contents):
    made = render_pack(HEADING, {**contents, "features": markdown_table([{"feature": "a|b", "loss": 0.25}])})
    for said in contents.values():
        assert said in made.markdown or "features" in said
    assert "## 1. Purpose" in made.markdown
    assert "a\\|b" in made.markdown
    assert "<td>a|b</td>" in made.html
    assert "<h2>14. Approvals</h2>" in made.html
    assert made.html.count("<table>") >= 4


def test_html_in_a_section_stays_text(contents):
    """Guards: reasons and descriptions are typed by people; the page is opened by reviewers."""
    made = render_pack(HEADING, {**contents, "approvals": "<script>alert(1)</script>"})
    assert "<script>" not in made.html
    assert "<title>Fails &lt;b&gt;</title>" in made.html


@pytest.mark.parametrize("name", section_ids())
def test_an_empty_section_is_refused(contents, name):
    for nothing in ("", " \n"):
        with pytest.raises(PackError, match=f"has nothing to say of {name}; the model is not registered"):
            render_pack(HEADING, {**contents, name: nothing})
    del contents[name]
    with pytest.raises(PackError, match=name):
        render_pack(HEADING, contents)


def test_a_section_that_nobody_asked_for_is_refused(contents):
    with pytest.raises(PackError, match="no section poem"):
        render_pack(HEADING, {**contents, "poem": "Roses"})


@pytest.mark.parametrize("framework", ["SR 26-2", "SS1/23", "SR 11-7"])
def test_each_framework_is_mapped_and_each_section_answers_it_somewhere(framework):
    (found,) = (f for f in pack._toml("frameworks.toml")["framework"] if f["id"] == framework)
    answered = {name for clause in found["clauses"] for name in clause["sections"]}
    assert answered <= set(section_ids())
    assert {"purpose", "tier", "data_lineage", "features", "training", "performance", "monitoring"} <= answered


def test_a_clause_that_leads_nowhere_is_refused(contents, monkeypatch):
    real = pack._toml

    def broken(name):
        found = real(name)
        if name == "frameworks.toml":
            found["framework"][0]["clauses"].append({"clause": "New", "sections": ["poem"]})
        return found

    monkeypatch.setattr(pack, "_toml", broken)
    with pytest.raises(PackError, match="'New' leads to poem, no section"):
        render_pack(HEADING, contents)


def test_what_is_not_known_says_so():
    said = markdown_table([{"a": None, "b": float("nan"), "c": 1234.0, "d": 0.12345, "e": False, "f": 12345}])
    assert said.splitlines()[-1] == "| unknown | unknown | 1,234 | 0.1235 | **no** | 12,345 |"


def test_what_data_says_loads_nothing_and_links_nowhere(contents):
    """Guards: the value of a slice and the reason of a promotion were Markdown, and loaded pictures from outside."""
    hostile = (
        "![beacon](http://evil.example/x.png) <img src=http://evil.example/y> [free](javascript:alert(1)) | `|`\n\n# No"
    )
    heading = Heading(hostile, hostile, hostile, hostile, hostile)
    table = markdown_table([{"slice": hostile, "who": "ana"}])
    made = render_pack(heading, {**contents, "slices": table, "approvals": "![typed](http://evil.example/z.png)"})
    wide = MarkdownIt("commonmark", {"html": True}).enable("table").render(made.markdown.split("## 14.")[0])
    for page in (made.html, wide):
        assert not re.search(r"<(img|a|script)\b", page), page
    assert "Content-Security-Policy" in made.html
    assert made.html.count("<h1>") == 1
    assert "<td>ana</td>" in made.html, "no column more"
