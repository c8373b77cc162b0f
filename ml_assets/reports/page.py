"""A report and its rows to files: a page that stands alone, Markdown, CSV, plots. The same rows give the same bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

from ml_assets import markdown
from ml_assets.errors import InputError
from ml_assets.reports.sheet import csv_text
from ml_assets.reports.spec import PLACEHOLDER, SECTION, Column, Plot, Report
from ml_assets.reports.units import show, write

Row = Mapping[str, Any]
# Labels of a plot of bars: more cannot be told apart.
_BARS = 15


@dataclass(frozen=True, slots=True)
class About:
    """Whose report it is, of which date, and in which currency costs are."""

    use_case: str
    title: str
    currency: str
    day: date


@dataclass(frozen=True, slots=True)
class Section:
    """A table of a report: its title (empty without sections), the columns that have values in it, and its rows."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """What a report says: its summary and its tables."""

    summary: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Page(Content):
    """A report that is made: what it says, and its files by name."""

    files: Mapping[str, bytes]


def content_of(report: Report, about: About, rows: Sequence[Row]) -> Content:
    """Return what a report says, without its files; `rows` as for `make_page`.

    Raises:
        InputError: the SQL gives other columns than the head declares.
    """
    _refuse_other_columns(report, rows)
    return Content(_summary(report, about, rows), _sections(report, rows))


def make_page(report: Report, about: About, rows: Sequence[Row]) -> Page:
    """Return the files of a report: `<name>.html`, `.md`, `.csv`, and a PNG for each plot.

    `rows` are in the order in which they are shown, with a key for each declared column.

    Raises:
        InputError: the SQL gives other columns than the head declares.
    """
    content = content_of(report, about, rows)
    sections, summary = content.sections, content.summary
    plots = _plots(report, sections)
    files = {
        f"{report.name}.html": _html(report, about, summary, sections, plots).encode(),
        f"{report.name}.md": _markdown(report, about, summary, sections, plots).encode(),
        f"{report.name}.csv": _csv(report, about, rows).encode(),
    }
    return Page(summary, sections, files | plots)


def table_of(section: Section, currency: str) -> str:
    """Return a table as Markdown."""
    headings = [column.heading(currency) for column in section.columns]
    return markdown.table(headings, ([show(row[c.name], c.unit) for c in section.columns] for row in section.rows))


def _refuse_other_columns(report: Report, rows: Sequence[Row]) -> None:
    declared = {column.name for column in report.columns}
    if rows and (different := declared.symmetric_difference(set(rows[0]) - {SECTION})):
        raise InputError(
            f"the SQL and the head do not have the same columns: {', '.join(sorted(different))}",
            where=report.file,
            to_do="declare each column of the SELECT with @column, and no other",
        )


def _sections(report: Report, rows: Sequence[Row]) -> tuple[Section, ...]:
    by: dict[str, list[Row]] = {}
    for row in rows:
        by.setdefault(str(row.get(SECTION) or ""), []).append(row)
    return tuple(
        Section(title, tuple(c for c in report.columns if any(row[c.name] is not None for row in those)), tuple(those))
        for title, those in by.items()
    )


def _summary(report: Report, about: About, rows: Sequence[Row]) -> str:
    """Return the sentence with the figures of the first row, as plain text."""
    said = {c.name: show(rows[0][c.name], c.unit) or "unknown" for c in report.columns} if rows else {}
    said |= {"date": _day(about.day), "month": f"{about.day:%B %Y}", "currency": about.currency}
    template = report.summary if rows else report.empty
    return PLACEHOLDER.sub(lambda found: said.get(found[1], "unknown"), template)


def _day(day: date) -> str:
    return f"{day:%A}, {day.day} {day:%B %Y}"


def _period(report: Report, about: About) -> str:
    return _day(about.day) if report.cadence == "daily" else f"{about.day:%B %Y}, up to {_day(about.day)}"


def _plots(report: Report, sections: Sequence[Section]) -> dict[str, bytes]:
    """Return the plots that have something to show, by file name."""
    from ml_assets.learning.plots import bars_plot, lines_plot

    drawn: dict[str, bytes] = {}
    by_name = {column.name: column for column in report.columns}
    for number, plot in enumerate(report.plots, start=1):
        rows = next((section.rows for section in sections if section.title == plot.section), ())
        rows = tuple(row for row in rows if row[plot.label] is not None)
        if not rows:
            continue
        if plot.kind == "bars":
            rows = rows[:_BARS]
        label = by_name[plot.label]
        series = {by_name[name].title: [_number(row[name]) for row in rows] for name in plot.values}
        draw = bars_plot if plot.kind == "bars" else lines_plot
        percent = by_name[plot.values[0]].unit.factor == 100
        title = _plot_title(plot, by_name)
        drawn[f"{report.name}-{number}.png"] = draw(
            [show(row[plot.label], label.unit) for row in rows], series, title=title, percent=percent
        )
    return drawn


def _plot_title(plot: Plot, columns: Mapping[str, Column]) -> str:
    label = columns[plot.label].title
    return f"{columns[plot.values[0]].title}, by {label[:1].lower()}{label[1:]}"


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _csv(report: Report, about: About, rows: Sequence[Row]) -> str:
    has_sections = any(SECTION in row for row in rows)
    headings = [column.heading(about.currency) for column in report.columns]
    cells = (
        [
            *([str(row[SECTION])] if has_sections else []),
            *(write(row[column.name], column.unit) for column in report.columns),
        ]
        for row in rows
    )
    return csv_text(["Section", *headings] if has_sections else headings, cells)


def _markdown(
    report: Report, about: About, summary: str, sections: Sequence[Section], plots: Mapping[str, bytes]
) -> str:
    parts = [
        f"# {markdown.text(report.title)}: {markdown.text(_period(report, about))}",
        f"**{markdown.text(summary)}**",
        markdown.text(report.description),
        *(f"![plot {number}]({name})" for number, name in enumerate(plots, start=1)),
    ]
    for section in sections:
        if section.title:
            parts.append(f"## {markdown.text(_heading(section))}")
        parts.append(table_of(section, about.currency))
    parts.append(" · ".join(f"{markdown.text(name)}: {markdown.text(value)}" for name, value in _facts(report, about)))
    return "\n\n".join(parts) + "\n"


def _heading(section: Section) -> str:
    return section.title[:1].upper() + section.title[1:]


def _facts(report: Report, about: About) -> list[tuple[str, str]]:
    return [
        ("Use case", f"{about.title} ({about.use_case})"),
        ("Known by", f"{report.as_of(about.day):%Y-%m-%d %H:%M} UTC"),
        ("Owner", report.owner),
        ("Made from", f"{report.file} {report.fingerprint}"),
    ]


def _html(report: Report, about: About, summary: str, sections: Sequence[Section], plots: Mapping[str, bytes]) -> str:
    # One row of figures for the whole is easier to take in as figures than as a table.
    whole = sections[0] if len(sections) > 1 and len(sections[0].rows) == 1 else None
    figures = [
        (column.heading(about.currency), show(whole.rows[0][column.name], column.unit)) for column in whole.columns
    ] if whole else []  # fmt: skip
    tables = [
        {
            "title": _heading(section) if section.title else "",
            "headings": [(column.heading(about.currency), _style(column)) for column in section.columns],
            "rows": [
                [(show(row[column.name], column.unit), _style(column)) for column in section.columns]
                for row in section.rows
            ],
        }
        for section in sections
        if section is not whole
    ]
    rendered: str = _template().render(
        title=report.title,
        of=about.title,
        period=_period(report, about),
        summary=summary,
        description=report.description,
        figures=figures,
        plots=[base64.b64encode(png).decode() for png in plots.values()],
        tables=tables,
        facts=_facts(report, about),
    )
    return rendered


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string((resources.files("ml_assets.reports") / "page.html.j2").read_text(encoding="utf-8"))


def _style(column: Column) -> str:
    return "number" if column.unit.is_number else column.unit.wraps
