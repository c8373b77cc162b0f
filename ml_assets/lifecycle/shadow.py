"""The model in the shadow: it scores what the champion scores, for nobody, until outcomes say which is better.

What it predicts is a table of the lake beside the champion's, and its outcomes are joined as those are. On a work-list
there is nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from sqlalchemy import Engine

from ml_assets.database.models import ShadowVerdictRow
from ml_assets.database.monitoring import replace_dates
from ml_assets.database.promotions import (
    CHAMPION_ACTIONS,
    Actor,
    LedgerEntry,
    judged_beside,
    last_change,
    open_request,
    rolled_back_by_run,
)
from ml_assets.lake import Lake, outcomes_table, shadow_table
from ml_assets.learning.scorer import Scorer
from ml_assets.lifecycle.evaluation import read_model_evidence
from ml_assets.lifecycle.promotion import roll_back
from ml_assets.lifecycle.registration import write_pack
from ml_assets.lifecycle.scoring import decisions_of, provenance_of, write_predictions
from ml_assets.lifecycle.training import RunOrigin
from ml_assets.monitoring.outcomes import judged_rows, known_until
from ml_assets.monitoring.shadow import ShadowVerdict, Trained, judge_shadow
from ml_assets.predictions.score import predictions_for, score
from ml_assets.registry import ModelRegistry
from ml_assets.spec import UseCase


@dataclass(frozen=True)
class ShadowScores:
    """How many decisions which version has scored in the shadow; without one, why there is none."""

    version: int | None
    rows: int
    why: str = ""


@dataclass(frozen=True)
class ShadowReport:
    """The verdict on the model in the shadow, why there is none, and the line of a rollback that followed from it."""

    verdict: ShadowVerdict | None
    why: str = ""
    rolled_back: LedgerEntry | None = None

    @property
    def sentence(self) -> str:
        """What a person reads."""
        said = self.verdict.sentence if self.verdict else self.why
        return f"{said}. Rolled back by itself: {self.rolled_back.reason}" if self.rolled_back else said


def in_shadow(engine: Engine | str, usecase: UseCase) -> LedgerEntry | None:
    """Return the ledger's line of the model in the shadow: what awaits approval, else the last other champion.

    None without a champion, and while there is no other model that the gate has passed.
    """
    champion = last_change(engine, usecase.name)
    return None if champion is None else judged_beside(engine, usecase.name, champion, asking=("requested",))


def score_shadow(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine,
    usecase: UseCase,
    dates: Sequence[date],
    origin: RunOrigin,
    *,
    threads: int = 0,
) -> ShadowScores:
    """Score the decisions of these dates with the model in the shadow, into the lake alone.

    Raises:
        ModelChangedError: its files are not those that the ledger names.
    """
    line = in_shadow(engine, usecase)
    if line is None or line.mlflow_run_id is None:
        return ShadowScores(None, 0, "there is no other model that the gate has passed")
    scorer = Scorer.from_files(registry.download_model(line.mlflow_run_id, line.model_hash), threads=threads)
    if scorer.manifest.feature_set_hash != usecase.feature_set_hash:
        return ShadowScores(line.to_version, 0, "it was trained on another definition of the features")
    features, version = decisions_of(lake, usecase, dates)
    nothing = np.zeros(features.num_rows, dtype=np.bool_)
    # Nobody acts on them: they are kept as they are, and the verdict tells.
    scored = score(usecase, scorer, features, explain=nothing, despite="in the shadow")
    provenance = provenance_of(usecase, line.to_version, line.mlflow_run_id, version, origin)
    rows = predictions_for(usecase, features, scored.probabilities, provenance)
    write_predictions(lake, shadow_table(usecase), rows, dates)
    return ShadowScores(line.to_version, rows.num_rows)


def verdict_on_shadow(
    lake: Lake, registry: ModelRegistry, engine: Engine | str, usecase: UseCase, until: date | None = None
) -> ShadowReport:
    """Return the verdict on the model in the shadow, on outcomes that were known by the end of a date."""
    champion, shadow = last_change(engine, usecase.name), in_shadow(engine, usecase)
    if champion is None or shadow is None:
        return ShadowReport(None, "there is no other model that the gate has passed")
    if lake.dataset(outcomes_table(usecase)) is None:
        return ShadowReport(None, "no outcomes have been joined yet")
    models = []
    for line in (champion, shadow):
        try:
            assert line.mlflow_run_id is not None  # noqa: S101 - `in_shadow` compares runs
            learned = read_model_evidence(registry, line.mlflow_run_id).trained_until
        except (LookupError, FileNotFoundError) as lost:
            return ShadowReport(None, f"version {line.to_version} cannot be looked up: {lost}")
        if learned is None:
            return ShadowReport(None, f"it is not known until when version {line.to_version} was trained")
        models.append(Trained(line.to_version, line.mlflow_run_id, learned))
    runs = pa.array([model.run_id for model in models])
    since = pa.scalar(max(model.until for model in models))
    where = ds.field("mlflow_run_id").isin(runs) & (ds.field("decision_time") >= since)
    rows = judged_rows(lake.read(outcomes_table(usecase), where=where))
    if until is not None:
        rows = known_until(rows, until)
    return ShadowReport(judge_shadow(usecase, rows, models[0], models[1]))


def judge_and_roll_back(
    lake: Lake, registry: ModelRegistry, engine: Engine, usecase: UseCase, day: date, actor: Actor
) -> ShadowReport:
    """Judge the model in the shadow as of the end of a date, write the verdict down, and act on it where that is due.

    The pack of a model that awaits approval is written anew with the verdict: that is what the approver reads.
    A champion that was promoted and then does worse than its predecessor, which went on in the shadow, is rolled back:
    once, and never in the tier `high`, where a person decides.
    """
    report = verdict_on_shadow(lake, registry, engine, usecase, day)
    replace_dates(engine, ShadowVerdictRow, usecase.name, [day], _as_rows(usecase, day, report))
    champion, verdict = last_change(engine, usecase.name), report.verdict
    request = open_request(engine, usecase.name)
    if verdict is not None and request is not None and request.mlflow_run_id == verdict.shadow.run_id:
        write_pack(registry, engine, usecase, verdict.shadow.run_id)
    if verdict is None or verdict.says != "better" or champion is None or champion.action != "promoted":
        return report
    shadow = in_shadow(engine, usecase)
    is_predecessor = shadow is not None and shadow.action in CHAMPION_ACTIONS and shadow.id < champion.id
    if (
        usecase.needs_approval
        or not is_predecessor
        or rolled_back_by_run(engine, usecase.name, verdict.champion.run_id)
    ):
        return report
    reason = f"worse than its predecessor, version {verdict.shadow.version}: {verdict.sentence}"
    entry = roll_back(registry, engine, usecase, actor, reason=reason, to_version=verdict.shadow.version)
    return ShadowReport(verdict, rolled_back=entry)


def _as_rows(usecase: UseCase, day: date, report: ShadowReport) -> pa.Table:
    verdict = report.verdict
    columns = ShadowVerdictRow.__table__.columns.keys()
    if verdict is None:
        return pa.table({name: pa.nulls(0, pa.string()) for name in columns})

    def known(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return pa.Table.from_pylist(
        [
            {
                "use_case": usecase.name,
                "decision_date": day,
                "champion_version": verdict.champion.version,
                "champion_run_id": verdict.champion.run_id,
                "shadow_version": verdict.shadow.version,
                "shadow_run_id": verdict.shadow.run_id,
                "metric": verdict.metric,
                "of_champion": known(verdict.of_champion),
                "of_shadow": known(verdict.of_shadow),
                "gain": known(verdict.gain.value),
                "low": known(verdict.gain.low),
                "high": known(verdict.gain.high),
                "saved_per_day": known(verdict.saved),
                "n": verdict.n,
                "positives": verdict.positives,
                "days": verdict.days,
                "says": verdict.says,
                "sentence": verdict.sentence,
            }
        ]
    )
