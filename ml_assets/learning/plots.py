"""Plots as small PNG bytes, readable on a white and on a dark page: transparent, mid-grey text, strong
colours.

Drawn with matplotlib's objects and the Agg canvas: no display, no pyplot, no state between calls.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ml_assets.learning.metrics import reliability
from ml_assets.learning.statistics import average_precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_GREY = "#7d8590"
_SLATE = "#566270"
_COLOURS = ("#2f81f7", "#e0702c", "#2da562", "#b864d9", "#d04a6a", "#c2981b")


def reliability_plot(labels: ArrayLike, probabilities: ArrayLike, *, title: str = "Reliability") -> bytes:
    """Return observed against predicted fail rate in ten groups of equal size, above a histogram of the
    scores.

    Bars are 95 % Wilson intervals; the diagonal is perfect calibration. Both axes end at the largest group.
    """
    figure, (upper, lower) = _figure(rows=2, height=4.6, ratios=(4, 1))
    table = reliability(labels, probabilities)
    if table.empty:
        return _nothing(figure, upper, title)
    x, y = table["mean_probability"].to_numpy(), table["observed_rate"].to_numpy()
    limit = min(1.0, 1.08 * float(max(x.max(), table["high"].max())))
    upper.plot([0, limit], [0, limit], color=_GREY, linewidth=1, linestyle=(0, (4, 3)))
    bars = np.clip(np.vstack([y - table["low"], table["high"] - y]), 0, None)
    upper.errorbar(x, y, yerr=bars, fmt="o-", color=_COLOURS[0], markersize=5, linewidth=1.6, elinewidth=1.2)
    upper.set_xlim(0, limit)
    upper.set_ylim(0, limit)
    _label(upper, title, "", "observed rate")
    scores = np.asarray(probabilities, dtype=np.float64)
    lower.hist(scores, bins=40, range=(0, limit), color=_COLOURS[0], alpha=0.75)
    if beyond := int((scores > limit).sum()):
        note = f"{beyond:,} beyond {limit:.2f}"
        lower.text(0.99, 0.9, note, ha="right", va="top", fontsize=8.5, color=_GREY, transform=lower.transAxes)
    lower.set_yscale("log")
    lower.set_xlim(0, limit)
    _label(lower, "", "predicted probability", "decisions")
    return _png(figure)


def precision_recall_plot(
    labels: ArrayLike,
    probabilities: Mapping[str, ArrayLike],
    *,
    best_reachable: ArrayLike | None = None,
    title: str = "Precision and recall",
) -> bytes:
    """Return each model's precision-recall curve, the base rate, and the true probabilities' curve."""
    y = np.asarray(labels, dtype=np.float64)
    figure, (axes,) = _figure()
    if not y.any():
        return _nothing(figure, axes, title)
    axes.axhline(float(y.mean()), color=_GREY, linewidth=1, linestyle=(0, (1, 2)), label=f"base rate {y.mean():.3f}")
    if best_reachable is not None:
        _curve(axes, y, best_reachable, "best reachable", color=_GREY, linewidth=1.4, linestyle=(0, (5, 2)))
    for i, (name, p) in enumerate(probabilities.items()):
        _curve(axes, y, p, name, color=_COLOURS[i % len(_COLOURS)], linewidth=1.8)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _label(axes, title, "recall: share of the fails found", "precision: share that fails")
    _legend(axes)
    return _png(figure)


def confusion_plot(confusion: Mapping[str, int], *, title: str = "Confusion at capacity") -> bytes:
    """Return the two-by-two table of `confusion_at_capacity`; the shade is the share of its row."""
    figure, (axes,) = _figure(width=4.6, height=3.4)
    cells = np.array([[confusion["tp"], confusion["fn"]], [confusion["fp"], confusion["tn"]]], dtype=np.float64)
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1.0)
    for (i, j), n in np.ndenumerate(cells):
        share = float(shares[i, j])
        axes.add_patch(_tile(j, i, _mixed(_SLATE, _COLOURS[2 if i == j else 1], share)))
        axes.text(j, i - 0.08, f"{n:,.0f}", ha="center", va="center", fontsize=15, color="white", weight="bold")
        axes.text(j, i + 0.22, f"{share:.1%} of the row", ha="center", va="center", fontsize=8.5, color="white")
    axes.set_xlim(-0.5, 1.5)
    axes.set_ylim(1.5, -0.5)
    axes.set_xticks([0, 1], ["on the work-list", "not on it"])
    axes.set_yticks([0, 1], ["failed", "settled"])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _label(axes, title, "", "")
    return _png(figure)


def importance_plot(importances: Mapping[str, float], *, title: str = "What the model uses", top: int = 15) -> bytes:
    """Return bars of the `top` features: PR-AUC lost when the feature is shuffled."""
    largest = sorted(((v, k) for k, v in importances.items() if not np.isnan(v)), reverse=True)[:top]
    figure, (axes,) = _figure(height=1.1 + 0.26 * max(3, len(largest)))
    if not largest:
        return _nothing(figure, axes, title)
    values, names = zip(*reversed(largest), strict=True)
    axes.barh(range(len(values)), values, color=_COLOURS[0], height=0.65)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False, axis="y")
    _label(axes, title, "PR-AUC lost when shuffled", "")
    return _png(figure)


def estimate_plot(
    days: Sequence[date],
    estimated: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    realised: ArrayLike,
    *,
    title: str = "PR-AUC, estimated and realised",
) -> bytes:
    """Return a metric by day: as estimated before outcomes, with its band, and as it came out (NaN: not yet)."""
    figure, (axes,) = _figure(width=7.0)
    if not len(days):
        return _nothing(figure, axes, title)
    at = np.arange(len(days))
    axes.fill_between(
        at, np.asarray(low), np.asarray(high), color=_COLOURS[0], alpha=0.18, linewidth=0, label="95 % by chance"
    )
    axes.plot(at, np.asarray(estimated), color=_COLOURS[0], linewidth=1.6, label="estimated")
    axes.plot(at, np.asarray(realised), "o-", color=_COLOURS[1], markersize=4, linewidth=1.6, label="realised")
    shown = at[:: max(1, len(days) // 8)]
    axes.set_xticks(shown, [f"{days[i]:%d %b}" for i in shown])
    # Room above the band for the legend.
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    _label(axes, title, "outcome date", "")
    _legend(axes)
    return _png(figure)


def drift_plot(
    days: Sequence[date], shares: Mapping[str, Sequence[float]], *, title: str = "How near to its limit each column is"
) -> bytes:
    """Return a row of tiles per column, one per date: the share of its limit that its distance has; NaN has no tile.

    `shares` maps a column to (days,). From the limit on a tile has the colour of an alarm.
    """
    figure, (axes,) = _figure(width=max(5.0, 2.6 + 0.3 * len(days)), height=1.2 + 0.28 * len(shares))
    axes.grid(visible=False)
    names = list(shares)[::-1]
    for y, name in enumerate(names):
        for x, share in enumerate(shares[name]):
            if np.isfinite(share):
                calm = _mixed("#e8ecf1", _COLOURS[0], min(1.0, max(0.0, share)))
                axes.add_patch(_tile(x, y, calm if share <= 1 else _mixed(_COLOURS[1], "#b3261e", min(1.0, share - 1))))
    axes.set_xlim(-0.6, len(days) - 0.4)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    every = max(1, len(days) // 8)
    axes.set_xticks(range(0, len(days), every), [f"{day:%d %b}" for day in days[::every]])
    _label(axes, title, "decision date", "")
    return _png(figure)


def bars_plot(
    labels: Sequence[str], series: Mapping[str, Sequence[float]], *, title: str, percent: bool = False
) -> bytes:
    """Return horizontal bars, the first label on top; of several series beside each other. NaN is no bar."""
    figure, (axes,) = _figure(width=7.0, height=1.1 + 0.3 * max(3, len(labels)))
    if not labels:
        return _nothing(figure, axes, title)
    thick = 0.78 / len(series)
    for i, (name, values) in enumerate(series.items()):
        at = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * thick
        axes.barh(at, np.asarray(values, dtype=np.float64), color=_COLOURS[i], height=thick * 0.92, label=name)
    axes.set_yticks(range(len(labels)), [_short(label) for label in labels], parse_math=False)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    _numbers(axes.xaxis, percent=percent)
    _label(axes, title, "", "")
    if len(series) > 1:
        # Below the axes: bars may end anywhere.
        figure.legend(frameon=False, labelcolor=_GREY, fontsize=9, loc="outside lower right", ncols=len(series))
    return _png(figure)


def lines_plot(
    labels: Sequence[str], series: Mapping[str, Sequence[float]], *, title: str, percent: bool = False
) -> bytes:
    """Return lines over labels in their order, from 0 on. NaN is a gap."""
    figure, (axes,) = _figure(width=7.0, height=3.2)
    if not labels:
        return _nothing(figure, axes, title)
    at = np.arange(len(labels))
    for i, (name, values) in enumerate(series.items()):
        axes.plot(at, np.asarray(values, dtype=np.float64), "o-", color=_COLOURS[i], markersize=4, label=name)
    shown = at[:: max(1, -(-len(labels) // 8))]
    axes.set_xticks(shown, [_short(labels[i]) for i in shown], parse_math=False)
    low, high = axes.get_ylim()
    # Room above the lines for the legend.
    axes.set_ylim(min(0.0, low), high + (0.16 * len(series) if len(series) > 1 else 0.08) * (high - min(0.0, low)))
    _numbers(axes.yaxis, percent=percent)
    _label(axes, title, "", "")
    if len(series) > 1:
        _legend(axes)
    return _png(figure)


def _numbers(axis: Axis, *, percent: bool) -> None:
    """Let an axis show its numbers with thousands separators, or as per cent."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %" if percent else f"{value:,.6g}"))


def _short(label: str, most: int = 32) -> str:
    """Return a label that leaves room for the plot, in characters that the font has."""
    plain = "".join(letter if ord(letter) < 0x250 else "?" for letter in label)
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def _curve(axes: Axes, y: Any, probabilities: ArrayLike, name: str, **style: Any) -> None:
    p = np.asarray(probabilities, dtype=np.float64)
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
    found = np.cumsum(y[order])[last]
    recall, precision = found / found[-1], found / (last + 1)
    # A few hundred points are all that can be seen.
    shown = np.unique(np.searchsorted(recall, np.linspace(0, 1, 400)).clip(max=len(recall) - 1))
    axes.plot(recall[shown], precision[shown], label=f"{name} {average_precision(y, p):.3f}", **style)


def _figure(
    *, rows: int = 1, width: float = 6.0, height: float = 4.0, ratios: tuple[float, ...] = (1,)
) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    for axes in panels:
        axes.patch.set_alpha(0.0)
        axes.grid(visible=True, color=_GREY, alpha=0.22, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_GREY, labelsize=9)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(_GREY)
    return figure, list(panels)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, color=_GREY, fontsize=12, loc="left", weight="bold")
    axes.set_xlabel(x, color=_GREY, fontsize=9.5)
    axes.set_ylabel(y, color=_GREY, fontsize=9.5)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, labelcolor=_GREY, fontsize=9, loc="upper right", title_fontsize=9)


def _tile(x: float, y: float, colour: tuple[float, ...]) -> Any:
    from matplotlib.patches import FancyBboxPatch

    rounded = "round,pad=0,rounding_size=0.06"
    return FancyBboxPatch((x - 0.44, y - 0.42), 0.88, 0.84, boxstyle=rounded, color=colour, lw=0)


def _mixed(none: str, full: str, share: float) -> tuple[float, ...]:
    """Return the colour that lies at `share` of the way from `none` to `full`."""
    from matplotlib.colors import to_rgb

    return tuple(a + share * (b - a) for a, b in zip(to_rgb(none), to_rgb(full), strict=True))


def _nothing(figure: Figure, axes: Axes, title: str) -> bytes:
    axes.text(0.5, 0.5, "no outcomes to show", ha="center", va="center", color=_GREY, transform=axes.transAxes)
    _label(axes, title, "", "")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, pil_kwargs={"optimize": True})
    return buffer.getvalue()
