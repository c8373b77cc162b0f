"""Performance of predictions with known outcomes, by day, slot, slice, model version and stage, and the gate on them.

Every metric and interval is computed by `ml_assets.learning`, with the work-lists as they were at the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.learning.compare import compare_probabilities
from ml_assets.learning.evidence import UNKNOWN, build_evidence
from ml_assets.learning.gate import ModelEvidence, ServingEvidence, Verdict, judge
from ml_assets.learning.intervals import metric_intervals
from ml_assets.learning.statistics import decision_statistics
from ml_assets.learning.window import Window
from ml_assets.monitoring.effect import effect_of_acting, handling
from ml_assets.monitoring.outcomes import BATCH, judged_rows, known_until
from ml_assets.spec import UseCase

WHOLE = "all"
PERFORMANCE_SCHEMA = pa.schema(
    [
        pa.field("use_case", pa.string(), nullable=False),
        pa.field("outcome_date", pa.date32(), nullable=False),
        pa.field("dimension", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("measured", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("n", pa.int32(), nullable=False),
        pa.field("positives", pa.int32(), nullable=False),
        pa.field("days", pa.int32(), nullable=False),
        pa.field("judged", pa.bool_(), nullable=False),
    ]
)
MODEL = "model in use"


@dataclass(frozen=True)
class LiveVerdict:
    """The gate's verdict on the model in use, on decisions with known outcomes; without a verdict, `why` says why."""

    verdict: Verdict | None
    why: str = ""


def matured_window(usecase: UseCase, outcomes: pa.Table, until: date | None = None) -> pa.Table:
    """Return the judged predictions of the newest `window_days` decision dates, sorted by decision time and entity.

    With `until`, only outcome dates count whose outcomes were all known by the end of that date.
    """
    rows = judged_rows(outcomes)
    if until is not None:
        rows = known_until(rows, until)
    days = np.unique(rows["decision_date"].to_numpy())[-usecase.monitoring.window_days :]
    rows = rows.filter(pc.is_in(rows["decision_date"], pa.array(days, pa.date32())))
    return rows.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])


def performance(usecase: UseCase, rows: pa.Table) -> pa.Table:
    """Return the metrics of each group of a matured window, in `PERFORMANCE_SCHEMA`; empty without rows.

    Groups with fewer than `min_positives` fails are measured and not judged. The dimension `stage` has one group per
    stage. All other groups hold predictions of the batch only, because the batch scores every decision.
    """
    if not rows.num_rows:
        return PERFORMANCE_SCHEMA.empty_table()
    last = pc.max(rows["outcome_date"]).as_py()
    made: list[dict[str, object]] = []
    for dimension, value, chosen in _groups(usecase, rows):
        part = rows.filter(pa.array(chosen))
        window = Window.of(part)
        positives = int(window.labels.sum())
        about = {
            "use_case": usecase.name,
            "outcome_date": last,
            "dimension": dimension,
            "value": value,
            "n": len(window),
            "positives": positives,
            "days": len(np.unique(window.dates)),
            "judged": positives >= usecase.monitoring.min_positives,
        }
        for metric, (measured, low, high) in _measured(usecase, window, part).items():
            made.append({**about, "metric": metric, "measured": measured, "low": low, "high": high})
    made += _acting(usecase, rows, last)
    frame = pd.DataFrame(made)[PERFORMANCE_SCHEMA.names]
    return pa.Table.from_pandas(frame, schema=PERFORMANCE_SCHEMA, preserve_index=False)


def _acting(usecase: UseCase, rows: pa.Table, last: date) -> list[dict[str, object]]:
    """Return what acting avoided, as rows of `PERFORMANCE_SCHEMA`; no rows if it is unknown."""
    effect = effect_of_acting(usecase, rows)
    if effect.why:
        return []
    about = {
        "use_case": usecase.name,
        "outcome_date": last,
        "dimension": "acting",
        "value": f"up to {usecase.control.max_cost:g} {usecase.currency}",
        "n": effect.acted_on + effect.usual_way,
        "positives": effect.fails,
        "days": len(np.unique(rows["decision_date"].to_numpy())),
        "judged": effect.fails >= usecase.monitoring.min_positives,
    }
    found = {"avoided": effect.avoided, "cost_avoided": effect.cost_avoided, "control_cost": effect.control_cost}
    return [
        {**about, "metric": metric, "measured": one.value, "low": one.low, "high": one.high}
        for metric, one in found.items()
    ]


def judge_live(
    usecase: UseCase,
    rows: pa.Table,
    rule: NDArray[np.float64],
    models: Mapping[int, ModelEvidence],
    rule_evidence: ModelEvidence,
    *,
    serving: ServingEvidence | None,
    score_psi: float | None,
) -> LiveVerdict:
    """Return the gate's verdict on the model in use over a matured window, with the same `GateSpec` and slices.

    `rows` is a matured window of the batch; `rule` (n,) are the rule's probabilities for it. `models` maps each model
    version in `rows` to the evidence from its training. Decisions from which their own model learned are left out. If
    several versions have scored one after the other, they are judged together as the model in use.
    """
    versions = rows["model_version"].to_numpy()
    trained = {version: model.trained_until for version, model in models.items()}
    if unknown := sorted(set(versions.tolist()) - {version for version, until in trained.items() if until}):
        return LiveVerdict(None, f"it is not known until when version {unknown[0]} was trained")
    decided = rows["decision_time"].to_pylist()
    unseen = np.array(
        [_until(trained, version) <= at for version, at in zip(versions.tolist(), decided, strict=True)], dtype=np.bool_
    )
    rows, versions = rows.filter(pa.array(unseen)), versions[unseen]
    window = Window.of(rows)
    fails, least = int(window.labels.sum()), usecase.gate.min_test_positives
    if fails < least:
        return LiveVerdict(None, f"{fails:,} fails in {len(window):,} matured decisions; the gate asks for {least:,}")
    newest = models[int(versions.max())]
    comparison = compare_probabilities(
        window,
        {MODEL: rows["probability"].to_numpy(), usecase.rule.name: rule[unseen]},
        capacity=usecase.capacity,
        action=usecase.action,
        metric=usecase.gate.metric,
    )
    in_use = msgspec.structs.replace(
        newest,
        # No decision was seen in training by the model that scored it, so the first version's end of training holds.
        trained_until=_until(trained, int(versions[0])),
        metrics={**newest.metrics, "score_psi": score_psi},
    )
    evidence = build_evidence(
        usecase.gate,
        comparison,
        {MODEL: in_use, usecase.rule.name: rule_evidence},
        challenger=MODEL,
        rule=usecase.rule.name,
        champion=None,
        seed=usecase.seed,
    )
    verdict = judge(usecase.gate, msgspec.structs.replace(evidence, serving=serving))
    # The model in use is the champion, so the condition that compares with a champion does not apply.
    conditions = tuple(condition for condition in verdict.conditions if condition.name != "champion")
    return LiveVerdict(Verdict(passed=all(c.passed for c in conditions), conditions=conditions))


def _until(trained: Mapping[int, datetime | None], version: int) -> datetime:
    until = trained[version]
    assert until is not None  # noqa: S101 - `judge_live` has refused versions whose end of training is unknown
    return until


def _groups(usecase: UseCase, rows: pa.Table) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    stages = np.array(rows["stage"].to_pylist(), dtype=object)
    batch = stages == BATCH
    if batch.any():
        yield WHOLE, WHOLE, batch
    for stage in sorted(set(stages)):
        yield "stage", stage, stages == stage
    done = handling(rows)
    for value in sorted(set(done[batch])):
        yield "handling", value, batch & (done == value)
    columns = {"day": "decision_date", "slot": "slot", "model_version": "model_version"}
    # A slice with one of these names divides the rows in the same way.
    columns = {f"{spec.name}": f"slice__{spec.name}" for spec in usecase.gate.slices} | columns
    for dimension, column in columns.items():
        values = np.array([UNKNOWN if v is None else str(v) for v in rows[column].to_pylist()], dtype=object)
        for value in sorted(set(values[batch])):
            yield dimension, value, batch & (values == value)


def _measured(usecase: UseCase, window: Window, part: pa.Table) -> dict[str, tuple[float, float, float]]:
    chosen = part["on_list"].to_numpy().astype(np.bool_)
    table = metric_intervals(
        window,
        part["probability"].to_numpy(),
        capacity=usecase.capacity,
        action=usecase.action,
        confidence=usecase.gate.confidence,
        seed=usecase.seed,
        chosen=chosen,
    )
    found = {str(name): (float(row["value"]), float(row["low"]), float(row["high"])) for name, row in table.iterrows()}
    nothing = float("nan")
    acted = {
        name: (statistic.value(), nothing, nothing)
        for name, statistic in decision_statistics(window, chosen, usecase.action).items()
    }
    return {**acted, **found}
