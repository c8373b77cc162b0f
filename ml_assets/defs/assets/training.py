"""Training: the training set of a date, and each candidate fitted on it and tracked in MLflow."""

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ml_assets.defs.checks.training import judge_leaks, leak_check
from ml_assets.defs.common import (
    common,
    dates_of,
    key,
    numbers,
    origin,
    partitions,
    picture,
    retrying_outages_only,
    rounded,
    run_link,
    table,
)
from ml_assets.defs.resources import Platform
from ml_assets.lake import training_set_table
from ml_assets.memory import memory_allowed
from ml_assets.spec import Candidate, UseCase

if TYPE_CHECKING:
    from ml_assets.learning.fit import FittedCandidate


class TrainingWindowConfig(dg.Config):
    """A cut of the training set other than the usual. Dates as YYYY-MM-DD; empty leaves the usual."""

    train_cutoff: str = Field("", description="train on labels known by the start of this date, UTC")
    test_first: str = Field("", description="first decision date of the unseen test window")
    test_last: str = Field("", description="last decision date of the unseen test window")
    since: str = Field("", description="a change: learn from the decision dates since then alone (SinceChangeSpec)")


def since_change(usecase: UseCase, change: str) -> dict[str, Any]:
    """Return the run configuration of a retraining that learns from the dates since a change alone; empty: as usual."""
    asset = key(usecase, "training_set").to_python_identifier()
    return {"ops": {asset: {"config": {"since": change}}}} if change else {}


def build(usecase: UseCase) -> Iterator[dg.AssetsDefinition]:
    """Yield the training set and the candidates of a use case."""
    yield training_set_asset(usecase)
    for candidate in usecase.candidates:
        yield candidate_asset(usecase, candidate)


def training_set_asset(usecase: UseCase) -> dg.AssetsDefinition:
    """Return the asset of the training set."""
    split = usecase.split

    @dg.asset(
        key=key(usecase, "training_set"),
        deps=[key(usecase, "features"), key(usecase, "labels")],
        partitions_def=partitions(usecase),
        kinds={"pandas", "deltalake"},
        description=(
            f"Decisions whose outcome was known by the end of the date, cut by time: {split.train_days} days to train, "
            f"{split.calibration_days} to calibrate, {split.test_days} unseen to test. Labels known less than "
            f"{split.embargo} before the first test decision are left out."
        ),
        metadata={"dagster/table_name": training_set_table(usecase)},
        check_specs=[leak_check(key(usecase, "training_set"))],
        **common(usecase, "training"),
    )
    @retrying_outages_only
    def training_set(
        context: dg.AssetExecutionContext, config: TrainingWindowConfig, platform: Platform
    ) -> dg.MaterializeResult:
        from ml_assets.lifecycle.audit import audit_training_set
        from ml_assets.lifecycle.training import TrainingWindow, assemble_training_set

        (training_date,) = dates_of(context)
        report = assemble_training_set(
            platform.lake,
            usecase,
            training_date,
            TrainingWindow(
                train_cutoff=_start_of(config.train_cutoff) if config.train_cutoff else None,
                test_first=date.fromisoformat(config.test_first) if config.test_first else None,
                test_last=date.fromisoformat(config.test_last) if config.test_last else None,
                since=date.fromisoformat(config.since) if config.since else None,
            ),
            memory=memory_allowed(platform.settings.memory_mib),
        )
        leaks = audit_training_set(platform.lake, usecase, training_date, threads=platform.settings.threads)
        return dg.MaterializeResult(
            metadata={
                **({"learns from the dates since": config.since} if config.since else {}),
                "parts": table([{"part": name, **part} for name, part in report.parts.items()]),
                "fewer dates than asked": "; ".join(report.shorter) or "no",
                "dagster/row_count": sum(part["rows"] for part in report.parts.values()),
                "delta versions": dg.MetadataValue.json(report.data_versions),
                "what each feature alone ranks": table(
                    [{"feature": name, "AUC": auc} for name, auc in leaks.auc.items()], digits=3
                ),
            },
            check_results=[judge_leaks(leaks)],
        )

    return training_set


def candidate_asset(usecase: UseCase, candidate: Candidate) -> dg.AssetsDefinition:
    """Return the asset of one candidate: an MLflow run with the model as ONNX."""

    @dg.asset(
        key=key(usecase, "candidates", candidate.name),
        deps=[key(usecase, "training_set")],
        partitions_def=partitions(usecase),
        kinds={"mlflow", "scikitlearn"},
        description=f"{candidate.description} Fitted, calibrated, exported to ONNX and proved equal to the export.",
        **common(usecase, "training"),
    )
    @retrying_outages_only
    def trained(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.training import train_candidate

        (training_date,) = dates_of(context)
        run_id, fitted, plots = train_candidate(
            platform.lake,
            platform.registry,
            usecase,
            candidate,
            training_date,
            origin(context, platform, usecase),
            threads=platform.settings.threads,
        )
        return dg.MaterializeResult(
            metadata={
                "mlflow_run": run_link(platform, usecase, run_id),
                **numbers(fitted.metrics),
                "calibration": fitted.calibration.method,
                "calibration, Brier score of each method": table(
                    [{"method": method, "Brier score": score} for method, score in fitted.calibrations.items()], 6
                ),
                **_folds(usecase, fitted),
                "parity_max_abs_difference": fitted.parity_max_abs_difference,
                "fit_seconds": rounded(fitted.seconds),
                **{name: picture(png, name) for name, png in plots.items()},
            }
        )

    return trained


def _folds(usecase: UseCase, fitted: "FittedCandidate") -> dict[str, dg.MetadataValue]:
    """Return the walk-forward folds and the trials of the search as tables, if there were any."""
    metric, shown = usecase.gate.metric, {}
    if fitted.folds:
        folds = [{"fold": number, metric: value} for number, value in enumerate(fitted.folds, start=1)]
        shown["walk-forward folds"] = table(folds)
    if fitted.search is not None:
        ranked = sorted(fitted.search.trials, key=lambda trial: -math.inf if trial.value is None else trial.value)
        shown["search"] = table(
            [
                {"trial": t.number, metric: t.value, "state": t.state, "seconds": t.seconds, **t.parameters}
                for t in reversed(ranked)
            ]
        )
        shown["gain of the search"] = dg.MetadataValue.float(rounded(fitted.search.gain))
    return shown


def _start_of(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)
