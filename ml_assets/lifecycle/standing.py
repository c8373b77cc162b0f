"""The champion of now: which model it is, since when, by whose decision and why, and how good it was when judged."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from ml_assets.database.promotions import LedgerEntry, last_change
from ml_assets.registry import ModelRegistry
from ml_assets.spec import UseCase

# What a person asks first, beside the gate's own metric; further metrics are on the run.
_HOW_GOOD = ("lift", "brier_skill", "calibration_error", "recall_at_capacity", "saved_per_day")


@dataclass(frozen=True, slots=True)
class ChampionFacts:
    """The ledger's line that made it champion, its run, and its metrics on the window that it was judged on."""

    line: LedgerEntry
    run_id: str
    candidate: str
    training_date: str
    metrics: Mapping[str, float]


def champion_facts(registry: ModelRegistry, engine: Engine, usecase: UseCase) -> ChampionFacts | None:
    """Return what is known of the champion that the ledger names, or None if it names none.

    The run is the ledger's own word for the model; what the registry has lost leaves what the ledger says.
    """
    line = last_change(engine, usecase.name)
    if line is None:
        return None
    if line.mlflow_run_id is None:
        return ChampionFacts(line, "", "of which the ledger has no MLflow run", "unknown", {})
    try:
        run = registry.run(line.mlflow_run_id)
    except LookupError as lost:
        return ChampionFacts(line, "", f"of which {lost}", "unknown", {})
    return ChampionFacts(
        line=line,
        run_id=run.run_id,
        candidate=run.tags.get("candidate", "unknown"),
        training_date=run.tags.get("training_date", "unknown"),
        metrics={name: run.metrics[name] for name in (usecase.gate.metric, *_HOW_GOOD) if name in run.metrics},
    )
