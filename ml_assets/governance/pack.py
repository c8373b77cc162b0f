"""Sections to a document: two TOML files and a template beside this module say what the document needs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ml_assets import markdown
from ml_assets.errors import InputError


class PackError(InputError):
    """A section has no content, or a clause leads nowhere: the model must not be registered."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A model-risk pack as Markdown and as a HTML page that stands alone."""

    markdown: str
    html: str


@dataclass(frozen=True, slots=True)
class Heading:
    """Which model the pack is about."""

    title: str
    use_case: str
    model: str
    training_date: str
    run_id: str


def section_ids() -> list[str]:
    """Return the ids of the sections that a pack must have, in their order."""
    return [section["id"] for section in _toml("sections.toml")["section"]]


def render_pack(heading: Heading, contents: Mapping[str, str]) -> Pack:
    """Return the pack; `contents` maps section ids to Markdown, in which what people and feeds wrote is escaped.

    Raises:
        PackError: a section is missing, empty or unknown, or a framework's clause names no section.
    """
    import jinja2
    from markdown_it import MarkdownIt

    sections = _toml("sections.toml")["section"]
    numbers = {section["id"]: number for number, section in enumerate(sections, start=1)}
    _refuse_gaps(heading, numbers, contents)
    frameworks = [
        {
            **framework,
            "clauses": [
                {
                    "clause": clause["clause"],
                    "where": _where(framework["id"], clause, numbers, sections),
                }
                for clause in framework["clauses"]
            ],
        }
        for framework in _toml("frameworks.toml")["framework"]
    ]
    # The page is HTML: what is put into it is escaped. Markdown has escapes of its own, the filters `text` and `code`;
    # the renderer knows no raw HTML, links or images, and the page's policy loads nothing.
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(enabled_extensions=["html.j2"], default=False),
    )
    environment.filters.update(text=markdown.text, code=markdown.code)
    written = environment.get_template("model_risk_pack.md.j2").render(
        title=heading.title,
        use_case=heading.use_case,
        model=heading.model,
        training_date=heading.training_date,
        run_id=heading.run_id,
        sections=[{**section, "content": contents[section["id"]].strip()} for section in sections],
        frameworks=frameworks,
    )
    body = (
        MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"]).render(written)
    )
    page = environment.get_template("model_risk_pack.html.j2").render(title=heading.title, body=body)
    return Pack(written, page)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table, empty without rows; numbers with four digits, unknown ones as `unknown`."""
    if not rows:
        return ""
    names = list(rows[0])
    return markdown.table(names, ([row[name] for name in names] for row in rows), _number)


def _number(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and value != value):
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return None


def _refuse_gaps(heading: Heading, numbers: Mapping[str, int], contents: Mapping[str, str]) -> None:
    if empty := [name for name in numbers if not contents.get(name, "").strip()]:
        raise PackError(
            f"the model-risk pack of {heading.use_case}, run {heading.run_id}, has nothing to say of "
            f"{', '.join(empty)}; the model is not registered. Train and evaluate it anew, and complete the use case's "
            "spec"
        )
    if unknown := sorted(set(contents) - set(numbers)):
        raise PackError(f"the model-risk pack has no section {', '.join(unknown)}; see governance/sections.toml")


def _where(framework: str, clause: Mapping[str, Any], numbers: Mapping[str, int], sections: Sequence[Any]) -> str:
    titles = {section["id"]: section["title"] for section in sections}
    if not clause["sections"] or (unknown := [name for name in clause["sections"] if name not in numbers]):
        named = ", ".join(unknown) if clause["sections"] else "nothing"
        raise PackError(f"governance/frameworks.toml: {framework}, {clause['clause']!r} leads to {named}, no section")
    return ", ".join(f"{numbers[name]} {titles[name]}" for name in clause["sections"])


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads(_text(name))


def _text(name: str) -> str:
    return (resources.files("ml_assets.governance") / name).read_text(encoding="utf-8")
