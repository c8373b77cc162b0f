"""What the desk draws, as SVG: classes in place of styles, since pages allow no style of their own. Pure.

Every text is escaped, and each drawing has a text beside it that says the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from markupsafe import Markup

from ml_assets.spec import UseCase

# The contribution of features without a cause, as `learning.reasons` names it; that package fits models.
_OTHER: Final = "OTHER"
_WIDTH, _LINE, _LABEL, _VALUE = 680, 26, 280, 110


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the waterfall: what it is, by how much it moves the log-odds, and where it then stands."""

    name: str
    moved: float
    stands: float

    @property
    def probability(self) -> float:
        """The probability where it stands."""
        return 1 / (1 + math.exp(-self.stands))


def steps_of(usecase: UseCase, codes: Mapping[str, Any]) -> list[Step]:
    """Return the waterfall of a decision: from the base by each cause, the largest first, to the log-odds.

    The steps sum to the log-odds of the probability that was shown.
    """
    names = {cause.code: cause.name for cause in usecase.causes} | {_OTHER: "what kind of decision it is"}
    stands = float(codes["base"])
    steps = [Step("average of typical decisions", stands, stands)]
    for code, value in sorted(codes["contributions"].items(), key=lambda item: -abs(item[1])):
        stands += float(value)
        steps.append(Step(names.get(code, code), float(value), stands))
    return steps


def waterfall(steps: Sequence[Step]) -> Markup:
    """Return the steps as bars: what raises the log-odds to the right, what lowers them to the left."""
    if not steps:
        return Markup("")
    low = min(step.stands for step in steps)
    high = max(step.stands for step in steps)
    span = max(high - low, 0.5)
    low, span = low - 0.08 * span, 1.16 * span

    def x(value: float) -> float:
        return round(_LABEL + (value - low) / span * (_WIDTH - _LABEL - _VALUE), 1)

    height = _LINE * (len(steps) + 1) + 16
    parts: list[Markup] = []
    before = steps[0].stands
    for number, step in enumerate(steps):
        top = number * _LINE + 12
        begins, ends = (x(step.stands) - 2, x(step.stands) + 2) if number == 0 else sorted((x(before), x(step.stands)))
        kind = "base" if number == 0 else "up" if step.moved > 0 else "down"
        said = f"{step.moved:.2f}" if number == 0 else f"{step.moved:+.2f}"
        parts.append(
            Markup(
                '<text class="name" x="{}" y="{}">{}</text><rect class="{}" x="{}" y="{}" width="{}" height="16"/>'
                '<text class="value" x="{}" y="{}">{}</text>'
            ).format(
                _LABEL - 10, top + 13, step.name, kind, begins, top, round(max(ends - begins, 1.5), 1), ends + 6,
                top + 13, said,
            )
        )  # fmt: skip
        if number + 1 < len(steps):
            parts.append(
                Markup('<line class="joint" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
                    x(step.stands), top + 16, top + _LINE
                )
            )
        before = step.stands
    top = len(steps) * _LINE + 12
    parts.append(
        Markup(
            '<text class="name total" x="{}" y="{}">log-odds</text>'
            '<rect class="total" x="{}" y="{}" width="4" height="16"/>'
            '<text class="value total" x="{}" y="{}">{} = {:.1%}</text>'
        ).format(
            _LABEL - 10, top + 13, x(before) - 2, top, x(before) + 8, top + 13, f"{before:.2f}", steps[-1].probability
        )
    )  # fmt: skip
    return Markup('<svg class="waterfall" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, height, "Reasons, in log-odds, from the average to this decision", Markup("").join(parts)
    )


def from_slot_to_slot(points: Sequence[tuple[datetime, str, float]]) -> Markup:
    """Return how the probability moved: (decision time as it is shown, slot, probability) each, in order of time."""
    if not points:
        return Markup("")
    width, height, left, bottom = 640, 190, 46, 46
    top = max(0.1, *(p for _, _, p in points)) * 1.15

    def x(number: int) -> float:
        room = width - left - 120
        return round(left + 50 + (room * number / (len(points) - 1) if len(points) > 1 else room / 2), 1)

    def y(probability: float) -> float:
        return round(height - bottom - probability / top * (height - bottom - 14), 1)

    ticks = Markup("").join(
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}">{:.0%}</text>'
        ).format(left, width - 6, y(value), y(value), left - 6, y(value) + 4, value)
        for value in (0.0, top / 2.3, top / 1.15)
    )  # fmt: skip
    line = " ".join(f"{x(number)},{y(p)}" for number, (_, _, p) in enumerate(points))
    marks = Markup("").join(
        Markup(
            '<circle cx="{0}" cy="{1}" r="4.5"/><text class="value" x="{0}" y="{2}">{3:.0%}</text>'
            '<text class="slot" x="{0}" y="{4}">{5}</text><text class="slot" x="{0}" y="{6}">{7:%d %b %H:%M}</text>'
        ).format(x(number), y(p), y(p) - 10, p, height - 26, slot.replace("_", " "), height - 10, at)
        for number, (at, slot, p) in enumerate(points)
    )
    return Markup(
        '<svg class="slots" viewBox="0 0 {} {}" role="img" aria-label="{}">{}<polyline points="{}"/>{}</svg>'
    ).format(width, height, "Probability from slot to slot", ticks, line, marks)


def bar(share: float, label: str = "") -> Markup:
    """Return a share, from 0 to 1, as a bar; a label if nothing beside it says the same."""
    return _bar(round(100 * min(1.0, max(0.0, share)), 1), label)


@lru_cache(maxsize=4096)
def _bar(width: float, label: str) -> Markup:
    said = Markup(' role="img" aria-label="{}"').format(label) if label else Markup(' aria-hidden="true"')
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none"{}><rect class="track" width="100" height="8"/>'
        '<rect class="fill" width="{}" height="8"/></svg>'
    ).format(said, width)
