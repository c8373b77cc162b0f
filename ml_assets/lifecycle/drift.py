"""What drift reads and writes. Each rule is a pure function of `ml_assets.monitoring.drift`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from sqlalchemy import Engine

from ml_assets.database.models import Drift
from ml_assets.database.monitoring import replace_dates, rows_between
from ml_assets.features.days import day_end
from ml_assets.lake import Lake, features_table, outcomes_table, predictions_table
from ml_assets.learning.drift_reference import evenly
from ml_assets.learning.plots import drift_plot
from ml_assets.learning.slices import described, with_sources
from ml_assets.lifecycle.champion import champion_run
from ml_assets.lifecycle.decided import decided_times
from ml_assets.lifecycle.feeds import feed_rows
from ml_assets.lifecycle.opened_models import OpenedModels
from ml_assets.monitoring.drift import (
    FEATURE,
    PREDICTION,
    SLICE,
    Finding,
    date_findings,
    drift_table,
    feed_findings,
    group_findings,
    whole_finding,
)
from ml_assets.monitoring.effect import untouched
from ml_assets.monitoring.outcomes import BATCH, judged_rows, known_until
from ml_assets.registry import ModelRegistry
from ml_assets.spec import UseCase

# Business dates with which the feeds of a date are compared, and decisions of a slot whose reasons are asked for.
_FEED_DAYS, _EXPLAINED = 20, 256
# How far back the plot goes, and a date looks for those before it.
_SHOWN = timedelta(days=30)
_KEYS = ["entity_id", "decision_time"]


@dataclass(frozen=True)
class DriftReport:
    """The newest date's measures (`DRIFT_SCHEMA`), those of the dates before, and why some are not there."""

    day: date
    rows: pa.Table
    why: str
    earlier: Sequence[dict[str, Any]]

    @cached_property
    def plot(self) -> bytes:
        """The columns by date: how near to its limit each is."""
        return _plot([*self.earlier, *self.rows.to_pylist()])

    @property
    def drifted(self) -> list[dict[str, Any]]:
        """What has drifted."""
        return [row for row in self.rows.to_pylist() if row["drifted"]]


def measure_drift(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine,
    usecase: UseCase,
    dates: Sequence[date],
    *,
    threads: int = 0,
) -> DriftReport:
    """Measure how far the decisions of each date are from those that their model learned from; return the newest.

    Feeds are those of the business date before, which is over. The rows of a date are replaced in PostgreSQL.
    """
    models = OpenedModels(registry, threads)
    for day in sorted(dates):
        found, why = _decisions(lake, registry, engine, usecase, day, models)
        found += _feeds(lake, usecase, day, threads)
        found += _groups(lake, usecase, day)
        earlier = rows_between(engine, Drift, usecase.name, day - _SHOWN, day - timedelta(days=1))
        rows = drift_table(usecase, day, found, earlier)
        replace_dates(engine, Drift, usecase.name, [day], rows)
    return DriftReport(day, rows, why, earlier)


def _decisions(
    lake: Lake, registry: ModelRegistry, engine: Engine, usecase: UseCase, day: date, models: OpenedModels
) -> tuple[list[Finding], str]:
    """Return the findings on the decisions of a date, and why there are none."""
    of_day = ds.field("decision_date") == pa.scalar(day)
    if lake.dataset(features_table(usecase)) is None:
        return [], "no features have been made yet"
    features = lake.read(features_table(usecase), where=of_day)
    predicted = None
    if lake.dataset(predictions_table(usecase)) is not None:
        columns = [*_KEYS, "probability", "mlflow_run_id", "scored_at"]
        predicted = lake.read(predictions_table(usecase), columns=columns, where=of_day).sort_by("scored_at")
    run_id = predicted["mlflow_run_id"][-1].as_py() if predicted else champion_run(registry, engine, usecase)
    if run_id is None:
        return [], "nothing has been scored yet"
    try:
        model = models.open(usecase, run_id)
    except (LookupError, FileNotFoundError) as lost:
        return [], f"the model that scored cannot be looked up: {lost}"
    manifest = model.scorer.manifest
    reference = manifest.reference
    if reference is None or reference.drift is None:
        return [], "the model was made before its training days were kept with it; retrain to have drift judged"
    if manifest.feature_set_hash != usecase.feature_set_hash:
        return [], "the features have another definition than when the model was trained; retrain"
    decided = [decision.slot for decision in decided_times(lake, usecase, [day], features)]
    rows = features.slice(0, 0).append_column("probability", pa.array([], pa.float64()))
    if predicted:
        rows = features.join(predicted.drop_columns(["mlflow_run_id", "scored_at"]), keys=_KEYS, join_type="inner")
        rows = rows.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])
    rows = described(usecase, rows, rows.select([*_KEYS, "attributes"]))
    causes: dict[str, dict[str, float]] = {}
    for slot in pc.unique(rows["slot"]).to_pylist():
        of_slot = rows.filter(pc.equal(rows["slot"], slot))
        some = of_slot.take(pa.array(evenly(of_slot.num_rows, _EXPLAINED)))
        causes[slot] = model.explainer.mean_contributions(some) if model.explainer else {}
    return date_findings(usecase, manifest.features, reference.drift, day, rows, causes, decided), ""


def _feeds(lake: Lake, usecase: UseCase, day: date, threads: int) -> list[Finding]:
    over = usecase.calendar.previous(day)
    dates = [usecase.calendar.add(over, -number) for number in range(_FEED_DAYS, -1, -1)]
    return feed_findings(usecase, over, feed_rows(lake, usecase, dates, day_end(day), threads=threads))


def _groups(lake: Lake, usecase: UseCase, day: date) -> list[Finding]:
    """Return what the outcomes that were known by the end of a date say, of all decisions and by group."""
    spec = usecase.monitoring.drift
    if lake.dataset(outcomes_table(usecase)) is None:
        return []
    first = day - _SHOWN - timedelta(days=spec.group_days)
    rows = lake.read(
        outcomes_table(usecase),
        where=(ds.field("outcome_date") >= pa.scalar(first))
        & (ds.field("outcome_date") <= pa.scalar(day))
        & (ds.field("stage") == BATCH),
    )
    rows = untouched(usecase, known_until(judged_rows(rows), day))
    rows = rows.filter(rows["is_last"])
    found = whole_finding(usecase, rows)
    newest = np.unique(rows["outcome_date"].to_numpy())[-spec.group_days :]
    rows = rows.filter(pc.is_in(rows["outcome_date"], pa.array(newest, pa.date32())))
    if not rows.num_rows or not spec.groups:
        return found
    decided = ds.field("decision_date").isin(pc.unique(rows["decision_date"]))
    described_by = lake.read(features_table(usecase), where=decided)
    sources = [source for source in spec.groups if source in described_by.column_names]
    rows = rows.join(described_by.select([*_KEYS, *sources]), keys=_KEYS, join_type="left outer")
    rows = rows.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])
    attributes = {source: source for source in spec.groups if source not in sources}
    rows = with_sources(usecase, rows, described_by.select([*_KEYS, "attributes"]), attributes)
    return found + group_findings(usecase, rows)


def _plot(rows: Sequence[dict[str, Any]]) -> bytes:
    """Plot the share of its limit that the stability index of each column has, by date."""
    days = sorted({row["decision_date"] for row in rows})
    shares: dict[str, list[float]] = {}
    for row in rows:
        if row["measure"] == "psi" and row["kind"] in (FEATURE, PREDICTION, SLICE) and row["value"] is not None:
            name = row["name"] if row["kind"] != SLICE else f"{row['name']} (slice)"
            of_day = shares.setdefault(name, [float("nan")] * len(days))
            of_day[days.index(row["decision_date"])] = row["value"] / row["high"] if row["high"] else float("nan")
    return drift_plot(days, shares)
