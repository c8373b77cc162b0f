"""Curated events to features, and matured outcomes to labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.dataset as ds

from ml_assets.contracts import roll_to_weekday
from ml_assets.features import KEYS_SCHEMA, LABELS_SCHEMA, AsOfDatabase, DailyParts, columns_read, features_schema
from ml_assets.lake import Lake, curated_table, features_table, labels_table, reference_table
from ml_assets.lake.counts import counts_by
from ml_assets.landing.landed import landed_watermark
from ml_assets.lifecycle.daily import CLOCKS_AHEAD, KeptDays, PartInputs, keep_parts, look_for_parts
from ml_assets.spec import DecisionTime, UseCase

# An outcome is known within this time; the search for outcomes that a day made known goes no further back.
LONGEST_MATURITY = timedelta(days=75)
# A decision is about an outcome at most this far ahead.
_LONGEST_HORIZON = timedelta(days=15)


@dataclass(frozen=True, slots=True)
class DecisionReport:
    """What was written: rows in all, rows of each date, and the Delta version of the table.

    `landed_until` is the newest `known_at` landed, `newest_decision` the last time that was decided at. Left for later
    are `undecided`, the decision times that are yet to come, and `immature`, the outcome dates whose events have not
    landed. `daily_made` are the days of which parts of daily tables were made, anew or for the first time.
    """

    rows: int
    rows_by_date: dict[date, int]
    version: int
    landed_until: datetime | None = None
    newest_decision: datetime | None = None
    undecided: tuple[DecisionTime, ...] = ()
    immature: tuple[date, ...] = ()
    daily_made: tuple[date, ...] = ()


def compute_features(
    lake: Lake,
    usecase: UseCase,
    dates: Sequence[date],
    *,
    until: datetime | None = None,
    threads: int = 0,
    progress: Callable[[date], None] = lambda _: None,
) -> DecisionReport:
    """Make the feature partitions of these decision dates, each as of its own decision times.

    Decision times after `until` (usually now) are left for later: what will be known then is not known yet.
    """
    parts = [features_schema(usecase.features).empty_table()]
    decided: list[DecisionTime] = []
    undecided: list[DecisionTime] = []
    inputs = PartInputs(lake, usecase)
    kept = look_for_parts(lake, usecase, inputs, dates) if usecase.daily else KeptDays(DailyParts())
    first = min([*dates, *kept.missing])
    with open_history(lake, usecase, first, max(dates), daily=kept.parts, threads=threads) as history:
        history.make_daily(kept.missing)
        for day in dates:
            due = [decision for decision in usecase.decision_times(day) if until is None or decision.as_of <= until]
            undecided += [decision for decision in usecase.decision_times(day) if decision not in due]
            decided += due
            parts.append(history.features_at(due))
            progress(day)
        if usecase.daily:
            keep_parts(lake, usecase, inputs, kept, history)
    features = pa.concat_tables(parts)
    version = lake.replace(features_table(usecase), features, "decision_date", dates)
    return DecisionReport(
        features.num_rows,
        counts_by(features, "decision_date"),
        version,
        landed_until=landed_watermark(lake, usecase.events),
        newest_decision=max((decision.as_of for decision in decided), default=None),
        undecided=tuple(undecided),
        daily_made=kept.missing,
    )


def mature_labels(lake: Lake, usecase: UseCase, known_dates: Sequence[date], *, threads: int = 0) -> DecisionReport:
    """Make the label partitions of these dates: the outcomes that became known on them.

    An outcome is left for later while events have not landed up to the time at which it is known: judged too early,
    every trade would have failed.
    """
    watermark = landed_watermark(lake, usecase.events)
    outcomes = [(known, outcome) for known in known_dates for outcome in outcome_dates_known_on(usecase, known)]
    mature = [(k, day) for k, day in outcomes if watermark is not None and usecase.label.known_at(day) <= watermark]
    schema = LABELS_SCHEMA.append(pa.field("known_date", pa.date32(), nullable=False))
    parts = [schema.empty_table()]
    if mature:
        first = min(outcome for _, outcome in mature)
        with open_history(lake, usecase, first, max(known_dates), threads=threads) as history:
            for known_date, outcome_date in mature:
                rows = history.labels(outcome_date, _decisions_about(lake, usecase, outcome_date))
                parts.append(rows.append_column(schema.field("known_date"), _repeat(known_date, rows.num_rows)))
    labels = pa.concat_tables(parts)
    version = lake.replace(labels_table(usecase), labels, "known_date", known_dates)
    return DecisionReport(
        labels.num_rows,
        counts_by(labels, "known_date"),
        version,
        landed_until=watermark,
        immature=tuple(outcome for known, outcome in outcomes if (known, outcome) not in mature),
    )


def outcome_dates_known_on(usecase: UseCase, day: date) -> list[date]:
    """Return the outcome dates whose label becomes known on this date (on a weekend: on the Monday after)."""
    candidates = usecase.calendar.between(day - LONGEST_MATURITY, day)
    return [outcome for outcome in candidates if roll_to_weekday(usecase.label.known_at(outcome).date()) == day]


def open_history(
    lake: Lake, usecase: UseCase, first: date, last: date, *, daily: DailyParts | None = None, threads: int = 0
) -> AsOfDatabase:
    """Return the curated history that decisions from `first` to `last` can look back on, besides the kept parts."""
    events = {}
    for event in usecase.events:
        dataset = lake.dataset(curated_table(usecase, event))
        if dataset is not None:
            wanted = (ds.field("business_date") >= first - event.history) & (
                ds.field("business_date") <= last + CLOCKS_AHEAD
            )
            # Only what the SQL can need, of the days that it looks back on: a day costs the same after years.
            events[event.name] = dataset.to_table(columns=columns_read(usecase, event), filter=wanted)
    references = {}
    for reference in usecase.references:
        dataset = lake.dataset(reference_table(usecase, reference))
        if dataset is not None:
            references[reference.name] = dataset
    return AsOfDatabase(usecase, events, references, daily=daily, threads=threads)


def _decisions_about(lake: Lake, usecase: UseCase, outcome_date: date) -> pa.Table:
    dataset = lake.dataset(features_table(usecase))
    if dataset is None:
        return KEYS_SCHEMA.empty_table()
    decided = (ds.field("decision_date") >= outcome_date - _LONGEST_HORIZON) & (
        ds.field("decision_date") <= outcome_date
    )
    return dataset.to_table(columns=KEYS_SCHEMA.names, filter=decided & (ds.field("outcome_date") == outcome_date))


def _repeat(day: date, rows: int) -> pa.Array:
    return pa.array([day] * rows, pa.date32())
