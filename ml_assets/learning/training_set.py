"""The training set: features and labels, cut by time into train, calibration and an unseen test window."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.duck import query_duckdb
from ml_assets.errors import InputError
from ml_assets.spec import SplitSpec

PARTS = ("train", "calibration", "test")
# A date with at least this many labelled dates before it has its base rate compared with those dates alone.
_MONTHS_BEFORE = 20


class TrainingSetError(InputError):
    """There are too few labelled decisions to train on, or their labels are not credible."""


def build_training_set(
    features: pa.Table,
    labels: pa.Table,
    split: SplitSpec,
    as_of: datetime,
    *,
    train_cutoff: datetime | None = None,
    test_first: date | None = None,
    test_last: date | None = None,
    later: Callable[[date, int], date] | None = None,
) -> pa.Table:
    """Return the labelled decisions of the three parts, sorted by decision time and entity.

    Columns are those of `features`, then `label` (int8), `label_known_at` and `part` (one of `PARTS`). Only
    labels known by `as_of` count. The test window is the decision dates from `test_first` to `test_last`, or
    the last `split.test_days` decision dates. Train and calibration are earlier decisions whose label was
    known at least `split.embargo` before the first test decision, and by `train_cutoff` if that is given: the
    last `calibration_days` decision dates of them calibrate, up to `train_days` before these train.

    Nothing before a gap of more than `split.longest_gap` without a labelled decision date counts, and nothing at all if
    no label has become known for so long, unless the window is given. `later(day, n)` is the decision date n dates
    after a day (by default n weekdays): the error uses it to say when there will be enough.

    Raises:
        TrainingSetError: nothing is labelled, no label has become known for too long, the test window is empty or too
            short or has a gap, fewer than half of `train_days` are left to train on, or the base rate of a date or part
            leaves `split.base_rate_band`.
    """
    known = chosen_of(labels, pc.less_equal(labels["label_known_at"], pa.scalar(as_of, pa.timestamp("us", tz="UTC"))))
    rows = labelled(features, known)
    dates, day = np.unique(rows["decision_date"].to_numpy(), return_inverse=True)
    if not len(dates):
        raise TrainingSetError(
            f"no labelled decisions: {features.num_rows} feature rows and {labels.num_rows} labels share "
            f"none whose label was known by {as_of:%Y-%m-%d %H:%M}; materialize more dates"
        )
    spoken = _Dates(dates, split, later or _weekdays_later, as_of)
    if test_first is None and test_last is None and train_cutoff is None:
        _refuse_old(rows, split, as_of)
    usable_dates = _after_the_gap(spoken, test_first, test_last)
    in_test = _test_days(spoken, usable_dates, test_first, test_last)[day]
    decision_time, known_at = rows["decision_time"].to_numpy(), rows["label_known_at"].to_numpy()
    first_test = decision_time[in_test].min()
    known_by = first_test - np.timedelta64(split.embargo)
    if train_cutoff is not None:
        known_by = min(known_by, np.datetime64(_naive_utc(train_cutoff), "us"))
    usable = (rows["decision_date"].to_numpy() < dates[day[in_test]].min()) & (known_at <= known_by)
    usable &= usable_dates[day]
    usable_days = np.unique(day[usable])
    least = split.calibration_days + max(1, split.train_days // 2)
    if len(usable_days) < least:
        raise TrainingSetError(
            f"{len(usable_days)} decision dates have labels known by {known_by} (the cut-off, or "
            f"{split.embargo} before the test window); {split.calibration_days} to calibrate and at least "
            f"half of {split.train_days} to train on make {least}. "
            + spoken.advice(least - len(usable_days), "train_days")
        )
    last = len(usable_days) - split.calibration_days
    part = np.full(len(day), -1, dtype=np.int8)
    part[usable & np.isin(day, usable_days[max(0, last - split.train_days) : last])] = 0
    part[usable & np.isin(day, usable_days[last:])] = 1
    part[in_test] = 2
    _refuse_base_rates(rows["label"].to_numpy(), dates, day, part, split)
    named = pa.DictionaryArray.from_arrays(pa.array(np.maximum(part, 0)), pa.array(PARTS)).cast(pa.string())
    return rows.append_column(pa.field("part", pa.string(), nullable=False), named).filter(pa.array(part >= 0))


def part_of(training_set: pa.Table, *parts: str) -> pa.Table:
    """Return the rows of the parts, in their order; where they lie together, as in a training set, none is copied."""
    return chosen_of(training_set, pc.is_in(training_set["part"], pa.array(parts)))


def chosen_of(rows: pa.Table, mask: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the rows that a mask chooses, in their order; where they lie together, none is copied."""
    number = int(pc.sum(mask).as_py() or 0)
    first = pc.index(mask, pa.scalar(True)).as_py()
    if number and pc.all(mask.slice(first, number)).as_py():
        return rows.slice(first, number)
    return rows.filter(mask)


def labelled(features: pa.Table, labels: pa.Table, columns: Sequence[str] = ("label", "label_known_at")) -> pa.Table:
    """Return the decisions that have a label, with these columns of it, sorted by decision time and entity.

    DuckDB joins and sorts them within its limit of memory, where Arrow would hold several copies of all.
    """
    fields = {f.name: f for f in [*labels.schema, *features.schema]}
    schema = pa.schema([fields[name] for name in [*features.column_names, *columns]])
    of_label = ", ".join(f'labels."{name}"' for name in columns)
    with query_duckdb() as db:
        db.register("features", features)
        db.register("labels", labels)
        rows: pa.Table = db.sql(
            f"SELECT features.*, {of_label} FROM features JOIN labels USING (entity_id, decision_time) "
            "ORDER BY decision_time, entity_id"
        ).to_arrow_table()
    return rows.cast(schema)


@dataclass(frozen=True)
class _Dates:
    """The labelled decision dates, and the message if there are too few."""

    dates: NDArray[Any]
    split: SplitSpec
    later: Callable[[date, int], date]
    as_of: datetime

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last position of each run of dates without a gap that is too long."""
        longest = np.timedelta64(self.split.longest_gap)
        ends = [int(at) for at in np.flatnonzero(np.diff(self.dates) > longest)]
        starts = [0, *(at + 1 for at in ends)]
        return list(zip(starts, [*ends, len(self.dates) - 1], strict=True))

    def advice(self, missing: int, field: str) -> str:
        """Return `said`, and what to do: land what a gap lacks, or, where there is none, lower a field of the split."""
        if len(self.spans) == 1:
            return f"{self.said(missing)}, or lower {field} in the use case's SplitSpec"
        first, last = (self._day(at) for at in (self.spans[-2][1], self.spans[-1][0]))
        return (
            f"{self.said(missing)}. If the events between {first} and {last} can still be had, land and ingest them "
            "instead. Until then the champion stays"
        )

    def said(self, missing: int) -> str:
        """Return which dates there are, where the gaps are, and when `missing` more dates will be there."""
        parts = []
        for number, (first, last) in enumerate(self.spans):
            if number:
                gap = (self._day(first) - self._day(self.spans[number - 1][1])).days
                parts.append(f"then none for {gap} days")
            parts.append(f"{self._day(first)} to {self._day(last)} ({last - first + 1} dates)")
        newest = self._day(len(self.dates) - 1)
        # An outcome is known some days after its decision; as many as now.
        enough = self.later(newest, missing) + (self.as_of.date() - newest)
        rule = f" Nothing is trained across more than {self.split.longest_gap.days} days without labels (longest_gap)."
        return (
            f"Labelled decision dates: {', '.join(parts)}.{rule if len(self.spans) > 1 else ''} "
            f"Materialize features and labels of {missing} more dates; if a date comes each business day there are "
            f"enough on about {enough}"
        )

    def _day(self, at: int) -> date:
        day: date = self.dates[at].astype("datetime64[D]").item()
        return day


def _weekdays_later(day: date, ahead: int) -> date:
    later: date = np.busday_offset(np.datetime64(day), ahead, roll="backward").astype("datetime64[D]").item()
    return later


def _refuse_old(rows: pa.Table, split: SplitSpec, as_of: datetime) -> None:
    """Refuse labels of which the newest became known more than `longest_gap` ago.

    Raises:
        TrainingSetError: it did.
    """
    newest: datetime = pc.max(rows["label_known_at"]).as_py()
    silent = as_of - newest.astimezone(UTC)
    if silent > split.longest_gap:
        last: date = pc.max(rows["decision_date"]).as_py()
        raise TrainingSetError(
            f"the newest label is of {last} and became known on {newest:%Y-%m-%d}, {silent.days} days before "
            f"{as_of:%Y-%m-%d}: nothing is trained across more than {split.longest_gap.days} days without labels "
            f"(longest_gap). Land what has happened since {last} and `ml-assets ingest` it; `ml-assets status` says "
            "what waits. Until there are labels again the champion stays. For a model of the old dates all the same, "
            "give the window in the run config of the asset training_set: test_first, test_last"
        )


def _after_the_gap(spoken: _Dates, first: date | None, last: date | None) -> NDArray[np.bool_]:
    """Return which dates lie in the run, without a long gap, that ends with the test window.

    Raises:
        TrainingSetError: the test window itself has a gap.
    """
    dates, usable = spoken.dates, np.ones(len(spoken.dates), dtype=np.bool_)
    tested = dates <= np.datetime64(last) if last is not None else usable
    if not tested.any():
        return usable  # the caller reports that there is no test window
    newest = int(np.flatnonzero(tested)[-1])
    start = next(begin for begin, end in spoken.spans if begin <= newest <= end)
    if first is not None and (dates[tested] >= np.datetime64(first)).any():
        oldest = int(np.flatnonzero(dates >= np.datetime64(first))[0])
        if oldest < start:
            raise TrainingSetError(f"the test window from {first} has a gap. {spoken.said(0)}; choose another window")
    usable[:start] = False
    return usable


def _test_days(spoken: _Dates, usable: NDArray[np.bool_], first: date | None, last: date | None) -> NDArray[np.bool_]:
    """Return which of the decision dates are the test window."""
    dates, split = spoken.dates, spoken.split
    if first is None and last is None:
        if (there := int(usable.sum())) <= split.test_days:
            least = split.test_days + split.calibration_days + max(1, split.train_days // 2)
            raise TrainingSetError(
                f"{there} decision dates have labels{' since the gap' if there < len(dates) else ''}; the test window "
                f"alone takes {split.test_days}, and with calibration and half of the training days {least} are "
                f"needed. " + spoken.advice(least - there, "test_days")
            )
        return np.arange(len(dates)) >= len(dates) - split.test_days
    chosen = np.ones(len(dates), dtype=np.bool_)
    if first is not None:
        chosen &= dates >= np.datetime64(first)
    if last is not None:
        chosen &= dates <= np.datetime64(last)
    if not chosen.any():
        raise TrainingSetError(
            f"no labelled decisions from {first or 'the beginning'} to {last or 'the end'}; labels cover "
            f"decision dates {dates[0]} to {dates[-1]}"
        )
    return chosen


def _refuse_base_rates(
    labels: NDArray[Any], dates: NDArray[Any], day: NDArray[np.int64], part: NDArray[np.int8], split: SplitSpec
) -> None:
    """Refuse labels whose base rate on a date, or in a part, is too far from that of the months before.

    The rate of the months before is that of the median date among all labelled dates until then; the first dates are
    compared with all. A difference of up to six standard deviations counts as chance.

    Raises:
        TrainingSetError: the odds leave the band.
    """
    total = np.bincount(day, minlength=len(dates)).astype(float)
    rates = np.bincount(day, weights=labels, minlength=len(dates)) / total
    asked = [(f"on {dates[at]}", np.flatnonzero(np.arange(len(dates)) == at)) for at in np.unique(day[part >= 0])]
    asked += [(f"in the {PARTS[of]} part", np.unique(day[part == of])) for of in range(len(PARTS))]
    outside: list[tuple[float, str]] = []
    for where, days in asked:
        earlier = slice(0, int(days[0])) if days[0] >= _MONTHS_BEFORE else slice(None)
        usual = _usual_rate(rates[earlier], total[earlier])
        n = float(total[days].sum())
        rate = float((rates[days] * total[days]).sum() / n)
        far = abs(rate - usual) * n > 6 * np.sqrt(max(n * usual * (1 - usual), 1.0))
        odds = [(share * n + 0.5) / ((1 - share) * n + 0.5) for share in (rate, usual)]
        times = max(odds) / min(odds)
        if far and times > split.base_rate_band:
            what = (
                f"{rate:.1%} of the {n:,.0f} decisions {where} have the outcome, and {usual:.1%} in the months before: "
                f"the odds are {times:,.1f} times {'higher' if rate > usual else 'lower'}"
            )
            outside.append((times, what))
    if outside:
        most, worst = max(outside)
        more = f", as are those of {len(outside) - 1} other dates or parts, by less" if len(outside) > 1 else ""
        raise TrainingSetError(
            f"{worst}, outside the band of {split.base_rate_band:g}{more}. Either a feed was missing when these labels "
            "were made: look at `ml-assets status`, and make the labels again with `ml-assets ingest` of the dates on "
            f"which they became known. Or rates differ that much from day to day: then SplitSpec(base_rate_band="
            f"{np.ceil(most):.0f}) in the use case takes them all"
        )


def _usual_rate(rates: NDArray[np.float64], total: NDArray[np.float64]) -> float:
    """Return the rate of the median date, or the mean if dates have too few outcomes for a median."""
    median = float(np.median(rates))
    return median if median * float(np.median(total)) >= 5 else float((rates * total).sum() / total.sum())


def _naive_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise InputError(f"train_cutoff {moment} has no time zone; give one, for example datetime(..., tzinfo=UTC)")
    return moment.astimezone(UTC).replace(tzinfo=None)
