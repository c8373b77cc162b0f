"""The training set: features and labels, cut by time into train, calibration and an unseen test window."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.spec import SplitSpec

PARTS = ("train", "calibration", "test")


class TrainingSetError(ValueError):
    """There are too few labelled decisions to train on."""


def build_training_set(
    features: pa.Table,
    labels: pa.Table,
    split: SplitSpec,
    as_of: datetime,
    *,
    train_cutoff: datetime | None = None,
    test_first: date | None = None,
    test_last: date | None = None,
) -> pa.Table:
    """Return the labelled decisions of the three parts, sorted by decision time and entity.

    Columns are those of `features`, then `label` (int8), `label_known_at` and `part` (one of `PARTS`). Only
    labels known by `as_of` count. The test window is the decision dates from `test_first` to `test_last`, or
    the last `split.test_days` decision dates. Train and calibration are earlier decisions whose label was
    known at least `split.embargo` before the first test decision, and by `train_cutoff` if that is given: the
    last `calibration_days` decision dates of them calibrate, up to `train_days` before these train.

    Raises:
        TrainingSetError: nothing is labelled, the test window is empty or too short, or fewer than half of
            `train_days` are left to train on.
    """
    known = labels.filter(pc.less_equal(labels["label_known_at"], pa.scalar(as_of, pa.timestamp("us", tz="UTC"))))
    rows = labelled(features, known)
    dates, day = np.unique(rows["decision_date"].to_numpy(), return_inverse=True)
    if not len(dates):
        raise TrainingSetError(
            f"no labelled decisions: {features.num_rows} feature rows and {labels.num_rows} labels share "
            f"none whose label was known by {as_of:%Y-%m-%d %H:%M}; materialize more dates"
        )
    in_test = _test_days(dates, split, test_first, test_last)[day]
    decision_time, known_at = rows["decision_time"].to_numpy(), rows["label_known_at"].to_numpy()
    first_test = decision_time[in_test].min()
    known_by = first_test - np.timedelta64(split.embargo)
    if train_cutoff is not None:
        known_by = min(known_by, np.datetime64(_naive_utc(train_cutoff), "us"))
    usable = (rows["decision_date"].to_numpy() < dates[day[in_test]].min()) & (known_at <= known_by)
    usable_days = np.unique(day[usable])
    least = split.calibration_days + max(1, split.train_days // 2)
    if len(usable_days) < least:
        raise TrainingSetError(
            f"{len(usable_days)} decision dates have labels known by {known_by} (the cut-off, or "
            f"{split.embargo} before the test window); {split.calibration_days} to calibrate and at least "
            f"half of {split.train_days} to train on make {least}. Materialize features and labels of "
            f"{least - len(usable_days)} more dates, or lower train_days in the use case's SplitSpec"
        )
    last = len(usable_days) - split.calibration_days
    part = np.full(len(day), -1, dtype=np.int8)
    part[usable & np.isin(day, usable_days[max(0, last - split.train_days) : last])] = 0
    part[usable & np.isin(day, usable_days[last:])] = 1
    part[in_test] = 2
    named = pa.DictionaryArray.from_arrays(pa.array(np.maximum(part, 0)), pa.array(PARTS)).cast(pa.string())
    return rows.append_column(pa.field("part", pa.string(), nullable=False), named).filter(pa.array(part >= 0))


def part_of(training_set: pa.Table, *parts: str) -> pa.Table:
    """Return the rows of the parts, in their order."""
    return training_set.filter(pc.is_in(training_set["part"], pa.array(parts)))


def labelled(features: pa.Table, labels: pa.Table) -> pa.Table:
    """Return the decisions that have a label, with it and `label_known_at`, sorted by decision time and entity."""
    keys = ["entity_id", "decision_time"]
    rows = features.join(labels.select([*keys, "label", "label_known_at"]), keys=keys, join_type="inner")
    fields = {f.name: f for f in [*labels.schema, *features.schema]}
    schema = pa.schema([fields[name] for name in [*features.column_names, "label", "label_known_at"]])
    return (
        rows.select(schema.names)
        .sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])
        .cast(schema)
        .combine_chunks()
    )


def _test_days(dates: NDArray[Any], split: SplitSpec, first: date | None, last: date | None) -> NDArray[np.bool_]:
    """Return which of the decision dates are the test window."""
    if first is None and last is None:
        if len(dates) <= split.test_days:
            raise TrainingSetError(
                f"{len(dates)} decision dates have labels; the test window alone takes {split.test_days}: "
                "materialize more dates, or lower test_days in the use case's SplitSpec"
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


def _naive_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"train_cutoff {moment} has no time zone; give one, for example datetime(..., tzinfo=UTC)")
    return moment.astimezone(UTC).replace(tzinfo=None)
