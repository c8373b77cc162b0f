"""Templates, and how values look in them: rounded, with units, in the team's time zone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
from markupsafe import Markup

from ml_assets.desk.drawn import bar
from ml_assets.desk.rows import Row
from ml_assets.markdown import shown


@cache
def environment() -> jinja2.Environment:
    """Return the templates: everything is escaped, and nothing unknown is silently empty."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_visible, auto_reload=False,
    )  # fmt: skip
    made.filters |= {"money": money, "percent": percent, "left": left, "local": local}
    made.globals["bar"] = bar
    return made


def _source(name: str) -> str:
    return (resources.files("ml_assets.desk") / "templates" / name).read_text(encoding="utf-8")


def render(name: str, **values: Any) -> str:
    """Return a page."""
    return environment().get_template(f"{name}.html.j2").render(**values)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What of a row of the list is the same for each reader and at each moment, as HTML; see `_row_parts.html.j2`."""

    ids: Markup
    tick: Markup
    name: Markup
    cells: Markup
    score: Markup
    claim: Markup
    act: Markup


def drawn_rows(rows: Iterable[Row], path: str, snapshot_id: str) -> dict[str, Drawn]:
    """Return the parts of each row of a list, by entity; `path` is that of the list's page."""
    template = environment().get_template("_row_parts.html.j2")
    made = template.make_module({"path": path, "snapshot_id": snapshot_id})
    draws = [getattr(made, name) for name in Drawn.__slots__]
    return {row.entity_id: Drawn(*(draw(row) for draw in draws)) for row in rows}


def time_left(now: datetime, zone: ZoneInfo) -> Callable[[datetime], Markup]:
    """Return what draws the cell of the time left until a cut-off; most rows of a list have one of a few."""

    @cache
    def drawn(cut_off: datetime) -> Markup:
        return Markup('<td class="time"><span data-until="{}">{}</span><small>{}</small></td>').format(
            cut_off.isoformat(), left(cut_off - now), local(cut_off, zone)
        )

    return drawn


def _visible(value: Any) -> Any:
    """Return a text without characters that hide, or that turn the direction of writing, also of what follows."""
    # The exact type: a Markup is ours.
    return shown(value) if type(value) is str and not value.isascii() else value


def money(value: float | None) -> str:
    """Return an amount, rounded to a whole unit, with thousands separators."""
    return "" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """Return a share in per cent; between 0 and 1 per cent with a digit more."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{100 * value:.1f} %" if 0 < value < 0.01 else f"{100 * value:.0f} %"


def left(span: timedelta) -> str:
    """Return how long there is time, in days, hours and minutes; the script of the page writes it in the same way."""
    minutes = int(span.total_seconds() // 60)
    if minutes < 0:
        return "past"
    days, minutes = divmod(minutes, 1440)
    hours, minutes = divmod(minutes, 60)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


@lru_cache(maxsize=4096)
def local(moment: datetime, zone: ZoneInfo, form: str = "%H:%M") -> str:
    """Return a time in a zone."""
    return moment.astimezone(zone).strftime(form)
