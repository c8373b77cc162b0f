"""How far the decisions of a date are from those that their model has learned from, and whether that is too far.

Distance is an effect size over the groups that are kept with the model (`learning.drift_reference`), never a p-value:
with many rows every difference is significant. The limit comes from the reference's own days of the same kind: a Monday
or a month end that looks like earlier ones is not drift. Each finding also says by how much the column or the cause has
moved the mean log-odds, because that is what moves predictions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.calendars import BusinessCalendar
from ml_assets.learning.calibration import log_odds
from ml_assets.learning.drift_reference import Column, DriftReference, Level, Spread, column_of
from ml_assets.learning.frames import FeatureNames
from ml_assets.learning.stability import jensen_shannon, largest_by_chance, shares_of, stability_index
from ml_assets.learning.window import SLICE_PREFIX
from ml_assets.spec import DriftSpec, UseCase

FEATURE, PREDICTION, SLICE, CAUSE, VOLUME, FEED, GROUP = (
    "feature", "prediction", "slice", "cause", "volume", "feed", "group",
)  # fmt: skip
MONTH_END, MEAN_LOG_ODDS, MISSING = "month end", "mean log-odds", "missing"
# The quantile of the reference's daily deviations that sets a limit: one day in twenty deviates more.
_HIGH = 0.95
# A feed counts as regular, and is judged, if it came in time on at least this share of the earlier dates.
_REGULAR = 0.8
# Chance does not reach this many standard deviations in a year of days.
_SURE = 3.5
# The median of a chi-squared distribution with one degree of freedom.
_MEDIAN_OF_CHI_SQUARED = 0.4549
# With fewer reference days it is unknown how much days differ, and how much those of a kind do.
_LEAST_DAYS, _FEW_DAYS = 5, 15
DRIFT_SCHEMA = pa.schema(
    [
        pa.field("use_case", pa.string(), nullable=False),
        pa.field("decision_date", pa.date32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("measure", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("expected", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("moved", pa.float64()),
        pa.field("n", pa.int32(), nullable=False),
        pa.field("judged", pa.bool_(), nullable=False),
        pa.field("breached", pa.bool_(), nullable=False),
        pa.field("drifted", pa.bool_(), nullable=False),
        pa.field("why", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of one column, cause, volume, feed or group on a date, with its allowed range.

    `moved` is by how much it has moved the mean log-odds. `why` explains the finding, and says why it is not `judged`
    if it is not. `at_once` marks a breach that is drift on its first date, `slight` one that is no drift at all.
    """

    kind: str
    name: str
    measure: str
    value: float | None
    expected: float | None
    low: float | None
    high: float | None
    n: int
    judged: bool
    breached: bool
    why: str
    moved: float | None = None
    at_once: bool = False
    slight: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """The identity of the measure: kind, name and measure."""
        return self.kind, self.name, self.measure


def kind_of_day(day: date, calendar: BusinessCalendar) -> str:
    """Return the kind of a day: month end for the last business day of a month, else the day of the week."""
    return MONTH_END if calendar.next(day).month != day.month else f"{day:%A}"


def date_findings(
    usecase: UseCase,
    names: FeatureNames,
    reference: DriftReference,
    day: date,
    rows: pa.Table,
    causes: Mapping[str, Mapping[str, float]],
    decided: Collection[str],
) -> list[Finding]:
    """Return the findings on the decisions of a date.

    `rows` has slot, `probability`, the features and the slices (`slice__<name>`) of the date's decisions; an absent
    column counts as empty. `causes` maps a slot to the mean contribution of each cause. `decided` are the slots whose
    decision time has passed; a later slot without decisions is not a finding.
    """
    judge = _Judge(usecase.monitoring.drift, usecase.calendar, day)
    by_slot = _by_slot(rows)
    found = list(_volumes(judge, reference, by_slot, decided))
    if not rows.num_rows:
        return found
    for name, spread in reference.features.items():
        there = name in rows.column_names
        found += _column(judge, FEATURE, name, spread, column_of(names, rows, name), by_slot, there=there)
    scores = rows["probability"].to_numpy()
    found += _column(judge, PREDICTION, "probability", reference.scores, scores.astype(np.float32), by_slot)
    mean = float(log_odds(scores).mean())
    found.append(_level(judge, PREDICTION, MEAN_LOG_ODDS, reference.log_odds, mean, by_slot))
    for name, spread in reference.slices.items():
        if (column := f"{SLICE_PREFIX}{name}") in rows.column_names:
            found += _column(judge, SLICE, name, spread, rows[column].cast(pa.string()), by_slot)
    for cause, level in reference.causes.items():
        total = sum(by_slot.values())
        mean = sum(causes[slot][cause] * n for slot, n in by_slot.items()) / total
        found.append(_level(judge, CAUSE, cause, level, mean, by_slot))
    return found


def drift_table(
    usecase: UseCase, day: date, findings: Iterable[Finding], earlier: Iterable[Mapping[str, Any]]
) -> pa.Table:
    """Return the findings of a date in `DRIFT_SCHEMA`; `earlier` are rows of that schema for the dates before.

    A finding is drift if it breached on `breaches` of the last `windows` decision dates including this one, or if it
    breached and one date is enough (`Finding.at_once`), unless what it has moved is slight (`Finding.slight`).
    """
    spec = usecase.monitoring.drift
    before = [row for row in earlier if row["decision_date"] < day]
    last = sorted({row["decision_date"] for row in before})[-(spec.windows - 1) :] if spec.windows > 1 else []
    breached: dict[tuple[str, str, str], int] = {}
    for row in before:
        if row["breached"] and row["decision_date"] in last:
            key = (row["kind"], row["name"], row["measure"])
            breached[key] = breached.get(key, 0) + 1
    made = [
        {
            "use_case": usecase.name,
            "decision_date": day,
            **{name: getattr(one, name) for name in DRIFT_SCHEMA.names if hasattr(one, name)},
            "drifted": one.breached
            and not one.slight
            and (one.at_once or breached.get(one.key, 0) + 1 >= spec.breaches),
        }
        for one in findings
    ]
    return pa.Table.from_pylist(made, schema=DRIFT_SCHEMA)


def feed_findings(usecase: UseCase, day: date, feeds: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Return the findings on the feeds of a business date, compared with the business dates before.

    `feeds` has one row per source and business date, for the date and those before it: source, business_date, events,
    late and first_known_at. A feed that usually comes more than a business day after its date, or irregularly, is not
    judged.
    """
    judge = _Judge(usecase.monitoring.drift, usecase.calendar, day)
    found = []
    by_source: dict[str, dict[date, Mapping[str, Any]]] = {}
    for row in feeds:
        by_source.setdefault(row["source"], {})[row["business_date"]] = row
    for source, by_date in by_source.items():
        days = tuple(sorted(one for one, row in by_date.items() if one < day and _came_in_time(usecase, row)))
        if len(days) < _REGULAR * (len(by_date) - 1):
            continue
        now, late = by_date[day]["events"], by_date[day]["late"]
        found.append(judge.volume(FEED, source, "events", now, days, [by_date[one]["events"] for one in days]))
        shares = np.array([by_date[one]["late"] / by_date[one]["events"] for one in days])
        found.append(judge.share(FEED, source, "late", late / now if now else 0.0, days, shares, now, "came late"))
    return found


def _came_in_time(usecase: UseCase, row: Mapping[str, Any]) -> bool:
    known = row["first_known_at"]
    return known is not None and known.date() <= usecase.calendar.next(row["business_date"])


def whole_finding(usecase: UseCase, rows: pa.Table) -> list[Finding]:
    """Return the ratio of outcomes to their expected number on the newest complete outcome dates, against dates before.

    `rows` has probability, label and outcome_date of decisions with an outcome on complete dates; without rows there is
    no finding. The ratio is computed for the newest date and for the newest `group_days` together; the finding is the
    one that is further off. It shows what features cannot: that the probability of the outcome, given the features, has
    changed. Days vary by the chance of independent outcomes, and by shocks that the decisions of a day share; the size
    of those shocks is estimated from the dates before.
    """
    if not rows.num_rows:
        return []
    spec = usecase.monitoring.drift
    dates, at = np.unique(rows["outcome_date"].to_numpy(), return_inverse=True)
    p, failed = rows["probability"].to_numpy(), rows["label"].to_numpy().astype(np.float64)
    came, promised, variance = (np.bincount(at, weights=column) for column in (failed, p, p * (1 - p)))
    by_chance = variance / np.maximum(promised, 0.5) ** 2
    before = np.log((came[:-1] + 0.5) / (promised[:-1] + 0.5))
    middle = float(np.median(before)) if len(before) else 0.0
    # A robust estimate, because the dates before may include earlier dates of the same change.
    spread = (1.4826 * float(np.median(np.abs(before - middle)))) ** 2 if len(before) else 0.0
    shared = max(0.0, spread - float(np.median(by_chance[:-1]))) if len(before) else 0.0

    def off(last: int) -> tuple[float, float, int]:
        """Return by how many standard deviations the outcomes are off, the standard deviation, and `last`."""
        usual = promised[-last:].sum() * math.exp(middle)
        one = math.sqrt(1 + shared * usual / last)
        return float(_root(came[-last:].sum()) - _root(usual)) / one, one, last

    _, one, last = max((off(1), off(min(spec.group_days, len(dates)))), key=lambda found: abs(found[0]))
    ours, theirs, usual = came[-last:].sum(), max(promised[-last:].sum(), 1e-9), math.exp(middle)
    low, high = (float(_square(_root(theirs * usual) + side * _SURE * one)) / theirs for side in (-1, 1))
    low, high = min(low, usual / spec.min_ratio_of_all), max(high, usual * spec.min_ratio_of_all)
    n, ratio = int(np.sum(at >= len(dates) - last)), float(ours / theirs)
    why = _too_few(len(before)) or (f"fewer than {spec.min_rows} decisions" if n < spec.min_rows else "")
    since = dates[-last].astype("datetime64[D]").item()
    said = f"{ours:,.0f} of {n:,}, {theirs:,.1f} expected, since {since}"
    return [
        Finding(
            GROUP, "all decisions", "outcomes over expected", ratio, usual, low, high, n, not why,
            not why and not low <= ratio <= high, f"{why}; {said}" if why else said, at_once=True,
        )
    ]  # fmt: skip


def group_findings(usecase: UseCase, rows: pa.Table, *, most: int = 20) -> list[Finding]:
    """Return the groups whose fails are furthest from their expected number, at most `most` per source.

    `rows` is as for `whole_finding`, with one column per source of `DriftSpec.groups`; the newest `group_days` dates
    count. The alternative is that all log-odds of a group are higher, or lower, by the same shift. The evidence for a
    shift is the deviance of independent fails; its signed root is in standard deviations (McCullagh and Nelder 1989,
    2.3), with half a fail as the correction for small counts. The limits are widened by the shocks that decisions
    share, as far as the other groups of all sources show them (their median deviation, against that of a chi-squared
    with one degree of freedom).
    """
    spec = usecase.monitoring.drift
    days = np.unique(rows["outcome_date"].to_numpy())[-spec.group_days :]
    rows = rows.filter(pa.array(np.isin(rows["outcome_date"].to_numpy(), days)))
    p, failed = rows["probability"].to_numpy(), rows["label"].to_numpy().astype(np.float64)
    grouped = [_Grouped.of(rows[source], p, failed) for source in spec.groups]
    squares = [one.deviation**2 for one in grouped]
    found: list[Finding] = []
    for number, (source, one) in enumerate(zip(spec.groups, grouped, strict=True)):
        worst = np.argsort(-np.abs(one.deviation), kind="stable")[:most]
        off = np.full(len(one.names), spec.deviations)
        for i in worst:
            others = np.concatenate([*squares[:number], np.delete(squares[number], i), *squares[number + 1 :]])
            off[i] *= math.sqrt(max(1.0, float(np.median(others)) / _MEDIAN_OF_CHI_SQUARED)) if len(others) else 1.0
        least, largest = (_at_limit(p, one.at, off, side) for side in (-1, 1))
        for i in worst:
            came, promised, n = one.came[i], max(one.promised[i], 1e-9), int(one.n[i])
            low, high = min(1 / spec.min_ratio, least[i] / promised), max(spec.min_ratio, largest[i] / promised)
            ratio = float(came / promised)
            # A group of most decisions says what all of them say, and there days may share a shock (`whole_finding`).
            judged = bool(n >= spec.min_rows / 10 and one.promised[i] > 0 and n <= len(p) / 2)
            found.append(
                Finding(
                    GROUP, f"{source.removeprefix('attributes.')} {one.names[i]}", "outcomes over expected", ratio, 1.0,
                    float(low) if low > 0 else None, float(high), n, judged, judged and not low <= ratio <= high,
                    f"{came:.0f} of {n}, {one.promised[i]:.1f} expected", at_once=True,
                )
            )  # fmt: skip
    return found


@dataclass(frozen=True)
class _Grouped:
    """Decisions by the values of a source: `at` (n,) is the group of each; the others are arrays by group.

    `deviation` is how far the outcomes are from the expected number, in standard deviations on the scale of `_root`.
    """

    names: NDArray[Any]
    at: NDArray[np.int64]
    came: NDArray[Any]
    promised: NDArray[Any]
    n: NDArray[np.int64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, values: pa.ChunkedArray, p: NDArray[np.float64], failed: NDArray[np.float64]) -> _Grouped:
        said = [f"{value:g}" if isinstance(value, float) else str(value) for value in values.to_pylist()]
        names, at = np.unique(np.array(said, dtype=object), return_inverse=True)
        came, promised = (np.bincount(at, weights=column, minlength=len(names)) for column in (failed, p))
        return cls(names, at, came, promised, np.bincount(at, minlength=len(names)), _root(came) - _root(promised))


def _at_limit(
    p: NDArray[np.float64], groups: NDArray[np.int64], deviations: NDArray[np.float64], side: Literal[-1, 1]
) -> NDArray[np.float64]:
    """Return the most (or fewest, `side` -1) fails that each group may have within its standard deviations: (number,).

    `p` (n,) are the probabilities of decisions; `groups` (n,) are their groups, positions in `deviations` (number,).
    The deviance depends only on the number of fails and grows with its distance from the expected one; at the limit it
    equals the deviations squared. A group that cannot have that few has no lower limit: its number is below 0.
    """
    number = len(deviations)
    low, high = np.zeros(number), np.full(number, 15.0)
    fails: NDArray[Any] = np.zeros(number)
    for _ in range(40):
        shift = side * (low + high) / 2
        odds = np.exp(shift)[groups]
        raised = 1 + p * (odds - 1)
        fails = np.bincount(groups, weights=p * odds / raised, minlength=number)
        deviance = 2 * (shift * fails - np.bincount(groups, weights=np.log(raised), minlength=number))
        below = deviance < deviations**2
        low, high = np.where(below, np.abs(shift), low), np.where(below, high, np.abs(shift))
    return np.asarray(fails + side * 0.5, dtype=np.float64)


def _root(counts: Any) -> NDArray[np.float64]:
    """Return counts on a scale on which chance has a standard deviation of 1, for small counts too (Anscombe 1948)."""
    return np.asarray(2 * np.sqrt(np.asarray(counts, dtype=np.float64) + 3 / 8))


def _square(roots: Any) -> NDArray[np.float64]:
    """Return the counts, 0 or more, of which `roots` are the `_root`."""
    return np.asarray(np.maximum(0.0, (np.maximum(0.0, roots) / 2) ** 2 - 3 / 8))


def shown_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return rows of `DRIFT_SCHEMA` sorted: drift first, then breaches, then by how far they moved the log-odds."""
    return sorted(rows, key=lambda row: (not row["drifted"], not row["breached"], -abs(row["moved"] or 0.0)))


def _too_few(days: int) -> str:
    """Return why `days` reference days are too few to judge by; empty if they suffice."""
    return f"{days} days to compare with are too few" if days < _LEAST_DAYS else ""


class _Judge:
    """The limits of one date."""

    def __init__(self, spec: DriftSpec, calendar: BusinessCalendar, day: date) -> None:
        self.spec, self.day = spec, day
        self._calendar, self._kind = calendar, kind_of_day(day, calendar)

    def usual(self, days: Sequence[date], off: NDArray[np.float64], *, any_kind: bool = False) -> tuple[float, str]:
        """Return by how much reference days like this one were off (0 or more), and why that is unknown, else empty.

        With `any_kind`, a month end is compared with other days if the reference has no month end.
        """
        if why := _too_few(len(days)):
            return 0.0, why
        by_kind: dict[str, list[float]] = {}
        for one, each in zip(days, off.tolist(), strict=True):
            by_kind.setdefault(kind_of_day(one, self._calendar), []).append(each)
        alike = by_kind.get(self._kind, [])
        if self._kind == MONTH_END and not alike and not any_kind:
            return 0.0, "it is a month end, and the reference has none to compare with"
        if len(days) < _FEW_DAYS:
            # So few days of a kind tell little of how far off one can be.
            return max(0.0, *off.tolist()), ""
        # The few days of one kind may all have been close by chance, so the median over the kinds is the floor. One
        # kind that is far off does not widen the limit of the others.
        return max(0.0, *alike, float(np.median([max(each) for each in by_kind.values()]))), ""

    def small(self, rows: int) -> str:
        """Return why a date of `rows` decisions is not judged; empty if it is."""
        return f"fewer than {self.spec.min_rows} decisions" if rows < self.spec.min_rows else ""

    def share(
        self, kind: str, name: str, measure: str, value: float, days: Sequence[date],
        shares: NDArray[np.float64], n: int, what: str,
    ) -> Finding:  # fmt: skip
        """Return the finding on a share, which has an upper limit only."""
        usual, why = self.usual(days, shares, any_kind=True)
        why = why or self.small(n)
        chance = 3 * math.sqrt(usual * (1 - usual) / max(1, n))
        high = min(1.0, max(self.spec.min_share, self.spec.margin * usual) + chance)
        expected = float(np.mean(shares)) if len(shares) else 0.0
        breached = not why and (value > high or (value == 1.0 and expected < 1.0 and usual < 1.0))
        said = f"{value:.1%} {what}; {expected:.1%} is usual"
        return Finding(
            kind, name, measure, value, expected, None, high, n, not why, breached, why or said,
            at_once=value == 1.0,
        )  # fmt: skip

    def volume(
        self, kind: str, name: str, measure: str, n: int, days: Sequence[date], counts: Sequence[int]
    ) -> Finding:
        """Return the finding on a count, compared with days of the same kind, or with all days if these are few."""
        same = [one for one, at in zip(counts, days, strict=True) if kind_of_day(at, self._calendar) == self._kind]
        alike = len(same) >= 2 or self._kind == MONTH_END
        against = np.array(same if alike else counts, dtype=np.float64)
        if len(days) < _LEAST_DAYS or not len(against):
            why = f"{len(against)} days to compare with are too few"
            return Finding(kind, name, measure, float(n), None, None, None, n, False, False, why)
        middle = float(np.median(against))
        off = np.abs(np.log(np.maximum(1.0, np.array(counts, dtype=np.float64)) / max(1.0, float(np.median(counts)))))
        own = np.abs(np.log(np.maximum(1.0, against) / max(1.0, middle)))
        spread = max(float(np.quantile(own, _HIGH)), 0.0 if alike else float(np.quantile(off, _HIGH)))
        factor = max(self.spec.min_volume, math.exp(self.spec.margin * spread))
        factor *= 1 + 3 / math.sqrt(max(1.0, middle))
        low, high = middle / factor, middle * factor
        why = f"{n:,}; {middle:,.0f} is usual on a {self._kind if alike else 'day'}"
        return Finding(
            kind, name, measure, float(n), middle, low, high, n, True, not low <= n <= high, why, at_once=n == 0
        )


def _by_slot(rows: pa.Table) -> dict[str, int]:
    if not rows.num_rows:
        return {}
    return {one["values"]: one["counts"] for one in rows["slot"].value_counts().to_pylist()}


def _volumes(
    judge: _Judge, reference: DriftReference, by_slot: Mapping[str, int], decided: Collection[str]
) -> Iterator[Finding]:
    for slot in sorted({*by_slot, *(slot for slot in decided if slot in reference.rows)}):
        counts = reference.rows.get(slot, ())
        there = [(day, n) for day, n in zip(reference.days, counts, strict=False) if n]
        days, numbers = [day for day, _ in there], [n for _, n in there]
        yield judge.volume(VOLUME, slot, "decisions", by_slot.get(slot, 0), days, numbers)


def _column(
    judge: _Judge, kind: str, name: str, spread: Spread, column: Column, by_slot: Mapping[str, int],
    *, there: bool = True,
) -> Iterator[Finding]:  # fmt: skip
    counts = np.bincount(spread.group(column), minlength=spread.groups)
    n = int(counts.sum())
    expected = spread.expected(by_slot)
    yield _stability(judge, kind, name, spread, counts, expected, n)
    what = "of the values are missing" if there else "of the values are missing: the column is not there"
    missing = np.array(spread.missing)
    yield judge.share(kind, name, MISSING, float(counts[-1]) / n, spread.days, missing, n, what)
    if spread.values is not None:
        unseen = np.array(spread.unseen)
        new = float(counts[-2]) / n
        yield judge.share(kind, name, "new categories", new, spread.days, unseen, n, "of the values are new")


def _stability(
    judge: _Judge, kind: str, name: str, spread: Spread, counts: NDArray[np.int64],
    expected: NDArray[np.float64], n: int,
) -> Finding:  # fmt: skip
    e, a = shares_of(expected), shares_of(counts)
    psi = stability_index(e, a)
    usual, why = judge.usual(spread.days, np.array(spread.psi))
    why = why or judge.small(n)
    m = int(expected.sum())
    by_chance = largest_by_chance(int(np.sum((counts + expected) > 0)), n, m)
    high = by_chance + max(judge.spec.min_psi, judge.spec.margin * usual)
    became_constant = not why and int(np.sum(counts > 0)) == 1 and int(np.sum(expected > 0)) > 1 and psi > by_chance
    real = counts / max(1, n) - expected / max(1.0, expected.sum())
    moved = float(real @ np.array(spread.levels))
    # What moves no prediction is shown and no alarm: the rate of one counterparty, say, that moves from group to group.
    slight = kind == FEATURE and abs(moved) < judge.spec.min_moved and not became_constant
    said = f"Jensen-Shannon distance {jensen_shannon(e, a):.2f}; {_most_moved(spread, real, counts, n)}"
    if became_constant:
        said = f"every value is in one group, {spread.names[int(np.argmax(counts))]}; {said}"
    return Finding(
        kind, name, "psi", psi, max(0.0, float(np.median(spread.psi))) if spread.psi else 0.0, None, high, n, not why,
        not why and (psi > high or became_constant), f"{why}; {said}" if why else said,
        moved=moved, at_once=became_constant and psi > high, slight=slight,
    )  # fmt: skip


def _most_moved(spread: Spread, real: NDArray[np.float64], counts: NDArray[np.int64], n: int) -> str:
    """Return, in words, the group whose share has changed most."""
    at = int(np.argmax(np.abs(real)))
    now = counts[at] / max(1, n)
    return f"{spread.names[at]}: {now - real[at]:.1%} before, {now:.1%} now"


def _level(judge: _Judge, kind: str, name: str, level: Level, value: float, by_slot: Mapping[str, int]) -> Finding:
    expected, n = level.expected(by_slot), sum(by_slot.values())
    usual, why = judge.usual(level.days, np.abs(np.array(level.deviations)))
    why = why or judge.small(n)
    allowed = max(judge.spec.min_log_odds, judge.spec.margin * usual)
    moved = value - expected
    said = f"the mean log-odds have moved by {moved:+.2f}; up to {allowed:.2f} is usual"
    return Finding(
        kind, name, "log-odds", value, expected, expected - allowed, expected + allowed, n, not why,
        not why and abs(moved) > allowed, why or said, moved=moved,
    )  # fmt: skip
