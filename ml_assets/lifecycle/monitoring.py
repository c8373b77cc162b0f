"""What monitoring reads and writes. Each rule is a pure function of `ml_assets.monitoring`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from sqlalchemy import Engine

from ml_assets.answers import SERVED_SCORES
from ml_assets.database.feedback import feedback_about
from ml_assets.database.models import Drift, Estimate, Outcome, OutcomeCount, Performance, RetrainingDecision
from ml_assets.database.monitoring import replace_dates, rows_between
from ml_assets.features.days import day_end, day_start
from ml_assets.lake import (
    Lake,
    features_table,
    labels_table,
    landing_table,
    outcomes_table,
    predictions_table,
    shadow_table,
)
from ml_assets.landing.schemas import EVENT, event_schema
from ml_assets.learning.plots import estimate_plot
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.slices import slice_columns, with_feedback
from ml_assets.learning.stability import group_shares, stability_index
from ml_assets.lifecycle.evaluation import read_evidence, read_model_evidence
from ml_assets.lifecycle.horizons import Horizons, horizons_of, known_everywhere
from ml_assets.lifecycle.standing import champion_facts
from ml_assets.lifecycle.waiting import is_mature, label_progress, not_ingested, stale_for
from ml_assets.monitoring.answers import ANSWERED, online_decisions
from ml_assets.monitoring.effect import Effect, effect_of_acting
from ml_assets.monitoring.estimate import estimates
from ml_assets.monitoring.outcomes import (
    BATCH,
    ONLINE,
    PREDICTED,
    Completeness,
    completeness,
    join_outcomes,
    outcome_counts,
    outcomes_schema,
)
from ml_assets.monitoring.performance import LiveVerdict, judge_live, matured_window, performance
from ml_assets.monitoring.retraining import (
    Decision,
    Facts,
    Past,
    breaches,
    broken,
    decide,
    last_training,
    with_drift,
)
from ml_assets.monitoring.shadow import SHADOW
from ml_assets.registry import ModelRegistry
from ml_assets.spec import UseCase

# How far back estimates and earlier decisions are looked at by the rule that retrains.
_LOOK_BACK = timedelta(days=120)
# Where the predictions of each stage lie; the answers of the scoring service are as they have landed (`_answers`).
SOURCES = {BATCH: predictions_table, SHADOW: shadow_table}


@dataclass(frozen=True)
class OutcomeReport:
    """Which outcome dates were joined, how complete each is, and what the lake's table holds of them."""

    dates: Sequence[Completeness]
    version: int
    rows: pa.Table

    @property
    def complete(self) -> list[date]:
        """The dates that can be judged."""
        return [one.outcome_date for one in self.dates if one.is_complete]


def join_live_outcomes(lake: Lake, engine: Engine | str, usecase: UseCase, dates: Sequence[date]) -> OutcomeReport:
    """Join predictions and outcomes of all outcome dates that something was predicted of, or became known of, on dates.

    Whole outcome dates are replaced, in the lake and in PostgreSQL: a label that comes late, or is corrected, makes its
    outcome date anew.
    """
    horizons = horizons_of(lake, usecase)
    touched = _touched(lake, usecase, horizons, dates)
    slowest, stale = label_progress(lake, usecase), not_ingested(lake, usecase)
    known = {day: horizons.of_date(day) for day in touched}
    mature = [
        day for day, all_of in known.items() if all_of and all(is_mature(horizons, slowest, stale, o) for o in all_of)
    ]
    wanted = ds.field("outcome_date").isin(pa.array(touched, pa.date32()))
    predictions = {stage: _about(lake, table(usecase), touched) for stage, table in SOURCES.items()}
    answers = _answers(lake, usecase, wanted)
    decided = {day for rows in predictions.values() for day in pc.unique(rows["decision_date"]).to_pylist()}
    if answers.num_rows:
        decided |= {day for day, outcomes in horizons.by_decision.items() if outcomes & set(touched)}
    features = _rows(
        lake,
        features_table(usecase),
        ["entity_id", "decision_time", *slice_columns(usecase), *(_DESCRIBED if answers.num_rows else ())],
        ds.field("decision_date").isin(pa.array(sorted(decided), pa.date32())) & wanted,
    )
    labels = _rows(lake, labels_table(usecase), _NO_LABELS.column_names, wanted)
    labels = labels if labels is not None else _NO_LABELS
    if answers.num_rows and features is not None:
        online = online_decisions(usecase, answers, features, labels)
        predictions[ONLINE] = online.predictions
        features = _together(features, online.features)
        labels = _together(labels, online.labels)
    rows = join_outcomes(usecase, predictions, features, labels, mature)
    rows = with_feedback(usecase, rows, partial(feedback_about, engine, usecase.name))
    version = lake.replace(outcomes_table(usecase), rows, "outcome_date", touched)
    replace_dates(engine, Outcome, usecase.name, touched, rows)
    replace_dates(engine, OutcomeCount, usecase.name, touched, outcome_counts(usecase, rows))
    decided = rows.filter(pc.equal(rows["stage"], BATCH))
    return OutcomeReport(completeness(decided), version, rows)


@dataclass(frozen=True)
class PerformanceReport:
    """How the model in use does: metrics of the newest matured window, the gate's word on it, and estimates.

    `window` are the judged predictions, `acting` is what acting on the lists of the window avoided.
    """

    window: pa.Table
    performance: pa.Table
    live: LiveVerdict
    estimates: pa.Table
    acting: Effect

    @cached_property
    def plot(self) -> bytes:
        """Estimated against realised PR-AUC, by outcome date."""
        return _plot(self.estimates)


def measure_performance(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    dates: Sequence[date],
    *,
    threads: int = 0,
) -> PerformanceReport:
    """Measure the matured window as it was known at the end of each date; return that of the last.

    Performance is kept in PostgreSQL by the last outcome date of its window, estimates by outcome date.
    """
    outcomes = _newest(lake, usecase, min(dates))
    estimated = _write_estimates(engine, usecase, outcomes)
    window = performance_rows = None
    for day in sorted(dates):
        window = matured_window(usecase, outcomes, until=day)
        performance_rows = performance(usecase, window)
        if window.num_rows:
            replace_dates(engine, Performance, usecase.name, [pc.max(window["outcome_date"]).as_py()], performance_rows)
    assert window is not None  # noqa: S101 - a run has dates
    assert performance_rows is not None  # noqa: S101
    live = _judge(lake, registry, usecase, window, threads)
    return PerformanceReport(window, performance_rows, live, estimated, effect_of_acting(usecase, window))


def measure_estimates(lake: Lake, engine: Engine | str, usecase: UseCase, day: date) -> pa.Table:
    """Estimate the newest outcome dates, hold against them what came out, and return that (`ESTIMATES_SCHEMA`).

    It is the part of `measure_performance` on which `decide_retraining` rests.
    """
    return _write_estimates(engine, usecase, _newest(lake, usecase, day))


def _write_estimates(engine: Engine | str, usecase: UseCase, outcomes: pa.Table) -> pa.Table:
    estimated = estimates(usecase, outcomes)
    replace_dates(engine, Estimate, usecase.name, pc.unique(estimated["outcome_date"]).to_pylist(), estimated)
    return estimated


def decide_retraining(
    lake: Lake, registry: ModelRegistry, engine: Engine, usecase: UseCase, dates: Sequence[date], dagster_run_id: str
) -> list[Decision]:
    """Decide for each date, the earliest first, whether to retrain out of turn, and write each decision down.

    What was estimated and came out (`measure_performance`) and what has drifted (`measure_drift`) are in PostgreSQL. A
    decision that is made anew for a date replaces the one before.
    """
    champion = champion_facts(registry, engine, usecase)
    trained = _training_date(champion.training_date) if champion else None
    labels = lake.files(labels_table(usecase), "known_date")
    stale = not_ingested(lake, usecase)
    made = []
    for day in sorted(dates):
        first = day - _LOOK_BACK
        came = [
            row
            for row in rows_between(engine, Estimate, usecase.name, first, day)
            if (at := known_everywhere(usecase, row["outcome_date"])) is not None and at <= day_end(day)
        ]
        drift = rows_between(engine, Drift, usecase.name, first, day)
        newest = sorted({row["decision_date"] for row in drift})[-usecase.monitoring.windows :]
        earlier = rows_between(engine, RetrainingDecision, usecase.name, first, day - timedelta(days=1))
        past = [Past(row["decision_date"], row["outcome"], row["numbers"]["champion"]) for row in earlier]
        last = last_training(trained, past, day)
        facts = Facts(
            day=day,
            due=_due(usecase, day),
            dates=with_drift(breaches(usecase.monitoring, came), drift),
            champion=champion.line.to_version if champion else None,
            trained=trained,
            new_labels=sum(f.rows for f in labels if (last is None or f.partition > last) and f.partition <= day),
            red=broken(drift, min(newest, default=day), usecase.gate.batch.max_psi)
            + [
                f"event {name} of {of_day}: {why}`ml-assets ingest {usecase.name} --from {of_day}`"
                for name, of_day, why in stale_for(stale, day - timedelta(days=usecase.monitoring.window_days), day)
            ],
            past=past,
        )
        decision = decide(usecase.monitoring, facts)
        replace_dates(engine, RetrainingDecision, usecase.name, [day], _as_row(usecase, decision, dagster_run_id))
        made.append(decision)
    return made


def _due(usecase: UseCase, day: date) -> date:
    """Return the newest outcome date whose outcomes should have been known when a day began."""
    due = usecase.calendar.previous(day)
    while due > day - _LOOK_BACK and not ((at := known_everywhere(usecase, due)) and at < day_start(day)):
        due = usecase.calendar.previous(due)
    return due


def _as_row(usecase: UseCase, decision: Decision, dagster_run_id: str) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "use_case": usecase.name,
                "decision_date": decision.day,
                "outcome": decision.outcome,
                "reason": decision.reason,
                "numbers": json.dumps(dict(decision.numbers)),
                "decided_at": datetime.now(UTC),
                "dagster_run_id": dagster_run_id,
            }
        ]
    )


def _training_date(said: str) -> date | None:
    try:
        return date.fromisoformat(said)
    except ValueError:  # the registry has lost the run
        return None


def _newest(lake: Lake, usecase: UseCase, first: date) -> pa.Table:
    """Return the outcomes that a window which ends on `first` or later can have, or an estimate be held against."""
    table = outcomes_table(usecase)
    days = sorted({file.partition for file in lake.files(table, "outcome_date") if file.rows})
    before = [day for day in days if day <= first][-2 * usecase.monitoring.window_days :]
    if not days:
        return outcomes_schema(usecase).empty_table()
    return lake.read(table, where=ds.field("outcome_date") >= (before or days)[0])


def _judge(lake: Lake, registry: ModelRegistry, usecase: UseCase, window: pa.Table, threads: int) -> LiveVerdict:
    """Return the gate's word on the batch's part of a window, against the rule that was trained beside the model."""
    batch = window.filter(pc.equal(window["stage"], BATCH))
    if not batch.num_rows:
        return LiveVerdict(None, "no prediction has an outcome on a complete date yet")
    decided = pc.unique(batch["decision_date"]).to_pylist()
    try:
        versions = batch.group_by(["model_version", "mlflow_run_id"]).aggregate([]).sort_by("model_version").to_pylist()
        models = {row["model_version"]: read_model_evidence(registry, row["mlflow_run_id"]) for row in versions}
        newest = versions[-1]["mlflow_run_id"]
        trained = date.fromisoformat(registry.run(newest).tags["training_date"])
        rule_run = registry.candidate_runs(usecase.name, trained)[usecase.rule.name].run_id
        serving = read_evidence(registry, usecase, newest)[0].serving
    except (LookupError, FileNotFoundError) as lost:
        return LiveVerdict(None, f"the models in use cannot be looked up: {lost}")
    rule = Scorer.from_files(registry.download_model(rule_run), threads=threads)
    features = lake.read(features_table(usecase), where=ds.field("decision_date").isin(pa.array(decided, pa.date32())))
    if rule.manifest.feature_set_hash != usecase.feature_set_hash:
        return LiveVerdict(None, "the features have another definition than when the model was trained; retrain")
    keys = ["entity_id", "decision_time"]
    scored = features.select(keys).append_column("rule", pa.array(rule.score(features)))
    rows = batch.join(scored, keys=keys, join_type="inner")
    rows = rows.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])
    reference = Scorer.from_files(registry.download_model(newest), threads=threads).manifest.reference
    p = rows["probability"].to_numpy()
    psi = None
    if reference is not None and len(p):
        psi = stability_index(np.asarray(reference.whole.scores), group_shares(p, reference.edges))
    return judge_live(
        usecase,
        rows.drop_columns(["rule"]),
        rows["rule"].to_numpy(),
        models,
        read_model_evidence(registry, rule_run),
        serving=serving,
        score_psi=psi,
    )


def _plot(estimated: pa.Table) -> bytes:
    metric = "pr_auc"
    rows = estimated.filter(pc.equal(estimated["metric"], metric)).to_pylist()

    def column(name: str) -> list[float]:
        return [np.nan if row[name] is None else row[name] for row in rows]

    return estimate_plot(
        [row["outcome_date"] for row in rows],
        estimated=column("estimated"),
        low=column("low"),
        high=column("high"),
        realised=column("realised"),
    )


_DESCRIBED = ("outcome_date", "cost_if_fail", "attributes")
_NO_LABELS = pa.schema(
    [
        ("entity_id", pa.string()),
        ("decision_time", pa.timestamp("us", "UTC")),
        ("outcome_date", pa.date32()),
        ("label", pa.int8()),
        ("label_known_at", pa.timestamp("us", "UTC")),
        ("known_date", pa.date32()),
    ]
).empty_table()


def _touched(lake: Lake, usecase: UseCase, horizons: Horizons, dates: Sequence[date]) -> list[date]:
    """Return the outcome dates of what was predicted on these dates, and of what became known on them, now or before.

    What became known before and is no longer in the labels, as after a correction, is told by the outcomes table.
    """
    days = pa.array(sorted(dates), pa.date32())
    found = {outcome.date for day in dates for outcome in horizons.known_on(day)}
    for table, column in [
        *((table(usecase), "decision_date") for table in SOURCES.values()),
        (labels_table(usecase), "known_date"),
        (outcomes_table(usecase), "known_date"),
        (landing_table(SERVED_SCORES.topic), "business_date"),
    ]:
        where = ds.field(column).isin(days)
        if column == "business_date":
            where &= _of_service(usecase)
        rows = _rows(lake, table, ["outcome_date"], where)
        found |= set(pc.unique(rows["outcome_date"]).to_pylist()) if rows is not None else set()
    return sorted(found)


def _together(rows: pa.Table, more: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.select(more.column_names), more], promote_options="default")


def _of_service(usecase: UseCase) -> ds.Expression:
    return (ds.field("kind") == EVENT) & (ds.field("use_case") == usecase.name)


def _answers(lake: Lake, usecase: UseCase, wanted: ds.Expression) -> pa.Table:
    """Return what the service answered about outcome dates, as it has landed."""
    rows = _rows(lake, landing_table(SERVED_SCORES.topic), ANSWERED, _of_service(usecase) & wanted)
    return rows if rows is not None else event_schema(SERVED_SCORES).empty_table().select(ANSWERED)


def _about(lake: Lake, table: str, outcome_dates: Sequence[date]) -> pa.Table:
    """Return the predictions of a table about these outcome dates; files that hold none are not opened."""
    columns = [*PREDICTED, "attributes"]
    wanted = set(outcome_dates)
    decided = {
        file.values["decision_date"]
        for file in lake.files_with_ranges(table, ["outcome_date"])
        if any(first <= day <= last for first, last in [file.ranges.get("outcome_date", _EVER)] for day in wanted)
    }
    where = ds.field("decision_date").isin(pa.array(sorted(decided), pa.date32()))
    where &= ds.field("outcome_date").isin(pa.array(sorted(wanted), pa.date32()))
    rows = _rows(lake, table, columns, where) if decided else None
    return rows if rows is not None else pa.table({name: pa.nulls(0) for name in columns})


_EVER = (date.min, date.max)


def _rows(lake: Lake, table: str, columns: Sequence[str], where: ds.Expression) -> pa.Table | None:
    """Return rows of a table, None if nothing has been written to it yet."""
    return None if lake.dataset(table) is None else lake.read(table, columns=columns, where=where)
