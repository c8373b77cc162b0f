"""Sections to a document: what is asked for is in two TOML files and a template beside this module."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

_STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;line-height:1.45;"
    "color:#222}table{border-collapse:collapse;margin:1rem 0}th,td{border:1px solid #ccc;padding:.25rem .6rem;"
    "text-align:left;vertical-align:top}th{background:#f2f2f2}code{background:#f4f4f4;padding:0 .2rem}"
    "h2{border-bottom:1px solid #ddd;margin-top:2.5rem}"
)


class PackError(ValueError):
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
    """Return the pack; `contents` maps section ids to Markdown.

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
    # Markdown is not HTML: escaping would spoil it; the HTML is made from it with raw HTML turned off.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
    template = environment.from_string(_text("model_risk_pack.md.j2"))
    markdown = template.render(
        title=heading.title,
        use_case=heading.use_case,
        model=heading.model,
        training_date=heading.training_date,
        run_id=heading.run_id,
        sections=[{**section, "content": contents[section["id"]].strip()} for section in sections],
        frameworks=frameworks,
    )
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(heading.title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )
    return Pack(markdown, page)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table, empty without rows; numbers with four digits, unknown ones as `unknown`."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


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
