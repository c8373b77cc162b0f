"""Candidates and champion on the same unseen window, the verdict, and promotion on that evidence alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import msgspec
import pandas as pd

from ml_assets.lake import Lake
from ml_assets.learning.compare import Comparison, compare
from ml_assets.learning.gate import Evidence, ModelEvidence, Verdict, judge
from ml_assets.learning.metrics import by_group
from ml_assets.learning.plots import precision_recall_plot, reliability_plot
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.training_set import part_of
from ml_assets.lifecycle.training import read_training_set
from ml_assets.registry import CHALLENGER, CHAMPION, ModelRegistry, ModelVersion
from ml_assets.spec import UseCase

EVIDENCE = "evidence.json"
VERDICT = "verdict.json"


@dataclass(frozen=True)
class EvaluationReport:
    """The comparison on one window, the chosen challenger, what the gate says of it, and the plots by name."""

    comparison: Comparison
    challenger: str
    challenger_run_id: str
    verdict: Verdict
    by_slot: pd.DataFrame
    by_month: pd.DataFrame
    plots: Mapping[str, bytes]


def evaluate_candidates(
    lake: Lake, registry: ModelRegistry, usecase: UseCase, training_date: date, *, threads: int = 0
) -> EvaluationReport:
    """Compare the candidates of a training date, and the champion, and write down the evidence.

    The challenger is the candidate of the best PR-AUC. Evidence and verdict are artifacts of its MLflow run.

    Raises:
        LookupError: a candidate has not been trained for this date.
    """
    comparison, run_ids = compare_models(lake, registry, usecase, training_date, threads=threads)
    measured = {
        name: msgspec.structs.replace(
            _model_evidence(registry, run_id),
            name=name,
            window_hash=comparison.window.hash,
            metrics=comparison.of(name),
        )
        for name, run_id in run_ids.items()
        if name in comparison.probabilities
    }
    candidates_only = comparison.metrics.drop(index=CHAMPION, errors="ignore")
    challenger = str(candidates_only["pr_auc"].idxmax())
    evidence = Evidence(
        window_hash=comparison.window.hash,
        window_first_decision=comparison.window.first_decision_time,
        challenger=measured[challenger],
        rule=measured[usecase.rule.name],
        champion_exists=CHAMPION in run_ids,
        champion=measured.get(CHAMPION),
    )
    verdict = judge(usecase.gate, evidence)
    registry.write_evidence(run_ids[challenger], EVIDENCE, evidence.to_json())
    registry.write_evidence(run_ids[challenger], VERDICT, verdict.to_json())
    probabilities = comparison.probabilities[challenger]
    return EvaluationReport(
        comparison=comparison,
        challenger=challenger,
        challenger_run_id=run_ids[challenger],
        verdict=verdict,
        by_slot=by_group(comparison.window, probabilities, capacity=usecase.capacity, by="slot"),
        by_month=by_group(comparison.window, probabilities, capacity=usecase.capacity, by="month"),
        plots={
            "precision and recall": precision_recall_plot(comparison.window.labels, comparison.probabilities),
            "reliability": reliability_plot(
                comparison.window.labels, probabilities, title=f"Reliability of the challenger, {challenger}"
            ),
        },
    )


def compare_models(
    lake: Lake, registry: ModelRegistry, usecase: UseCase, training_date: date, *, threads: int = 0
) -> tuple[Comparison, dict[str, str]]:
    """Return every candidate of a training date, and the champion if there is one, scored on the test part.

    The second value maps their names (the champion's is `CHAMPION`) to MLflow runs. A champion that needs a feature
    which is no longer made cannot be compared: it has a run, but no probabilities.

    Raises:
        LookupError: a candidate has not been trained for this date.
    """
    test = part_of(read_training_set(lake, usecase, training_date), "test")
    runs = registry.candidate_runs(usecase.name, training_date)
    if missing := [c.name for c in usecase.candidates if c.name not in runs]:
        raise LookupError(
            f"use case {usecase.name}: no MLflow run of {', '.join(missing)} for {training_date}; "
            "materialize these candidates first"
        )
    run_ids = {c.name: runs[c.name].run_id for c in usecase.candidates}
    champion = registry.resolve(usecase.name, CHAMPION)
    if champion is not None:
        run_ids[CHAMPION] = champion.run_id
    scorers = {
        name: Scorer.from_files(registry.download_model(run_id), threads=threads) for name, run_id in run_ids.items()
    }
    if champion is not None and not set(scorers[CHAMPION].manifest.features.all) <= set(test.column_names):
        del scorers[CHAMPION]
    return compare(test, scorers, capacity=usecase.capacity), run_ids


def register_challenger(registry: ModelRegistry, usecase: UseCase, training_date: date) -> ModelVersion:
    """Register the model that the evaluation of this date chose, with the alias `challenger`.

    Raises:
        LookupError: no candidate run of this date carries an evaluation.
    """
    for candidate, run in registry.candidate_runs(usecase.name, training_date).items():
        try:
            registry.read_evidence(run.run_id, EVIDENCE)
        except FileNotFoundError:
            continue
        return registry.register(
            usecase.name, run.run_id, tags={"candidate": candidate, "training_date": training_date.isoformat()}
        )
    raise LookupError(
        f"use case {usecase.name}: no evaluated candidate of {training_date}; materialize the evaluation first"
    )


def promote_challenger(
    registry: ModelRegistry, usecase: UseCase, *, override: str = ""
) -> tuple[ModelVersion, Verdict]:
    """Judge the challenger anew from the evidence on its MLflow run, and make it champion if it passes.

    The verdict of an earlier step is not trusted: a later run of only this step would slip past it. Without
    evidence there is no promotion. A person may `override` a no by giving the reason, which is noted on the version.

    Raises:
        LookupError: there is no challenger, or its run carries no evidence.
    """
    challenger = registry.resolve(usecase.name, CHALLENGER)
    if challenger is None:
        raise LookupError(f"use case {usecase.name} has no challenger; run the job {usecase.name}_retrain first")
    try:
        evidence = Evidence.from_json(registry.read_evidence(challenger.run_id, EVIDENCE))
    except FileNotFoundError as error:
        raise LookupError(
            f"use case {usecase.name}: version {challenger.version} has no {EVIDENCE} on its run {challenger.run_id}; "
            "materialize the evaluation of its training date, then promote again"
        ) from error
    verdict = judge(usecase.gate, evidence)
    if verdict.passed or override:
        registry.promote(usecase.name, challenger.version, override=override if not verdict.passed else "")
    return challenger, verdict


def _model_evidence(registry: ModelRegistry, run_id: str) -> ModelEvidence:
    text = registry.read_evidence(run_id, "model_evidence.json")
    return msgspec.json.decode(text, type=ModelEvidence)
