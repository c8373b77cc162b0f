"""What a report looks like: figures as people read them, texts as they are, the same bytes for the same rows."""

import html
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_assets import markdown
from ml_assets.errors import InputError
from ml_assets.reports.page import About, Page, make_page
from ml_assets.reports.spec import read_report
from ml_assets.reports.units import UNITS, show, write
from ml_assets_tests.reports.made import SQL

ABOUT = About("fails", "Settlement fails", "EUR", date(2026, 1, 14))
REPORT = read_report("fails", "fails.sql", SQL, owner="operations")
PLAIN = read_report("fails", "fails.sql", re.sub(r"-- @plot.*\n", "", SQL), owner="operations")


def row(
    section: str, market: str | None, fails: Any = 3, cost: Any = Decimal("1234567.891"), change: Any = -0.25
) -> dict:
    return {"section": section, "market": market, "fails": fails, "cost": cost, "change": change}


def text(page: Page, kind: str) -> str:
    return page.files[f"fails.{kind}"].decode()


def cells(page: Page) -> list[str]:
    return [html.unescape(cell) for cell in re.findall(r"<t[dh] class=\"\w+\">(.*?)</t[dh]>", text(page, "html"))]


def test_a_page_has_summary_figures_tables_and_a_plot() -> None:
    page = make_page(
        REPORT, ABOUT, [row("in all", None), row("by market", "XPAR"), row("by market", "$x$", 0, None, None)]
    )
    assert page.summary == "Wednesday, 14 January 2026: 3 fails cost 1,234,568 EUR."
    assert "<dt>Cost (EUR)</dt><dd>1,234,568</dd>" in text(page, "html")
    assert cells(page) == [
        "Market",
        "Fails",
        "Cost (EUR)",
        "Change",
        "XPAR",
        "3",
        "1,234,568",
        "-25.0 %",
        "$x$",
        "0",
        "",
        "",
    ]
    assert page.files["fails-1.png"].startswith(b"\x89PNG")
    assert "![plot 1](fails-1.png)" in text(page, "md")
    assert "| XPAR | 3 | 1,234,568 | -25.0 % |" in text(page, "md")
    assert text(page, "csv").splitlines()[1:] == [
        "in all,,3,1234567.89,-0.25000",
        "by market,XPAR,3,1234567.89,-0.25000",
        "by market,$x$,0,,",
    ]
    again = make_page(REPORT, ABOUT, [dict(r) for s in page.sections for r in s.rows])
    assert again.files == page.files


def test_without_rows_a_page_says_so() -> None:
    page = make_page(REPORT, ABOUT, [])
    assert page.summary == "There is nothing to report."
    assert page.summary in text(page, "html")
    assert "<table" not in text(page, "html")
    assert set(page.files) == {"fails.html", "fails.md", "fails.csv"}


def test_other_columns_than_declared_are_refused() -> None:
    with pytest.raises(InputError, match="do not have the same columns: change"):
        make_page(REPORT, ABOUT, [{k: v for k, v in row("in all", None).items() if k != "change"}])


@given(st.text(max_size=40), st.text(max_size=20))
@example("</td><script>alert(1)</script>", "</h2><img src=x onerror=alert(1)>")
@example("{{ 7 * 7 }}", "{% raw %}")
@settings(max_examples=60)
def test_a_name_is_shown_as_it_is(name: str, section: str) -> None:
    """Guards names that a counterparty chose against being markup, a template or a column of a table."""
    page = make_page(PLAIN, ABOUT, [row(section, name), row("last", "x")])
    known = {"html", "head", "meta", "title", "style", "body", "header", "p", "h1", "h2", "dl", "div", "dt", "dd",
             "table", "thead", "tbody", "tr", "th", "td", "footer", "span"}  # fmt: skip
    made = text(page, "html")
    assert {tag.lower() for tag in re.findall(r"</?([a-zA-Z]\w*)", made)} <= known
    assert "onerror" not in re.sub(r">[^<]*<", "><", made)
    assert html.escape(markdown.shown(name), quote=False) in made.replace("&#39;", "'").replace("&#34;", '"')
    lines = [line for line in text(page, "md").splitlines() if line.startswith("| ")]
    unescaped = [re.sub(r"\\.", "", line) for line in lines]
    assert {line.count("|") for line in unescaped} <= {4, 5}


@pytest.mark.parametrize(
    ("value", "unit", "shown", "written"),
    [
        (1234567, "count", "1,234,567", 1234567),
        (0.1 + 0.2, "share", "30.0 %", Decimal("0.30000")),
        (-0.0000001, "change", "0.0 %", Decimal("0.00000")),
        (0.071, "change", "+7.1 %", Decimal("0.07100")),
        (Decimal("-1234.5"), "currency, signed", "-1,234", Decimal("-1234.50")),
        (float("nan"), "metric", "", None),
        (None, "count", "", None),
        (datetime(2026, 1, 14, 7, tzinfo=UTC), "time", "2026-01-14 07:00", "2026-01-14 07:00"),
        (date(2026, 1, 14), "date", "2026-01-14", "2026-01-14"),
        (True, "code", "yes", "yes"),
    ],
)
def test_values_are_shown_and_written_by_their_unit(value: Any, unit: str, shown: str, written: Any) -> None:
    assert show(value, UNITS[unit]) == shown
    assert write(value, UNITS[unit]) == written


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(sorted(n for n in UNITS if UNITS[n].is_number)),
)
def test_no_number_has_seventeen_digits(value: float, unit: str) -> None:
    shown = show(value, UNITS[unit])
    assert re.fullmatch(r"[+-]?\d{1,3}(,\d{3})*(\.\d{1,3})?( %)?", shown), shown
