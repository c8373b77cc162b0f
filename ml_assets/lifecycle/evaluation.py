"""Candidates and champion on the same unseen window, the verdict, and registration."""

import hashlib
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import msgspec
import pandas as pd
from sqlalchemy import Connection, Engine

from ml_assets.database.feedback import feedback_about
from ml_assets.errors import NotFoundError
from ml_assets.lake import Lake
from ml_assets.learning.compare import Compared, Comparison, choose_challenger, compare
from ml_assets.learning.evidence import build_evidence
from ml_assets.learning.gate import Evidence, ModelEvidence, ServingEvidence, Standing, Verdict, judge
from ml_assets.learning.golden import GOLDEN_SAMPLE, ServingCheckError, check_in_fresh_process
from ml_assets.learning.intervals import metric_intervals
from ml_assets.learning.metrics import by_group
from ml_assets.learning.plots import precision_recall_plot, reliability_plot
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.slices import with_feedback
from ml_assets.lifecycle.champion import approved_hash, champion_run
from ml_assets.lifecycle.model_risk import INTERVALS
from ml_assets.lifecycle.training import read_training_set, training_set_source
from ml_assets.registry import CHALLENGER, CHAMPION, CandidateRun, ModelChangedError, ModelRegistry
from ml_assets.spec import UseCase

EVIDENCE = "evidence.json"
COMPARED = "compared.json"
VERDICT = "verdict.json"
EVALUATED_AS = "evaluated_as"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationReport:
    """The comparison on one window, the chosen challenger, what the gate says of it, and the plots by name.

    `validation` is what the challenger was chosen by, for each candidate: the gate's metric before the window.
    """

    comparison: Comparison
    validation: Mapping[str, float | None]
    challenger: str
    verdict: Verdict
    evidence: Evidence
    intervals: pd.DataFrame
    by_slot: pd.DataFrame
    by_month: pd.DataFrame
    plots: Mapping[str, bytes]


def evaluate_candidates(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    training_date: date,
    *,
    threads: int = 0,
) -> EvaluationReport:
    """Compare the candidates of a training date, and the champion, and write down the evidence.

    The challenger is the candidate that was best on the days before the test window (`choose_challenger`), so that the
    window tells what it is worth and not which was lucky there. Evidence and verdict are artifacts of its MLflow
    run.

    Raises:
        LookupError: a candidate has not been trained for this date.
    """
    comparison, run_ids = compare_models(lake, registry, engine, usecase, training_date, threads=threads)
    models = {
        name: read_model_evidence(registry, run_id)
        if name in comparison.probabilities
        else ModelEvidence(name=name, run_id=run_id)
        for name, run_id in run_ids.items()
    }
    validation = {c.name: models[c.name].metrics.get("validation") for c in usecase.candidates}
    challenger = choose_challenger(validation, usecase.gate.indifference)
    evidence = build_evidence(
        usecase.gate,
        comparison,
        models,
        challenger=challenger,
        rule=usecase.rule.name,
        champion=CHAMPION if CHAMPION in run_ids else None,
        seed=usecase.seed,
    )
    # What the comparison scored with has this hash: both were fetched by what the run had logged.
    evidence = msgspec.structs.replace(
        evidence,
        serving=check_serving(registry, run_ids[challenger]),
        model_hash=registry.stored_hash(run_ids[challenger]),
        since=training_set_source(lake, usecase, training_date).since,
    )
    verdict = judge(usecase.gate, evidence)
    registry.write_evidence(run_ids[challenger], EVIDENCE, evidence.to_json())
    registry.write_evidence(run_ids[challenger], VERDICT, verdict.to_json())
    compared = Compared.of(comparison, validation)
    registry.write_evidence(run_ids[challenger], COMPARED, msgspec.json.encode(compared).decode())
    intervals = metric_intervals(
        comparison.window,
        comparison.probabilities[challenger],
        capacity=usecase.capacity,
        action=usecase.action,
        confidence=usecase.gate.confidence,
        seed=usecase.seed,
    )
    registry.write_evidence(run_ids[challenger], INTERVALS, intervals.to_csv())
    for name in (c.name for c in usecase.candidates):
        registry.tag_run(run_ids[name], {EVALUATED_AS: CHALLENGER if name == challenger else "compared"})
    probabilities = comparison.probabilities[challenger]
    return EvaluationReport(
        comparison=comparison,
        validation=validation,
        challenger=challenger,
        verdict=verdict,
        evidence=evidence,
        intervals=intervals,
        by_slot=by_group(comparison.window, probabilities, capacity=usecase.capacity, action=usecase.action, by="slot"),
        by_month=by_group(
            comparison.window, probabilities, capacity=usecase.capacity, action=usecase.action, by="month"
        ),
        plots={
            "precision and recall": precision_recall_plot(comparison.window.labels, comparison.probabilities),
            "reliability": reliability_plot(
                comparison.window.labels, probabilities, title=f"Reliability of the challenger, {challenger}"
            ),
        },
    )


def compare_models(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine | str,
    usecase: UseCase,
    training_date: date,
    *,
    threads: int = 0,
) -> tuple[Comparison, dict[str, str]]:
    """Return every candidate of a training date, and the champion if there is one, scored on the test part.

    The second value maps their names (the champion's is `CHAMPION`) to MLflow runs. A champion that needs a feature
    which is no longer made, or whose model is gone or changed, cannot be compared: it has a run, but no probabilities.

    Raises:
        LookupError: a candidate has not been trained for this date.
    """
    test = read_training_set(lake, usecase, training_date, parts=["test"], for_models=True)
    test = with_feedback(usecase, test, partial(feedback_about, engine, usecase.name))
    runs = registry.candidate_runs(usecase.name, training_date)
    if missing := [c.name for c in usecase.candidates if c.name not in runs]:
        raise NotFoundError(
            f"use case {usecase.name}: no MLflow run of {', '.join(missing)} for {training_date}; "
            "materialize these candidates first"
        )
    run_ids = {c.name: runs[c.name].run_id for c in usecase.candidates}
    scorers = {
        name: Scorer.from_files(registry.download_model(run_id), threads=threads) for name, run_id in run_ids.items()
    }
    if (champion := champion_run(registry, engine, usecase)) is not None:
        run_ids[CHAMPION] = champion
        try:
            scorer = Scorer.from_files(
                registry.download_model(champion, approved_hash(engine, usecase)), threads=threads
            )
        except (ModelChangedError, LookupError) as error:
            _log.warning("use case %s: the champion cannot be compared: %s", usecase.name, error)
        else:
            if set(scorer.manifest.features.all) <= set(test.column_names):
                scorers[CHAMPION] = scorer
    comparison = compare(test, scorers, capacity=usecase.capacity, action=usecase.action, metric=usecase.gate.metric)
    return comparison, run_ids


def check_serving(registry: ModelRegistry, run_id: str) -> ServingEvidence | None:
    """Return what a fresh process measures on a run's saved model, fetched again; None if that fails.

    With None the gate's conditions on serving fail; the log has the reason.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            sample = Path(folder) / GOLDEN_SAMPLE
            sample.write_text(registry.read_evidence(run_id, GOLDEN_SAMPLE), encoding="utf-8")
            return check_in_fresh_process(registry.fetch_model(run_id, Path(folder)), sample)
        except (FileNotFoundError, ServingCheckError) as error:
            _log.warning("no serving check of MLflow run %s: %s", run_id, error)
            return None


def judge_challenger(
    registry: ModelRegistry, engine: Engine | str, usecase: UseCase, training_date: date
) -> tuple[str, Verdict]:
    """Return the MLflow run that the evaluation of a date chose, and the verdict on it as of now, written beside it.

    Raises:
        LookupError: no candidate run of this date carries an evaluation.
    """
    found = evaluated_challenger(registry, usecase, training_date)
    if found is None:
        raise NotFoundError(
            f"use case {usecase.name}: no evaluated candidate of {training_date}; materialize the evaluation first"
        )
    run_id = found[1].run_id
    verdict = judge_run(registry, engine, usecase, run_id)
    registry.write_evidence(run_id, VERDICT, verdict.to_json())
    return run_id, verdict


def judge_run(registry: ModelRegistry, engine: Engine | str, usecase: UseCase, run_id: str) -> Verdict:
    """Return the verdict on the model of a run, from its evidence, the use case's gate and the champion of now.

    Raises:
        LookupError: the run carries no evidence.
    """
    return judge_now(registry, engine, usecase, read_evidence(registry, usecase, run_id)[0])


def judge_now(
    registry: ModelRegistry, where: Engine | Connection | str, usecase: UseCase, evidence: Evidence
) -> Verdict:
    """Return the verdict on evidence, by the use case's gate and the champion that the ledger names now."""
    return judge(usecase.gate, evidence, Standing(champion_run(registry, where, usecase)))


def read_evidence(registry: ModelRegistry, usecase: UseCase, run_id: str) -> tuple[Evidence, str]:
    """Return the evidence on a run, and the SHA-256 of its text.

    Raises:
        LookupError: the run carries none, or that of another run.
    """
    try:
        written = registry.read_evidence(run_id, EVIDENCE)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"use case {usecase.name}: there is no {EVIDENCE} on the run {run_id}; materialize the evaluation of its "
            "training date, then promote again"
        ) from error
    evidence = Evidence.from_json(written)
    if evidence.challenger is None or evidence.challenger.run_id != run_id:
        raise NotFoundError(
            f"use case {usecase.name}: the {EVIDENCE} on the run {run_id} is of another run; materialize the "
            "evaluation of its training date again"
        )
    return evidence, hashlib.sha256(written.encode()).hexdigest()


def evaluated_challenger(
    registry: ModelRegistry, usecase: UseCase, training_date: date
) -> tuple[str, CandidateRun] | None:
    """Return the candidate, with its run, that the newest evaluation of a date chose."""
    for candidate, run in registry.candidate_runs(usecase.name, training_date).items():
        if run.tags.get(EVALUATED_AS) == CHALLENGER:
            return candidate, run
    return None


def read_model_evidence(registry: ModelRegistry, run_id: str) -> ModelEvidence:
    """Return what the training of a run said of its model."""
    text = registry.read_evidence(run_id, "model_evidence.json")
    return msgspec.structs.replace(msgspec.json.decode(text, type=ModelEvidence), run_id=run_id)
